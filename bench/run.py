"""The benchmarks: the program on real input, compared with similar tools. Run as `python3 -m bench.run`; see
bench/README.md."""

import argparse
import importlib
import multiprocessing
import signal
import sys
import time

from bench import machine
from bench.work_directory import WorkDirectory
from testkit import build, isolation
from testkit.outcome import Failed, Skipped

SECTIONS = ["relay", "merge", "live", "idle", "latency", "memory", "tzsp", "observe"]


class Bench:
    """What a section gets: how much to measure, how often, and where to put files."""

    def __init__(self, work, small, rounds):
        self.work, self.small, self.rounds = work, small, rounds
        self.reported = set()

    def sized(self, full, small):
        """`full` for real figures, `small` to see whether everything works."""
        return small if self.small else full

    def has(self, name, *tools):
        """Whether the tools of a peer are installed. Reports it once if not."""
        missing = machine.missing(*tools)
        if missing and name not in self.reported:
            self.reported.add(name)
            log(f"left out: {name} ({' and '.join(missing)} not installed)")
        return not missing


def log(text):
    """Prints progress on standard error. The tables go to standard output."""
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python3 -m bench.run", description=__doc__)
    parser.add_argument("section", nargs="*", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--small", action="store_true", help="little input and one round, to see whether it works")
    parser.add_argument("--rounds", type=int, help="measure each N times; the tables show medians (default: 3)")
    parser.add_argument("--directory", help="directory for input files, some GB (default: the one for temporary files)")
    args = parser.parse_args()
    unknown = [name for name in args.section if name not in SECTIONS]
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)} (there are: {', '.join(SECTIONS)})")
    # End with an exception on SIGTERM, so that files and programs are cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if not build.is_built():
        sys.exit(build.MISSING)
    print("## The machine\n")
    for line in machine.describe():
        print(f"- {line}", flush=True)
    if args.small:
        print("\n**--small: these figures only show that it works.**", flush=True)
    failed = []
    with WorkDirectory(args.directory) as work:
        bench = Bench(work, args.small, args.rounds or (1 if args.small else 3))
        # The section's process may move to another network namespace.
        fork = multiprocessing.get_context("fork")
        for name in args.section or SECTIONS:
            process = fork.Process(target=run_section, args=(bench, name), daemon=True)
            process.start()
            try:
                process.join()
            finally:
                process.terminate()
                process.join()
            if process.exitcode != 0:
                failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def run_section(bench, name):
    """Prints a section's tables as they come. Exits with code 1 if it fails: the other sections still run."""
    isolation.die_with_parent()
    section = importlib.import_module(f"bench.sections.{name}")
    print(f"\n## {name}\n\n{' '.join(section.run.__doc__.split())}", flush=True)
    began = time.monotonic()
    try:
        if getattr(section, "NEEDS_HOSTS", False):
            isolation.isolate()
        with WorkDirectory(bench.work.path) as bench.work:
            for part in section.run(bench):
                print(f"\n{part}", flush=True)
    except Skipped as reason:
        print(f"\nSkipped: {reason}.", flush=True)
        log(f"skipped: {name} ({reason})")
    except (Failed, OSError) as error:
        print(f"\nFailed: {error}", flush=True)
        log(f"failed: {name}: {error}")
        sys.exit(1)
    else:
        log(f"{name}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
