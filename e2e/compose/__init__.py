"""Tests of the image, of the systemd units under a running systemd, and of compose.yaml. See e2e/README.md."""
