"""The tests, one file for each thing that they are about. A test is a function `test_...` that is handed a scene.

One that says `alone = True` runs when no other does.
"""
