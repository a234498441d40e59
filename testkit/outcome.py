"""Test outcomes: failed, skipped, and the checks that lead there."""

import time


class Failed(Exception):
    """The program did not do what it should, or a measurement is not valid."""


class Skipped(Exception):
    """The test cannot run on this machine. The text says why."""


def check(condition, message):
    """Fails with `message` unless `condition` is true."""
    if not condition:
        raise Failed(message)


def equal(got, expected, what):
    """Fails unless both values are equal. Long values are shown from their first difference on."""
    if got == expected:
        return
    if isinstance(got, (list, bytes, str)) and type(got) is type(expected):
        at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
        got, expected = (f"length {len(side)}, from {at} on {short(side[at : at + 80])}" for side in (got, expected))
    raise Failed(f"{what}:\n  got      {got}\n  expected {expected}")


def short(value):
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + " ..."


def until(condition, what, seconds=10.0, interval=0.01):
    """Polls until `condition` returns a true value, and returns that value. Fails with `what`, a string or a function
    that returns one, after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed(f"timed out after {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(interval)
