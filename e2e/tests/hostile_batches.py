"""Valid batches that were made to do harm. Two honest sources keep their order and their ledger meanwhile, and the
collector its memory."""

import random
import re
import struct
import threading
import time
import zlib

from testkit import batch, frames, zmtp
from testkit.ledger import Account
from testkit.outcome import check, equal, until
from testkit.pcap import Packet

# The honest sources' packets come from here, and nobody else's.
HONEST = frames.address("192.0.2.77")

# Twice the 128 MiB of the merge, less than what any attack took when it was not bounded.
MEMORY = 256 << 20

YEAR_2106 = ((1 << 32) - 1) * 1_000_000_000


class Honest(threading.Thread):
    """A source that sends three packets every 20 ms, a few milliseconds after they were captured."""

    def __init__(self, name, connection, epoch=None):
        super().__init__(daemon=True)
        self.source, self.push = name, zmtp.Push(connection)
        self.epoch = epoch or time.time_ns()
        self.sequence = self.sent = 0
        self.ends, self.failure = threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.ends.wait(0.02):
                self.send((15_000_000, 10_000_000, 5_000_000))
            self.send((), flags=1)
        except OSError as error:
            self.failure = error

    def send(self, ages, flags=0):
        now = time.time_ns()
        packets = []
        for back in ages:
            payload = struct.pack("!Q", self.sent + len(packets)) + self.source.encode()
            data = frames.ethernet(frames.udp4(payload, source=HONEST))
            packets.append(Packet(now - back, len(data), data))
        header = {"epoch": self.epoch, "sequence": self.sequence, "sent_before": self.sent, "flags": flags}
        self.push.send(batch.encode(packets, self.source, "eth0", **header))
        self.sequence += 1
        self.sent += len(packets)

    def stop(self):
        self.ends.set()
        self.join()
        check(self.failure is None, f"{self.source}: {self.failure}")


class Scene:
    """A collector, two honest sources, and whoever else connects."""

    def __init__(self, testbed, name="collect", **settings):
        self.testbed = testbed
        endpoint = testbed.endpoint()
        self.port = int(endpoint.rpartition(":")[2])
        self.collect = testbed.collect(name, collect_endpoint=endpoint, **settings)
        self.honest = [Honest(name, self.connect("127.0.0.1")) for name in ("honest-1", "honest-2")]
        for honest in self.honest:
            self.collect.wait_for_metric("packeteur_source_written_packets_total", 50, source=honest.source)
        # The first packets of the source that came second were late.
        self.began = time.time_ns()
        self.late_before = [self.late(self.collect.metrics(), honest) for honest in self.honest]

    @staticmethod
    def late(metrics, honest):
        return metrics.sum("packeteur_source_late_packets_total", source=honest.source)

    def connect(self, address="127.0.0.2"):
        """A connection from that address."""
        connection = self.testbed.home.open_socket()
        connection.settimeout(30)
        connection.bind((address, 0))
        connection.connect(("127.0.0.1", self.port))
        return connection

    def attacker(self, address="127.0.0.2"):
        return zmtp.Push(self.connect(address))

    def rejected(self, reason):
        return self.collect.metrics().sum("packeteur_rejected_batches_total", reason=reason)

    def go_on(self, seconds=1.0):
        """Lets the honest sources send for a while."""
        time.sleep(seconds)

    def end(self, memory=MEMORY):
        """Ends the honest sources, and checks their packets, their ledger and the memory."""
        peak = self.collect.memory_peak()
        for honest in self.honest:
            honest.stop()
            written = {"source": honest.source}
            self.collect.wait_for_metric("packeteur_source_written_packets_total", honest.sent, **written)
        self.collect.stop()
        metrics = self.collect.last_metrics()
        for honest, late in zip(self.honest, self.late_before):
            account = Account(metrics, source=honest.source)
            account.check_sums(ended=False)
            equal((account.sent, account.written), (honest.sent, honest.sent), f"packets of {honest.source}")
            equal((account.lost, account.late - late), (0, 0), f"packets of {honest.source} lost and late")
        ours = [packet for packet in self.testbed.packets(self.collect) if packet.data[26:30] == HONEST]
        equal(len(ours), sum(honest.sent for honest in self.honest), "packets of the honest sources")
        ours = [packet for packet in ours if packet.time >= self.began]
        disorder = sum(1 for a, b in zip(ours, ours[1:]) if b.time < a.time)
        equal(disorder, 0, f"packets of the honest sources out of order, of {len(ours)}")
        check(peak < memory, f"{peak >> 20} MiB of memory")
        return metrics


def packets_at(moment, count=1, size=0):
    return [Packet(moment + number, size, bytes(size)) for number in range(count)]


