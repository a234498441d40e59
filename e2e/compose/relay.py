"""What the services do with packets: bring them to the collector, whatever happens to one of them on the way."""

import os
import signal
import subprocess

from e2e.compose.engine import run
from e2e.compose.inside.send import PORT
from e2e.compose.stack import contents
from testkit.outcome import Skipped, check, equal, until

CAPTURES = ["capture-a", "capture-b", "capture-tzsp"]
SERVICES = [*CAPTURES, "collector"]

# Packets that a sender sends in one go: a second's worth.
COUNT = 1000
# How long what was lost for a while may take to come about again: TCP's retransmissions double their distance.
LONG = 60


class Relay:
    """The tests, in the order in which they must run: each goes on with what the one before has left."""

    def __init__(self, stack):
        self.stack = stack
        # How often each packet must be in the output: those between the hosts are seen by both.
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

    def written(self, lives=slice(None)):
        return contents([packet for life in self.stack.packets()[lives] for packet in life])

    def wait_for_all(self, lives=slice(None), expected=None):
        expected = self.sent if expected is None else expected
        count = sum(expected.values())

        def told():
            written = self.written(lives)
            missing = {
                key: count - written.get(key, 0) for key, count in expected.items() if written.get(key, 0) < count
            }
            tags = {tag: sum(1 for known, _ in missing if known == tag) for tag, _ in missing}
            return f"{sum(written.values())} of {count} packets written; packets of which some are missing: {tags}"

        until(lambda: sum(self.written(lives).values()) >= count, told, LONG)
        equal(self.written(lives), expected, "packets written, by tag and number")

    def starts(self):
        """`up` starts them, and the image's health check says that they are well."""
        self.stack.compose("up", "-d", "--no-build", "host-a", "host-b", "router", *SERVICES)
        for service in SERVICES:
            until(lambda: self.stack.healthy(service), f"{service} is not healthy", LONG)
        captures = until(
            lambda: self.stack.metrics("collector").sum("packeteur_collect_connections") == len(CAPTURES),
            "not all captures are connected",
            LONG,
        )
        check(captures, "connected")

    def is_complete_and_in_order(self):
        """Packets of both hosts and of the router leave as one stream."""
        for service, tag in (("host-a", "a"), ("host-b", "b"), ("router", "tzsp")):
            self.send(service, tag)
        self.wait_for_all()
        (packets,) = self.stack.packets()
        times = [packet.time for packet in packets]
        equal(times, sorted(times), "times")
        check(
            [packet.original for packet in packets] == [len(packet.data) for packet in packets],
            "lengths: nothing was cut off",
        )

    def prints(self):
        """tcpdump behind the collector prints a line for each of them."""
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
        """The metrics of the services say what was sent."""
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
        for name in ("lost", "unheard", "duplicate", "late", "dropped", "skipped"):
            equal(collector.sum(f"packeteur_source_{name}_packets_total"), 0, f"packets {name}")
        flows = self.stack.metrics("capture-tzsp")
        labels = {"from": "192.0.2.1", "to": "192.0.2.2", "protocol": "udp", "listen_port": "37008"}
        equal(flows.sum("tzsp_observed_packets_total", **labels), router, "packets of the router's flow")

    def is_cut_off_and_comes_back(self):
        """A capture without a way to the collector keeps what it captures, and sends it when there is one again."""
        if os.geteuid() != 0:
            raise Skipped("only root can change a container's routes")
        route = ["nsenter", "-t", self.stack.pid("host-a"), "-n", "ip", "route"]
        collector = self.stack.address("collector")
        run(*route, "add", "blackhole", collector)
        try:
            self.send("host-a", "a")
            self.send("host-b", "b")
            # What the other host has seen arrives meanwhile: one host's trouble is not the other's.
            whole = {key: 1 if key[1] > COUNT else count for key, count in self.sent.items()}
            until(lambda: sum(self.written().values()) >= sum(whole.values()), "host-b's packets don't arrive", LONG)
            equal(self.written(), whole, "packets written")
        finally:
            run(*route, "del", "blackhole", collector)
        self.wait_for_all()
        equal(self.stack.metrics("collector").sum("packeteur_source_lost_packets_total"), 0, "packets lost")

    def survives_its_collector(self):
        """The collector is killed under traffic, and started again by itself. What was lost with it is not more than what
        was on its way, and counted: the books of the captures and of the collector's second life agree."""
        before = dict(self.sent)
        kill = subprocess.Popen(["sleep", "0.5"])
        try:
            senders = self.in_parallel(["host-a", "host-b"])
            kill.wait()
            os.kill(self.stack.pid("collector"), signal.SIGKILL)
            senders()
        finally:
            kill.wait()
        until(lambda: len(self.stack.packets()) == 2, "the collector does not come back", LONG)
        until(lambda: self.stack.healthy("collector"), "the collector is not healthy", LONG)
        until(
            lambda: self.stack.metrics("collector").sum("packeteur_source_up") >= 2,
            "no capture speaks to the collector",
            LONG,
        )
        for service, tag in (("host-a", "a"), ("host-b", "b"), ("router", "tzsp")):
            self.send(service, tag)
        for service, source in (("capture-a", "host-a"), ("capture-b", "host-b")):
            self.agree(service, source)
        # All from before and all from after; of what was on its way a part.
        written = self.written()
        for key, count in self.sent.items():
            surely = key in before or key[1] > 3 * COUNT or key[0] == "tzsp"
            got = written.get(key, 0)
            check(got == count if surely else got <= count, f"{key}: {got} of {count}")

    def in_parallel(self, services):
        """Has them all send; the answer waits until they have."""
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
                equal(process.wait(LONG), 0, "exit code of a sender")

        return wait

    def agree(self, service, source):
        """What a capture says that it sent is what the collector received, or knows that it did not."""

        def books():
            capture, collector = self.stack.metrics(service), self.stack.metrics("collector")
            sent = capture.sum("packeteur_relay_sent_packets_total")
            names = [f"packeteur_source_{name}_packets_total" for name in ("received", "unheard", "lost")]
            known = [collector.sum(name, source=source) for name in names]
            return sent, known, capture.sum("packeteur_capture_total")

        def agreed():
            sent, known, seen = books()
            return sent == sum(known) == seen

        until(agreed, lambda: f"{service} sent, collector received, unheard, lost, capture saw: {books()}", LONG)

    def restarts_a_capture(self):
        """A capture that was killed is started again by itself, and its packets arrive."""
        lives = self.stack.inspect("capture-b")["RestartCount"]
        os.kill(self.stack.pid("capture-b"), signal.SIGKILL)
        until(lambda: self.stack.inspect("capture-b")["RestartCount"] > lives, "it is not started again", LONG)
        until(lambda: self.stack.healthy("capture-b"), "it is not healthy", LONG)
        lives = self.stack.packets()
        self.send("host-b", "again")
        expected = {key: count for key, count in self.sent.items() if key[0] == "again"}

        def arrived():
            return {key: count for key, count in self.written().items() if key[0] == "again"} == expected

        until(arrived, "its packets don't arrive", LONG)
        equal(len(self.stack.packets()), len(lives), "lives of the collector")

    def stops(self):
        """A stop is heard by all of them, and ends them well."""
        self.stack.compose("stop", "--timeout", "15")
        for service in SERVICES:
            names = self.stack.compose("ps", "-a", "-q", service).split() or [self.stack.container(service)]
            code = run("docker", "inspect", "--format", "{{.State.ExitCode}}", names[0]).strip()
            equal(code, "0", f"exit code of {service}")
