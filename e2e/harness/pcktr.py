"""The program itself, in each of its modes."""

import os
import re

from . import http
from .metrics import Metrics
from .outcome import until
from .program import Program

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PCKTR = os.path.abspath(os.environ.get("PCKTR") or os.path.join(ROOT, "target", "release", "pcktr"))


def environment(settings):
    """An environment with these settings (`relay_endpoint` is RELAY_ENDPOINT) and nothing else that matters."""
    given = {name.upper(): str(value) for name, value in settings.items() if value is not None}
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **given}


class Pcktr(Program):
    """`pcktr`. Its metrics are served on a port that the kernel chose, and written to a file at its end."""

    def __init__(self, name, host, directory, stdin=None, stdout=None, prefix=(), binary=PCKTR, **settings):
        self.metrics_file = os.path.join(directory, f"{name}.prom")
        settings = {"metrics_addrport": "127.0.0.1:0", "metrics_file": self.metrics_file, **settings}
        given = {} if stdin is None else {"stdin": stdin}
        argv = [*prefix, binary]
        super().__init__(name, host, argv, directory, environment(settings), stdout=stdout, **given)

    def metrics_port(self):
        """Where it serves its metrics, as it says itself."""
        return int(self.wait_for_log(r"serving metrics addresses=\[.*:(\d+)\]").group(1))

    def get(self, path):
        """The answer of its HTTP server."""
        return http.get(self.host, self.metrics_port(), path)

    def metrics(self):
        """Its metrics now."""
        return Metrics(self.get("/metrics").text)

    def last_metrics(self):
        """Its metrics as it ended."""
        with open(self.metrics_file, encoding="utf-8") as file:
            return Metrics(file.read())

    def wait_for_metric(self, name, least, seconds=20, **labels):
        """Waits until a counter has reached `least`."""
        found = [0]

        def reached():
            found[0] = self.metrics().sum(name, **labels)
            return found[0] >= least

        until(reached, lambda: f"{name}{labels or ''} of {self.name} is {found[0]}, not {least}", seconds)

    def ready(self):
        """Waits until it captures on all its devices, or listens."""
        self.metrics_port()
        return self

    def connected(self):
        """Waits until a capture has reached its collector."""
        self.wait_for_log("connected to the collector")
        return self

    def losses_in_log(self):
        """What it has logged as an error: by the house's rule, that data was lost."""
        return self.log_lines(r"\bERROR\b")


def panics(text):
    """Whether a log tells of a panic."""
    return re.search(r"panicked at", text) is not None
