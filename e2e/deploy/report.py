"""What a script of tests says: a line for each test, and a closing line with the sums."""

import sys
import time
import traceback

from harness.outcome import Failed, Skipped


class Report:
    """Counts tests, and tells how each of them went."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def run(self, name, test, *arguments):
        """Runs one test. Whatever it raises is a failure, except `Skipped`. Answers whether it passed."""
        began = time.monotonic()
        try:
            test(*arguments)
        except Skipped as reason:
            self.skip(name, reason)
            return False
        except Exception as failure:  # Whatever went wrong: the test has failed.
            self.failed += 1
            print(f"FAIL {name} ({time.monotonic() - began:.1f} s)", flush=True)
            text = str(failure) if isinstance(failure, Failed) else traceback.format_exc()
            print("     " + text.strip().replace("\n", "\n     "), flush=True)
            return False
        self.passed += 1
        print(f"ok   {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return True

    def skip(self, name, reason):
        """Says that a test was not run, and why."""
        self.skipped += 1
        print(f"SKIP {name}: {reason}", flush=True)

    def close(self):
        """The last line, and the exit code."""
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        sys.exit(1 if self.failed else 0)
