"""The program under test, in each of its modes."""

import os
import re

from . import http
from .build import PCKTR
from .metrics import Metrics
from .outcome import until
from .program import Program


def environment(settings):
    """An environment with these settings (`relay_endpoint` is RELAY_ENDPOINT; None is left out) and little else."""
    given = {name.upper(): str(value) for name, value in settings.items() if value is not None}
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **given}


class Pcktr(Program):
    """`pcktr`. By default it serves metrics on a port chosen by the kernel, and writes them to a file at its end."""

    def __init__(self, name, host, directory, prefix=(), binary=PCKTR, settings=None, **options):
        self.metrics_file = os.path.join(directory, f"{name}.prom")
        settings = {"metrics_addrport": "127.0.0.1:0", "metrics_file": self.metrics_file, **(settings or {})}
        super().__init__(name, host, [*prefix, binary], directory, env=environment(settings), **options)

    def metrics_port(self):
        """The port on which it serves metrics, according to its log."""
        return int(self.wait_for_log(r"serving metrics addresses=\[.*:(\d+)\]").group(1))

    def get(self, path, **options):
        """The response of its HTTP server."""
        return http.get(self.host, self.metrics_port(), path, **options)

    def metrics(self):
        """Its current metrics."""
        return Metrics(self.get("/metrics").text)

    def last_metrics(self):
        """Its metrics at its end."""
        with open(self.metrics_file, encoding="utf-8") as file:
            return Metrics(file.read())

    def wait_for_metric(self, name, least, seconds=20, **labels):
        """Waits until a counter has reached `least`."""
        value = 0

        def reached():
            nonlocal value
            value = self.metrics().sum(name, **labels)
            return value >= least

        until(reached, lambda: f"{name}{labels or ''} of {self.name} is {value}, not {least}", seconds)

    def ready(self):
        """Waits until it captures on all its devices, or listens."""
        self.metrics_port()
        return self

    def connected(self):
        """Waits until a capture has reached its collector."""
        self.wait_for_log("connected to the collector")
        return self

    def losses_in_log(self):
        """Its log lines at level ERROR. That level means that data was lost."""
        return self.log_lines(r"\bERROR\b")

    def panicked(self):
        return re.search(r"panicked at", self.log()) is not None
