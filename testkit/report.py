"""The report of a test run: a line for each test, and a summary line."""

import time
import traceback

from .outcome import Failed, Skipped


class Report:
    """Prints how each test went, and counts."""

    def __init__(self):
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    def run(self, name, test, *arguments):
        """Runs one test. Any exception but `Skipped` is a failure. Returns whether it passed."""
        began = time.monotonic()
        try:
            test(*arguments)
        except Skipped as reason:
            self.skipped(name, reason)
            return False
        except Exception as failure:
            text = str(failure) if isinstance(failure, Failed) else traceback.format_exc()
            self.failed(name, text, time.monotonic() - began)
            return False
        self.passed(name, time.monotonic() - began)
        return True

    def passed(self, name, seconds):
        self.counts["passed"] += 1
        print(f"ok   {name} ({seconds:.1f} s)", flush=True)

    def failed(self, name, text, seconds):
        self.counts["failed"] += 1
        print(f"FAIL {name} ({seconds:.1f} s)", flush=True)
        print("     " + text.strip().replace("\n", "\n     "), flush=True)

    def skipped(self, name, reason):
        self.counts["skipped"] += 1
        print(f"SKIP {name}: {reason}", flush=True)

    def close(self):
        """Prints the summary line and returns the exit code."""
        print(", ".join(f"{count} {outcome}" for outcome, count in self.counts.items()), flush=True)
        return 1 if self.counts["failed"] else 0