def test_clocks_in_the_future(testbed):
    """Six sources with watermarks in the year 2106, then six that are an hour ahead, while and after they send."""
    scene = Scene(testbed)
    attackers = [scene.attacker() for _ in range(12)]
    for number, attacker in enumerate(attackers[:6]):
        attacker.send(batch.encode(packets_at(YEAR_2106), f"late-{number}", watermark=YEAR_2106))
    scene.go_on()
    for sequence in range(20):
        for number, attacker in enumerate(attackers[6:]):
            hour_ahead = time.time_ns() + 3600 * 1_000_000_000
            moment = packets_at(hour_ahead)
            attacker.send(batch.encode(moment, f"ahead-{number}", sequence=sequence, sent_before=sequence))
        time.sleep(0.05)
    scene.go_on()
    metrics = scene.end()
    equal(metrics.sum("packeteur_source_ahead_packets_total"), 6 + 6 * 20, "packets ahead")


def test_hosts_an_hour_ahead_are_merged_among_themselves(testbed):
    """The same, as seen from them: they keep their own order."""
    scene = Scene(testbed)
    hosts = [scene.attacker() for _ in range(4)]
    hour = 3600 * 1_000_000_000
    for sequence in range(30):
        for number, host in enumerate(hosts):
            now = time.time_ns() + hour
            captured = [Packet(now - back, 1, b"x") for back in (9_000_000, 3_000_000)]
            host.send(batch.encode(captured, f"ahead-{number}", sequence=sequence, sent_before=sequence * 2))
        time.sleep(0.02)
    scene.go_on()
    scene.end()
    theirs = [packet.time for packet in testbed.packets(scene.collect) if packet.data == b"x"]
    equal((len(theirs), theirs), (4 * 30 * 2, sorted(theirs)), "packets of hosts that are ahead")


