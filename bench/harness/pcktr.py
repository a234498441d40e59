"""The program itself, in each of its modes."""

import os
import socket
import subprocess

from .metrics import Metrics
from .process import Failed, Program

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "release")
PCKTR = os.path.abspath(os.environ.get("PCKTR") or os.path.join(RELEASE, "pcktr"))


class Pcktr(Program):
    """`pcktr` with these settings (`relay_endpoint` is RELAY_ENDPOINT), and nothing else that matters."""

    def __init__(self, place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, prefix=(), **settings):
        self.metrics_file = None
        if settings.pop("with_metrics", False):
            self.metrics_file = settings["metrics_file"] = place.name("metrics")
        settings.setdefault("metrics_addrport", "off")
        env = {name.upper(): str(value) for name, value in settings.items()}
        super().__init__([*prefix, PCKTR], stdin=stdin, stdout=stdout, env={"PATH": os.environ["PATH"], **env})

    def last_metrics(self):
        """Its metrics as it ended. It must have been started `with_metrics`."""
        with open(self.metrics_file, encoding="utf-8") as file:
            return Metrics(file.read())

    def metrics_port(self):
        """Where it serves its metrics, as it says itself."""
        return int(self.wait_for_log(r"serving metrics addresses=\[.*:(\d+)\]").group(1))


def collect(programs, place, endpoint, prefix=(), **settings):
    """A collector that listens already, and writes to nowhere unless told otherwise."""
    program = programs.keep(
        Pcktr(place, prefix=prefix, mode="collect", collect_endpoint=endpoint, with_metrics=True, **settings)
    )
    program.wait_for_log("waiting for captures")
    return program


def capture(programs, place, endpoint, prefix=(), **settings):
    """A capture."""
    return programs.keep(Pcktr(place, prefix=prefix, mode="capture", relay_endpoint=endpoint, **settings))


def free_port(kind=socket.SOCK_STREAM):
    """A port that nobody uses. Somebody else may take it first: then the measurement fails, and says so."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def endpoint():
    """An endpoint of the relay that nobody uses."""
    return f"tcp://127.0.0.1:{free_port()}"


def need():
    """Says what to do where there is no program to measure."""
    if not os.access(PCKTR, os.X_OK):
        raise Failed(f"{PCKTR} is missing: cargo build --release --package pcktr, or set PCKTR")
