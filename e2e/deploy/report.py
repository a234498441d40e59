"""What a script of tests says: a line for each test, and a closing line with the sums."""

import sys
import traceback


class Skip(Exception):
    """What a test needs is not there; its text says what."""


class Report:
    """Counts tests, and tells how each of them went."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def run(self, name, test, *arguments):
        """Runs one test. Whatever it raises is a failure, except `Skip`. Answers what the test answers."""
        try:
            answer = test(*arguments)
        except Skip as reason:
            self.skip(name, reason)
        except Exception as failure:
            self.failed += 1
            print(f"FAIL  {name}", flush=True)
            if not isinstance(failure, AssertionError):
                traceback.print_exc(file=sys.stdout)
            for line in str(failure).splitlines():
                print(f"      {line}", flush=True)
        else:
            self.passed += 1
            print(f"ok    {name}", flush=True)
            return answer
        return None

    def skip(self, name, reason):
        """Says that a test was not run, and why."""
        self.skipped += 1
        print(f"SKIP  {name}: {reason}", flush=True)

    def close(self):
        """The last line, and the exit code."""
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        sys.exit(1 if self.failed else 0)
