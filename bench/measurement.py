"""One measurement: a testbed whose programs do nothing but what is measured."""

import subprocess
import threading

from testkit.testbed import Testbed

# A program that takes longer than this many seconds is considered to hang.
TIMEOUT = 180


class Measurement(Testbed):
    """A testbed that discards standard output and serves no metrics, by default. Collectors write their metrics to a
    file at their end."""

    def __init__(self, work):
        super().__init__(work.directory())

    def pcktr(self, name, host=None, **settings):
        quiet = {"stdout": subprocess.DEVNULL, "metrics_addrport": "off", "metrics_file": None}
        return super().pcktr(name, host, **{**quiet, **settings})

    def collect(self, name="collect", host=None, **settings):
        return super().collect(name, host, **{"metrics_file": self.path(f"{name}.prom"), **settings})


class PeakMemory:
    """Samples the peak of a program's resident memory while the block runs.

    The peak in `wait4` would include the time before exec, when the process was a copy of this one.
    """

    def __init__(self, program):
        self.program, self.bytes = program, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _watch(self):
        while not self.over.wait(0.02):
            self.bytes = max(self.bytes, self.program.memory_peak())
