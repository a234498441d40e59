#!/usr/bin/env python3
"""The bench: real programs on real input, the peers beside them. See bench/README.md."""

import argparse
import importlib
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from harness import machine, network, pcktr  # noqa: E402
from harness.place import Place  # noqa: E402
from harness.process import Failed  # noqa: E402

SECTIONS = ["relay", "merge", "live", "idle", "latency", "memory", "tzsp", "observe"]


class Bench:
    """What a section is told: how much to measure, how often, and where to put it."""

    def __init__(self, place, small, rounds):
        self.place, self.small, self.rounds = place, small, rounds
        self.said = set()

    def sized(self, full, small):
        """How much: for figures, or for finding out whether all of it works."""
        return small if self.small else full

    def has(self, name, *tools):
        """Whether a peer can be measured. Says so once where it can't."""
        missing = machine.missing(*tools)
        if missing and name not in self.said:
            self.said.add(name)
            say(f"left out: {name} ({' and '.join(missing)} not installed)")
        return not missing


def say(text):
    """For people, now; the tables go to standard output."""
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", nargs="*", help=f"{', '.join(SECTIONS)}; default: all")
    parser.add_argument("--small", action="store_true", help="little input, one round: does it all work?")
    parser.add_argument("--rounds", type=int, help="how often each is measured; the tables have medians; default 3")
    parser.add_argument("--directory", help="where input is made, some GB of it; default: as TMPDIR says")
    settings = parser.parse_args()
    unknown = [name for name in settings.section if name not in SECTIONS]
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)} (there are: {', '.join(SECTIONS)})")
    # Told to end, it ends as by an exception: what it has started and made goes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    rounds = settings.rounds or (1 if settings.small else 3)
    failed = []
    try:
        pcktr.need()
    except Failed as reason:
        sys.exit(str(reason))
    print("## The machine\n")
    for line in machine.describe():
        print(f"- {line}", flush=True)
    if settings.small:
        print("\n**--small: these figures only show that it works.**")
    with Place(settings.directory) as place:
        bench = Bench(place, settings.small, rounds)
        for name in settings.section or SECTIONS:
            if not run_section(bench, name):
                failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def run_section(bench, name):
    """Prints a section's tables as they come. False where it failed: the others are measured all the same."""
    section = importlib.import_module(f"sections.{name}")
    print(f"\n## {name}\n\n{' '.join(section.run.__doc__.split())}", flush=True)
    reason = network.why_not() if getattr(section, "NEEDS_HOSTS", False) else None
    if reason:
        print(f"\nSkipped: {reason}.", flush=True)
        say(f"skipped: {name} ({reason})")
        return True
    began = time.monotonic()
    try:
        for part in section.run(bench):
            print(f"\n{part}", flush=True)
    except (Failed, OSError) as error:
        print(f"\nFailed: {error}", flush=True)
        say(f"failed: {name}: {error}")
        return False
    say(f"{name}: {time.monotonic() - began:.0f} s")
    return True


if __name__ == "__main__":
    main()
