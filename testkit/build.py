"""Where the source tree and the built programs are."""

import os
from pathlib import Path

from .outcome import Skipped

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()
RELEASE = TARGET / "release"
# The program under test.
PCKTR = os.path.abspath(os.environ.get("PCKTR") or RELEASE / "pcktr")

MISSING = f"{PCKTR} is missing: run `cargo build --release --package pcktr`, or set PCKTR"


def is_built():
    return os.access(PCKTR, os.X_OK)


def need_pcktr():
    """Skips the test if the program has not been built."""
    if not is_built():
        raise Skipped(MISSING)
