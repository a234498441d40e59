"""The services of compose.yaml: started together, and inspected from outside."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from e2e.compose.engine import run
from e2e.compose.images import DEMO, PCKTR, PROMETHEUS
from e2e.compose.inside.send import content
from testkit import pcap
from testkit.build import ROOT
from testkit.metrics import Metrics
from testkit.outcome import Failed, check

# For a stack as a user starts it, and as the tests need it.
DEMO_FILES = ["-f", ROOT / "compose.yaml"]
TEST_FILES = [*DEMO_FILES, "-f", ROOT / "e2e/compose/override.yaml"]

HEAD = re.compile(rb"#([a-z]+) (\d{6}) ")

# Reads the metrics inside the container with bash, like the health check.
SCRAPE = r"""exec 3<>/dev/tcp/localhost/9108; printf 'GET %s HTTP/1.0\r\n\r\n' /metrics >&3; cat <&3"""


class Stack:
    """One run of the services. Use it as a context manager: it removes everything at the end."""

    def __init__(self, compose, files):
        self.command, self.files = compose, files
        self.out = Path(tempfile.mkdtemp(prefix="pcktr-e2e-compose-"))
        # The services run as another user.
        self.out.chmod(0o777)
        self.environment = os.environ | {
            "COMPOSE_PROJECT_NAME": f"pcktre2e{os.getpid()}",
            "E2E_OUT": str(self.out),
            "PCKTR_IMAGE": PCKTR,
            "PCKTR_DEMO_IMAGE": DEMO,
            "PROMETHEUS_IMAGE": PROMETHEUS,
            # Any free port.
            "METRICS_PORT": "0",
            "PROMETHEUS_PORT": "0",
            "GRAFANA_PORT": "0",
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.compose("down", "--volumes", "--timeout", "5", check=False)
        shutil.rmtree(self.out, ignore_errors=True)

    def compose(self, *arguments, check=True):
        return run(*self.command, *self.files, *arguments, env=self.environment, cwd=ROOT, timeout=300, check=check)

    def container(self, service):
        names = self.compose("ps", "-q", service).split()
        check(len(names) == 1, f"{len(names)} containers of {service}")
        return names[0]

    def inspect(self, service):
        return json.loads(run("docker", "inspect", self.container(service)))[0]

    def healthy(self, service):
        state = self.inspect(service)["State"]
        return state["Running"] and state["Health"]["Status"] == "healthy"

    def pid(self, service):
        """The process id of the service's first process, as seen by the host."""
        return self.inspect(service)["State"]["Pid"]

    def address(self, service):
        """The container's address in the services' network."""
        (network,) = self.inspect(service)["NetworkSettings"]["Networks"].values()
        return network["IPAddress"]

    def execute(self, service, *command):
        return run("docker", "exec", self.container(service), *command)

    def send(self, service, tag, first, count, host, port, *tzsp):
        """Sends `count` packets from a service."""
        self.execute(service, "python3", "/inside/send.py", tag, first, count, host, port, *tzsp)

    def metrics(self, service):
        text = self.execute(service, "bash", "-c", SCRAPE)
        head, _, body = text.partition("\r\n\r\n")
        check(" 200 " in head.splitlines()[0], f"{service}: {head}")
        return Metrics(body)

    def packets(self):
        """The packets that the collector has written: a list for each time it was started."""
        return [pcap.parse(path.read_bytes()).packets for path in sorted(self.out.glob("*.pcap"))]

    def lines(self, service):
        """The lines of a service's standard output and standard error."""
        done = subprocess.run(
            ["docker", "logs", self.container(service)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
        )
        return done.stdout.decode(errors="replace").splitlines()


def contents(packets):
    """Counts packets by tag and number, and checks their content."""
    found = {}
    for packet in packets:
        head = HEAD.search(packet.data)
        if head is None:
            raise Failed(f"unexpected packet: {packet.data[:80]!r}")
        tag, number = head[1].decode(), int(head[2])
        expected = content(tag, number)
        if packet.data[head.start() :][: len(expected)] != expected:
            raise Failed(f"packet with wrong content: {tag} {number}")
        found[tag, number] = found.get((tag, number), 0) + 1
    return found
