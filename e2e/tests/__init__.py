"""The tests, one file for each subject. A test is a function `test_...` with a [`Testbed`] as its argument.

A test with the attribute `alone = True` runs while no other test runs.
"""