def test_many_interface_names(testbed):
    """Sources with 512 interface names in each header, all of them different."""
    scene = Scene(testbed, observe="all")
    attacker = scene.attacker()
    for number in range(800):
        fields = batch.fields(f"names-{number % 8}", "any")
        for index in range(512):
            name = f"{number:08}-{index:08}-".encode() + b"x" * 40
            fields += struct.pack("<HHI", 6, 4 + len(name), number * 512 + index) + name
        header = {"sequence": number // 8, "link_type": frames.LINUX_SLL2}
        attacker.send(batch.encode(fields=fields, watermark=time.time_ns(), **header))
    scene.collect.wait_for_metric("packeteur_source_received_batches_total", 100, source="names-7")
    scene.go_on()
    scene.end(memory=128 << 20)


def compressed_zeroes(length):
    """An LZ4 block of two sequences (lz4_Block_format.md): 16 literals and one long match, then 5 literals."""
    rest = length - 16 - 5 - 4 - 15
    return (
        b"\xff\x01" + bytes(16) + struct.pack("<H", 1) + b"\xff" * (rest // 255) + bytes([rest % 255, 0x50]) + bytes(5)
    )


def test_decompression(testbed):
    """Small messages that claim to be megabytes of records without bytes."""
    scene = Scene(testbed)
    attacker = scene.attacker()
    length = 8 << 20
    block = compressed_zeroes(length)
    before = scene.collect.metrics().sum("packeteur_source_written_packets_total")
    for sequence in range(20):
        header = {"payload_length": length, "packet_count": length // 16, "compression": 1}
        attacker.send(batch.encode(payload=block, source="bomb", sequence=sequence, **header))
    until(lambda: scene.rejected("decompression") == 20, lambda: f"{scene.rejected('decompression')} rejected")
    written = scene.collect.metrics().sum("packeteur_source_written_packets_total") - before
    check(written < 100_000, f"{written} packets written")
    scene.go_on()
    scene.end(memory=64 << 20)


def test_more_sources_than_max_sources(testbed):
    """An address may have half of MAX_SOURCES; a second one takes the rest. Those that are alive stay; those that have
    ended make room for others. What is refused is logged once."""
    scene = Scene(testbed, max_sources="200", output_format="pcapng")
    first, second, third = (scene.attacker(f"127.0.0.{number}") for number in (2, 3, 4))
    for number in range(5000):
        first.send(batch.encode(packets_at(time.time_ns()), f"first-{number}"))
    until(lambda: scene.rejected("max_sources_per_address") == 4900, "the first address is not limited")
    for number in range(5000):
        second.send(batch.encode(source=f"second-{number}", watermark=time.time_ns()))
    until(lambda: scene.rejected("max_sources") + scene.rejected("max_sources_per_address") == 9802, "no limit")
    lines = scene.collect.log_lines("batch rejected")
    check(2 <= len(lines) <= 4, f"{len(lines)} lines in the log")
    check(len(scene.collect.log_lines("new source")) <= 102, "a line for every source")
    # Sources that have ended make room.
    for number in range(50):
        end = batch.encode(source=f"first-{number}", sequence=1, sent_before=1, flags=1)
        first.send(end)
    # Nothing orders the messages of different connections.
    scene.collect.wait_for_metric("packeteur_source_received_batches_total", 2, source="first-49")
    # As a capture's heartbeats do: a full table is searched once a second.
    message = batch.encode(packets_at(time.time_ns()), "welcome")

    def written():
        third.send(message)
        return scene.collect.metrics().sum("packeteur_source_written_packets_total", source="welcome") == 1

    until(written, "an ended source does not make room")
    sources = {labels["source"] for name, labels, _ in scene.collect.metrics().samples if name == UP}
    check({"honest-1", "honest-2", "welcome", "first-99"} <= sources and len(sources) <= 200, sources)
    scene.go_on()
    scene.end(memory=64 << 20)


UP = "packeteur_source_up"


def test_memory_of_the_merge(testbed):
    """Packets that have to wait: in large batches, in tiny ones, and behind large headers. Memory counts all of it, and
    the honest sources keep their place."""
    for name, count, size, padding in (
        ("large", 60, 4 << 20, 0),
        ("tiny", 300_000, 0, 0),
        ("headers", 4000, 0, 60_000),
    ):
        scene = Scene(testbed, name, merge_window="2s", output=testbed.path(f"{name}.pcap"))
        attacker, blocker = scene.attacker(), scene.attacker("127.0.0.3")
        fields = batch.fields("flood", "none") + struct.pack("<HH", 99, padding) + bytes(padding)
        stop = threading.Event()

        def hold(blocker=blocker, stop=stop):
            # A source that is alive and slow: the merge waits for it.
            sequence = 0
            while not stop.wait(0.1):
                watermark = time.time_ns() - 1_500_000_000
                blocker.send(batch.encode(source="slow", sequence=sequence, watermark=watermark))
                sequence += 1

        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        before, sent = scene.collect.memory(), 0
        for sequence in range(count):
            moment = time.time_ns()
            packets = packets_at(moment, max(size // 200_000, 1), min(size, 200_000))
            header = {"sequence": sequence, "sent_before": sent}
            attacker.send(batch.encode(packets, fields=fields, **header))
            sent += len(packets)
        scene.collect.wait_for_metric("packeteur_source_received_batches_total", count, seconds=60, source="flood")
        buffered = scene.collect.metrics().sum("packeteur_merge_buffered_bytes")
        check(buffered <= 136 << 20, f"{name}: {buffered >> 20} MiB in the merge")
        grown = scene.collect.memory_peak() - before
        check(grown <= 192 << 20, f"{name}: memory grew by {grown >> 20} MiB")
        stop.set()
        holder.join()
        scene.collect.stop()
        metrics = scene.collect.last_metrics()
        for honest, late in zip(scene.honest, scene.late_before):
            honest.ends.set()
            equal(scene.late(metrics, honest), late, f"{name}: packets of {honest.source} late")


def test_impersonation(testbed):
    """Somebody sends under the name of an honest source: as another run, with any counters; as the same run, with a
    jump. What the honest source sends after that is counted right."""
    scene = Scene(testbed)
    victim, attacker = scene.honest[0], scene.attacker()
    huge = (1 << 64) - 1
    claims = {"captured": huge, "dropped_kernel": huge, "dropped_relay": huge, "watermark": huge}
    for epoch in (huge, victim.epoch + 1, 1):
        for sequence in (0, huge - 1):
            header = {"epoch": epoch, "sequence": sequence, "sent_before": sequence, "flags": 1, **claims}
            attacker.send(batch.encode(source="honest-1", device="eth0", **header))
    attacker.send(batch.encode(source="honest-1", device="eth0", epoch=victim.epoch, sequence=huge - 1, **claims))
    until(lambda: scene.rejected("implausible") >= 1, "nothing was implausible")
    scene.go_on(3)
    samples = scene.collect.metrics().samples
    largest = max((value, name) for name, labels, value in samples if labels.get("source") == "honest-1")
    check(largest[0] < 1e12 or "clock_offset" in largest[1], f"a counter is useless: {largest}")
    equal(scene.collect.metrics().one(UP, source="honest-1"), 1, "up")
    before = scene.collect.metrics().sum("packeteur_source_sent_packets_total", source="honest-1"), victim.sent
    scene.go_on()
    victim.stop()
    sent = before[0] + victim.sent - before[1]
    check_within(scene, "sent", sent, 9)
    until(lambda: scene.collect.metrics().one(UP, source="honest-1") == 0, "it has ended")
    check(len(scene.collect.log_lines("two captures share this SOURCE_NAME")) == 1, "no warning, or several")
    other = scene.honest.pop()
    other.stop()
    scene.collect.stop()
    metrics = scene.collect.last_metrics()
    equal(metrics.sum("packeteur_source_written_packets_total", source="honest-2"), other.sent, "packets written")
    check(metrics.sum("packeteur_source_overlapping_runs_total", source="honest-1") >= 1, "not counted")


def check_within(scene, what, expected, tolerance):
    """Checks a counter of the first honest source that was read while it grew."""
    counted = scene.collect.metrics().sum(f"packeteur_source_{what}_packets_total", source="honest-1")
    check(abs(counted - expected) <= tolerance, f"{what}: {counted}, expected {expected}")


def test_names(testbed):
    """Names with line feeds, escape sequences and overrides reach neither log nor metrics. Thousands of restarts
    do not fill the log."""
    scene = Scene(testbed)
    attacker = scene.attacker()
    names = ["a\nWARN forged", "a\r", "\x1b[2Jgone", "\u202egnp.exe", "x" * 256, "\x9b31m"]
    for name in names:
        attacker.send(batch.encode(source=name))
        attacker.send(batch.encode(source="fine", device=name))
    until(lambda: scene.rejected("name") == 2 * len(names), "not rejected")
    for number in range(3000):
        attacker.send(batch.encode(source="restarts", epoch=1_700_000_000_000_000_000 + number))
    until(lambda: scene.rejected("runs") >= 2900, "restarts are not limited")
    log = scene.collect.log()
    check(not re.search("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202e]", log), "control characters in the log")
    check("forged" not in log, "a forged line in the log")
    equal(len(scene.collect.log_lines("batch rejected.*name")), 1, "lines about names")
    check(len(scene.collect.log_lines("restarted")) <= 50, "a line for every restart")
    scene.go_on()
    scene.end(memory=64 << 20)
    bad = testbed.pcktr("bad-name", mode="capture", source_name="a\x1b[2J", relay_endpoint=testbed.endpoint())
    bad.wait(code=64)
    check("SOURCE_NAME" in bad.log() and "U+001B" in bad.log(), bad.log())


def test_a_clock_that_was_set_back(testbed):
    """A capture is killed and restarted after its host's clock was set back: it is up, and EXIT_ON_END waits for it."""
    scene = Scene(testbed, exit_on_end="true")
    name, now = "no-rtc", time.time_ns()
    first = Honest(name, scene.connect(), epoch=now)
    scene.go_on(0.5)
    # Killed: it does not say that it ends.
    first.ends.set()
    first.push.close()
    first.join()
    for honest in scene.honest:
        honest.stop()
    second = Honest(name, scene.connect(), epoch=now - 80_000_000_000)
    scene.go_on(3)
    equal(scene.collect.metrics().one(UP, source=name), 1, "up")
    check(scene.collect.is_running(), "the collector did not wait for it")
    second.stop()
    scene.collect.wait()
    metrics = scene.collect.last_metrics()
    equal(metrics.sum("packeteur_source_runs_total", source=name), 2, "runs")
    check(metrics.sum("packeteur_source_written_packets_total", source=name) >= second.sent, "packets are missing")


def test_anything(testbed):
    """Random headers, names and packets from many connections."""
    scene = Scene(testbed, max_sources="100", output_format="pcapng", observe="all")
    numbers = random.Random(zlib.crc32(b"hostile"))
    attackers = [scene.attacker(f"127.0.0.{number}") for number in range(2, 6)]
    extreme = [0, 1, 1 << 32, 1 << 63, (1 << 64) - 1, time.time_ns(), YEAR_2106]
    for _ in range(20_000):
        around = time.time_ns() + numbers.choice([0, 10**9, 10**12, -(10**9), -(10**15)])
        packets = packets_at(
            numbers.choice([around, around, YEAR_2106, 0]), numbers.randrange(4), numbers.choice([0, 60])
        )
        counters = ("epoch", "sequence", "sent_before", "captured", "dropped_kernel", "sent_at", "watermark")
        header = {name: numbers.choice([*extreme, around, numbers.randrange(100)]) for name in counters}
        header["flags"] = numbers.choice([0, 0, 1])
        header["link_type"] = numbers.choice([0, 1, 1, 113, 276, numbers.randrange(1 << 16)])
        source = f"s-{numbers.randrange(60)}"
        numbers.choice(attackers).send(batch.encode(packets, source, **header))
    scene.go_on()
    scene.end()
