"""Tests of deploy/ that need no Docker. See e2e/README.md."""
