"""The end-to-end tests. See e2e/README.md."""
