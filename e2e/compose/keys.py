"""Tests of the relay with keys: deploy/compose/keys.yaml, and the commands that deploy/README.md gives for it."""

import os
import subprocess

from e2e.compose.engine import run
from e2e.compose.images import PCKTR
from e2e.compose.relay import COUNT, SERVICES, TIMEOUT, Relay
from e2e.compose.stack import HEAD, TEST_FILES
from e2e.compose.wire import recorded
from testkit.build import ROOT
from testkit.outcome import check, equal, until

FILES = [*TEST_FILES, "-f", ROOT / "deploy/compose/keys.yaml"]

SOURCES = {"capture-a": "host-a", "capture-b": "host-b", "capture-tzsp": "router"}
# With the capture of deploy/compose/capture.yaml.
NAMES = SOURCES | {"capture": "docker-host"}

# How the collector's program is started: its service's own command pipes it to tcpdump.
PROGRAM = "/usr/lib/packeteur/pcktr"


class Keys:
    """The tests. They must run in order: each continues with the state of the one before."""

    def __init__(self, stack):
        self.stack, self.relay = stack, Relay(stack)
        self.folder = stack.out / "keys"
        self.folder.mkdir()
        stack.environment |= {"KEYS": str(self.folder), "COLLECTOR_KEY": ""}
        self.public = {}

    def keygen(self, *service):
        return self.stack.compose("run", "--rm", "-T", "-e", "MODE=keygen", *service).strip()

    def authorize(self, *services):
        """Replaces the list of keys, as editors do: by renaming another file."""
        new = self.folder / "new"
        new.write_text("".join(f"{self.public[service]} {NAMES[service]}\n" for service in services))
        os.replace(new, self.folder / "authorized_keys")

    def rejected(self, reason):
        return self.stack.metrics("collector").sum("packeteur_rejected_connections_total", reason=reason)

    def are_made(self):
        """Each service has a key of its own, and prints the same public key again."""
        self.public = {service: self.keygen(service) for service in SOURCES}
        collector = self.keygen("collector", PROGRAM)
        equal(len({collector, *self.public.values()}), 4, "different keys")
        equal(self.keygen("collector", PROGRAM), collector, "the collector's key")
        self.stack.environment["COLLECTOR_KEY"] = collector

    def are_required(self):
        """Without COLLECTOR_KEY, a capture does not start."""
        command = [*self.stack.command, *map(str, self.stack.files), "run", "--rm", "-T", "capture-tzsp"]
        environment = self.stack.environment | {"COLLECTOR_KEY": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=60)
        equal(done.returncode, 64, "exit code")
        check("KEY_FILE" in done.stderr and "without COLLECTOR_KEY" in done.stderr, done.stderr)

    def encrypt(self):
        """Packets of admitted captures arrive, and cannot be read on the way."""
        self.authorize("capture-a", "capture-b")
        self.stack.compose("up", "-d", "--no-build", "host-a", "host-b", "router", *SERVICES)
        for service in SERVICES:
            until(lambda: self.stack.healthy(service), f"{service} is not healthy", TIMEOUT)
        up = ["host-a", "host-b"]
        until(lambda: self.sources_up() == up, lambda: f"sources that are up: {self.sources_up()}", TIMEOUT)
        with recorded(self.stack.pid("collector")) as stop:
            for service, tag in (("host-a", "a"), ("host-b", "b")):
                self.relay.send(service, tag)
            self.relay.wait_for_all()
            data = stop()
        check(len(data) > sum(self.relay.sent.values()) * 100, f"only {len(data)} bytes were recorded")
        check(HEAD.search(data) is None, "packets can be read on the way")

    def sources_up(self):
        metrics = self.stack.metrics("collector")
        return [name for name in NAMES.values() if metrics.sum("packeteur_source_up", source=name)]

    def refuse_unknown_keys(self):
        """A capture that is not listed is refused, and says so. Once it is listed, its packets arrive."""
        line = f"the collector does not admit this capture's key {self.public['capture-tzsp']}"
        log = until(
            lambda: [found for found in self.stack.lines("capture-tzsp") if line in found], "no message", TIMEOUT
        )
        equal(len(log), 1, "messages")
        check(self.rejected("unknown_key") > 0, "the refusal is not counted")
        before = self.relay.written()
        self.relay.send("router", "tzsp")
        until(
            lambda: self.stack.metrics("capture-tzsp").sum("packeteur_relay_queued_packets") >= COUNT,
            "its packets are not queued",
            TIMEOUT,
        )
        equal(self.relay.written(), before, "packets written")
        self.authorize(*SOURCES)
        self.relay.wait_for_all()

    def refuse_captures_without_key(self):
        (network,) = self.stack.inspect("collector")["NetworkSettings"]["Networks"]
        options = ["--network", network, "--cap-drop", "ALL", "--cap-add", "NET_RAW"]
        name = run("docker", "run", "-d", *options, "-e", "RELAY_ENDPOINT=tcp://collector:7386", PCKTR).strip()
        try:
            message = "the collector requires keys: set KEY_FILE and COLLECTOR_KEY"

            def log():
                done = subprocess.run(["docker", "logs", name], capture_output=True, text=True, timeout=60)
                return done.stdout + done.stderr

            until(lambda: message in log(), log, TIMEOUT)
            until(lambda: self.rejected("mechanism") > 0, "the refusal is not counted", TIMEOUT)
        finally:
            run("docker", "rm", "-f", name)
        equal(self.stack.metrics("collector").sum("packeteur_collector_connections"), len(SOURCES), "connections")

    def admit_a_docker_host(self):
        """The capture of capture.yaml makes its key, and connects when it is listed."""
        command = [*self.stack.command, "-f", ROOT / "deploy/compose/capture.yaml"]
        environment = self.stack.environment | {
            "COMPOSE_PROJECT_NAME": self.stack.environment["COMPOSE_PROJECT_NAME"] + "host",
            "RELAY_ENDPOINT": f"tcp://{self.stack.address('collector')}:7386",
            "KEY_FILE": "/var/lib/packeteur/key",
            "SOURCE_NAME": NAMES["capture"],
            # It captures none of the machine's packets.
            "FILTER": "src host 192.0.2.99",
            "METRICS_ADDRPORT": "off",
        }

        def compose(*arguments):
            return run(*command, *arguments, env=environment, cwd=ROOT)

        try:
            self.public["capture"] = compose("run", "--rm", "-T", "-e", "MODE=keygen", "capture").strip()
            self.authorize(*NAMES)
            compose("up", "-d", "--no-build")
            until(lambda: "docker-host" in self.sources_up(), "the capture is not connected", TIMEOUT)
        finally:
            compose("down", "--volumes", "--timeout", "5")


STEPS = [
    ("each service makes its own", Keys.are_made),
    ("a capture with a key does not start without the collector's", Keys.are_required),
    ("packets cannot be read on the way", Keys.encrypt),
    ("an unknown key is refused until it is listed", Keys.refuse_unknown_keys),
    ("a capture without key is refused", Keys.refuse_captures_without_key),
    ("the capture of a Docker host has a key, too", Keys.admit_a_docker_host),
]
