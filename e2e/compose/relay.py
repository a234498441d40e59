"""Tests that the services relay all packets to the collector, even if one of them fails."""

import os
import signal
import subprocess

from e2e.compose.engine import run
from e2e.compose.inside.send import PORT
from e2e.compose.stack import HEAD, contents
from e2e.compose.wire import recorded
from testkit.outcome import Skipped, check, equal, until

CAPTURES = ["capture-a", "capture-b", "capture-tzsp"]
SERVICES = [*CAPTURES, "collector"]

# Packets that a sender sends at once, in one second.
COUNT = 1000
# Seconds. After an interruption, the intervals of TCP's retransmissions double.
TIMEOUT = 60


class Relay:
    """The tests. They must run in order: each continues with the state of the one before."""

    def __init__(self, stack):
        self.stack = stack
        # How often each packet must be in the output: both hosts capture the packets between them.
        self.sent = {}

    def send(self, service, tag, count=COUNT):
        first = 1 + max((number for known, number in self.sent if known == tag), default=0)
        if service == "router":
            self.stack.send(service, tag, first, count, "capture-tzsp", 37008, "tzsp")
        else:
            peer = {"host-a": "host-b", "host-b": "host-a"}[service]
            self.stack.send(service, tag, first, count, peer, PORT)
        for number in range(first, first + count):
            self.sent[tag, number] = 1 if service == "router" else 2

    def written(self):
        return contents([packet for run in self.stack.packets() for packet in run])

    def wait_for_all(self):
        count = sum(self.sent.values())

        def report():
            written = self.written()
            missing = [key for key, count in self.sent.items() if written.get(key, 0) < count]
            tags = {tag: sum(1 for known, _ in missing if known == tag) for tag, _ in missing}
            return f"{sum(written.values())} of {count} packets written; missing by tag: {tags}"

        until(lambda: sum(self.written().values()) >= count, report, TIMEOUT)
        equal(self.written(), self.sent, "packets written, by tag and number")

    def starts(self):
        """`up` starts the services, and the image's health check reports them as healthy."""
        self.stack.compose("up", "-d", "--no-build", "host-a", "host-b", "router", *SERVICES)
        for service in SERVICES:
            until(lambda: self.stack.healthy(service), f"{service} is not healthy", TIMEOUT)
        until(
            lambda: self.stack.metrics("collector").sum("packeteur_collector_connections") == len(CAPTURES),
            "not all captures are connected",
            TIMEOUT,
        )

    def relays_in_order(self):
        """Packets of both hosts and of the router become one stream."""
        for service, tag in (("host-a", "a"), ("host-b", "b"), ("router", "tzsp")):
            self.send(service, tag)
        self.wait_for_all()
        (packets,) = self.stack.packets()
        times = [packet.time for packet in packets]
        equal(times, sorted(times), "times")
        check(
            [packet.original for packet in packets] == [len(packet.data) for packet in packets],
            "packets were truncated",
        )

    def prints(self):
        """tcpdump, which reads the collector's output, prints a line for each packet."""
        count = sum(self.sent.values())
        printed = until(
            lambda: (
                len(found) >= count and found
                if (found := [line for line in self.stack.lines("collector") if "UDP, length" in line])
                else None
            ),
            "too few lines",
        )
        equal(len(printed), count, "lines of tcpdump")

    def measures(self):
        """The metrics of the services agree with what was sent."""
        hosts = sum(1 for tag, _ in self.sent if tag != "tzsp")
        router = len(self.sent) - hosts
        seen = {"capture-a": hosts, "capture-b": hosts, "capture-tzsp": router, "collector": 2 * hosts + router}
        for service, count in seen.items():
            metrics = self.stack.metrics(service)
            equal(metrics.sum("packeteur_capture_total"), count, f"packeteur_capture_total of {service}")
            equal(metrics.sum("packeteur_capture_total", address_family="IPv4"), count, f"IPv4 packets of {service}")
            if service != "collector":
                equal(metrics.sum("packeteur_relay_sent_packets_total"), count, f"packets sent by {service}")
                equal(metrics.sum("packeteur_relay_dropped_packets_total"), 0, f"packets dropped by {service}")
        collector = self.stack.metrics("collector")
        for name in ("seen", "captured", "sent", "received", "written"):
            total = f"packeteur_source_{name}_packets_total"
            for source in ("host-a", "host-b"):
                equal(collector.sum(total, source=source), hosts, f"{total} of {source}")
            equal(collector.sum(total), seen["collector"], total)
        for name in ("lost", "sent_before_connect", "duplicate", "late", "dropped", "discarded"):
            equal(collector.sum(f"packeteur_source_{name}_packets_total"), 0, f"packets {name}")
        flows = self.stack.metrics("capture-tzsp")
        labels = {"from": "192.0.2.1", "to": "192.0.2.2", "protocol": "udp", "listen_port": "37008"}
        equal(flows.sum("tzsp_observed_packets_total", **labels), router, "packets of the router's flow")

    def sends_in_the_clear(self):
        """What `keys.py` does not find."""
        with recorded(self.stack.pid("collector")) as stop:
            self.send("host-a", "clear")
            self.wait_for_all()
            check(HEAD.search(stop()), "no packet was recorded")

    def buffers_while_disconnected(self):
        """A capture that cannot reach the collector keeps its packets, and sends them later."""
        if os.geteuid() != 0:
            raise Skipped("changing a container's routes needs root")
        route = ["nsenter", "-t", self.stack.pid("host-a"), "-n", "ip", "route"]
        collector = self.stack.address("collector")
        run(*route, "add", "blackhole", collector)
        try:
            self.send("host-a", "a")
            self.send("host-b", "b")
            # Packets of the other host arrive meanwhile.
            expected = {key: 1 if key[1] > COUNT else count for key, count in self.sent.items()}
            until(
                lambda: sum(self.written().values()) >= sum(expected.values()), "host-b's packets don't arrive", TIMEOUT
            )
            equal(self.written(), expected, "packets written")
        finally:
            run(*route, "del", "blackhole", collector)
        self.wait_for_all()
        equal(self.stack.metrics("collector").sum("packeteur_source_lost_packets_total"), 0, "packets lost")

    def restarts_the_collector(self):
        """The collector is killed under traffic, and restarted by Docker. Only packets in transit are lost, and the
        counters of the captures and of the restarted collector agree."""
        before = dict(self.sent)
        kill = subprocess.Popen(["sleep", "0.5"])
        try:
            senders = self.in_parallel(["host-a", "host-b"])
            kill.wait()
            os.kill(self.stack.pid("collector"), signal.SIGKILL)
            senders()
        finally:
            kill.wait()
        until(lambda: len(self.stack.packets()) == 2, "the collector is not restarted", TIMEOUT)
        until(lambda: self.stack.healthy("collector"), "the collector is not healthy", TIMEOUT)
        until(
            lambda: self.stack.metrics("collector").sum("packeteur_source_up") >= 2,
            "the captures are not connected",
            TIMEOUT,
        )
        for service, tag in (("host-a", "a"), ("host-b", "b"), ("router", "tzsp")):
            self.send(service, tag)
        for service, source in (("capture-a", "host-a"), ("capture-b", "host-b")):
            self.agree(service, source)
        # All packets from before and after, and some of those sent meanwhile.
        written = self.written()
        for key, count in self.sent.items():
            complete = key in before or key[1] > 3 * COUNT or key[0] == "tzsp"
            got = written.get(key, 0)
            check(got == count if complete else got <= count, f"{key}: {got} of {count}")

    def in_parallel(self, services):
        """Sends from several services at once. Returns a function that waits until all have sent."""
        processes = []
        for service in services:
            tag = service[-1]
            first = 1 + max(number for known, number in self.sent if known == tag)
            peer = {"host-a": "host-b", "host-b": "host-a"}[service]
            command = ["docker", "exec", self.stack.container(service), "python3", "/inside/send.py"]
            processes.append(subprocess.Popen([*command, tag, str(first), str(COUNT), peer, str(PORT)]))
            self.sent |= {(tag, number): 2 for number in range(first, first + COUNT)}

        def wait():
            for process in processes:
                equal(process.wait(TIMEOUT), 0, "exit code of a sender")

        return wait

    def agree(self, service, source):
        """Waits until the collector accounts for all packets that a capture has sent."""

        def counters():
            capture, collector = self.stack.metrics(service), self.stack.metrics("collector")
            sent = capture.sum("packeteur_relay_sent_packets_total")
            names = [f"packeteur_source_{name}_packets_total" for name in ("received", "sent_before_connect", "lost")]
            known = [collector.sum(name, source=source) for name in names]
            return sent, known, capture.sum("packeteur_capture_total")

        def agreed():
            sent, known, seen = counters()
            return sent == sum(known) == seen

        what = "sent by the capture; received, sent before connect, lost at the collector; seen by the capture"
        until(agreed, lambda: f"{service}: {what}: {counters()}", TIMEOUT)

    def restarts_a_capture(self):
        """A capture that was killed is restarted by Docker, and its packets arrive."""
        restarts = self.stack.inspect("capture-b")["RestartCount"]
        os.kill(self.stack.pid("capture-b"), signal.SIGKILL)
        until(lambda: self.stack.inspect("capture-b")["RestartCount"] > restarts, "it is not restarted", TIMEOUT)
        until(lambda: self.stack.healthy("capture-b"), "it is not healthy", TIMEOUT)
        runs = len(self.stack.packets())
        self.send("host-b", "again")
        expected = {key: count for key, count in self.sent.items() if key[0] == "again"}

        def arrived():
            return {key: count for key, count in self.written().items() if key[0] == "again"} == expected

        until(arrived, "its packets don't arrive", TIMEOUT)
        equal(len(self.stack.packets()), runs, "runs of the collector")

    def stops(self):
        """All services exit with code 0 when they are stopped."""
        self.stack.compose("stop", "--timeout", "15")
        for service in SERVICES:
            names = self.stack.compose("ps", "-a", "-q", service).split() or [self.stack.container(service)]
            code = run("docker", "inspect", "--format", "{{.State.ExitCode}}", names[0]).strip()
            equal(code, "0", f"exit code of {service}")
