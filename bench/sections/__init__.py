"""The sections. Each module has `run(bench)`, which yields Markdown. Its docstring introduces the section.

A module with `NEEDS_HOSTS = True` runs as root, in its own network namespace.
"""
