"""Programs: started, watched by their log, told to end, and measured."""

import os
import re
import signal
import subprocess

from .outcome import Failed, check, equal, until


class Program:
    """A process. Its standard error is its log; its standard output, unless piped, a file."""

    def __init__(self, name, host, argv, directory, env=None, stdin=subprocess.DEVNULL, stdout=None):
        self.name, self.host = name, host
        self.log_path = os.path.join(directory, f"{name}.log")
        self.stdout_path = os.path.join(directory, f"{name}.out")
        with open(self.log_path, "ab") as log, open(self.stdout_path, "wb") as out:
            self.process = subprocess.Popen(
                host.command(*argv), stdin=stdin, stdout=out if stdout is None else stdout, stderr=log, env=env
            )

    @property
    def stdin(self):
        return self.process.stdin

    @property
    def stdout(self):
        return self.process.stdout

    def output(self):
        """What it has written to standard output so far."""
        with open(self.stdout_path, "rb") as out:
            return out.read()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def log_lines(self, pattern):
        return [line for line in self.log().splitlines() if re.search(pattern, line)]

    def wait_for_log(self, pattern, seconds=10):
        """Waits for a line that matches, and returns the match."""

        def found():
            match = re.search(pattern, self.log(), re.MULTILINE)
            if match is None and self.process.poll() is not None:
                match = re.search(pattern, self.log(), re.MULTILINE)
                if match is None:
                    raise Failed(f"{self.name} ended ({self.process.returncode}) without /{pattern}/ in its log")
            return match

        return until(found, f"/{pattern}/ in the log of {self.name}", seconds)

    def wait(self, code=0, seconds=20):
        """Waits for its end, and checks the exit code."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} has not ended within {seconds:g} s") from None
        equal(self.process.returncode, code, f"exit code of {self.name}")

    def stop(self, code=0, seconds=20, by=signal.SIGTERM):
        """Tells it to end, waits until it has, and checks the exit code."""
        check(self.process.poll() is None, f"{self.name} has ended already ({self.process.returncode})")
        self.process.send_signal(by)
        self.wait(code, seconds)

    def kill(self):
        """Ends it without a word."""
        self.process.kill()
        self.process.wait()

    def memory_peak(self):
        """The most bytes of memory that it has had (`VmHWM`, proc(5)): its own, and what it has mapped."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024
