"""How a test says what it found."""

import time


class Failed(Exception):
    """The program did not do what it should."""


class Skipped(Exception):
    """This machine does not let the test run. Its text says why."""


def check(true, what):
    """Fails with `what` unless `true`."""
    if not true:
        raise Failed(what)


def equal(got, expected, what):
    """Fails unless the two are equal. Long values are shown from where they begin to differ."""
    if got == expected:
        return
    if isinstance(got, (list, bytes, str)) and type(got) is type(expected):
        at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
        got, expected = (f"{len(side)} long, from {at} on {short(side[at : at + 80])}" for side in (got, expected))
    raise Failed(f"{what}:\n  got      {got}\n  expected {expected}")


def short(value):
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + " ..."


def until(condition, what, seconds=10.0):
    """Waits until `condition` returns something true, and returns that; fails with `what` if it takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:g} s in vain: {what() if callable(what) else what}")
        time.sleep(0.01)
