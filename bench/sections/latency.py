"""How soon a packet is seen."""

import os
import random
import select
import socket
import struct
import subprocess
import time

from harness import packets, stage
from harness.process import Failed, Programs
from harness.table import Table, quantile

NEEDS_HOSTS = True

# What a probe says, before the time at which it was sent.
MARK = b"pcktr bench probe"
STAMP = struct.Struct("<Q")

# Seconds between two probes, on average.
PAUSE = 0.02


def run(bench):
    """Probes that carry the time of their sending, read on the collector's standard output, all at the defaults: how
    long from the one to the other."""
    count = bench.sized(1000, 50)
    load = bench.sized(200_000, 50_000)
    made = Table("traffic", "sources", "probes", "p50", "p99", "most")
    for traffic, rate, idle in (
        ("probes alone", 0, False),
        ("probes alone", 0, True),
        (f"{load} packets/s", load, False),
        (f"{load} packets/s", load, True),
    ):
        delays = measure(bench, count, rate, idle)
        figures = [f"{quantile(delays, share) * 1000:.0f} ms" for share in (0.5, 0.99, 1)]
        made.add(traffic, "2, one idle" if idle else "1", len(delays), *figures)
    yield made


def measure(bench, count, rate, idle):
    """The delays of so many probes."""
    with Programs() as programs:
        scene = stage.Stage(bench, programs)
        collect = scene.collect(stdout=subprocess.PIPE)
        scene.capture(source_name="busy")
        if idle:
            scene.capture(stage.IDLE, source_name="idle")
        sends = scene.send(rate, count * PAUSE + 4) if rate else None
        time.sleep(1)
        with scene.far.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("out0", 0))
            reader = Reader(collect.process.stdout.fileno())
            probe(raw, reader, count)
        while sends and sends.is_running():
            reader.read(0.1)
        if sends:
            stage.at_rate(stage.sent(sends)[1], rate)
        return reader.delays


def probe(raw, reader, count):
    """Sends probes, and reads what comes meanwhile."""
    rng = random.Random(0)
    sent, due = 0, time.monotonic()
    while sent < count:
        reader.read(max(due - time.monotonic(), 0))
        if time.monotonic() < due:
            continue
        raw.send(packets.udp(1, 9, 100, MARK + STAMP.pack(time.time_ns())))
        sent += 1
        due += rng.uniform(0, 2 * PAUSE)
    deadline = time.monotonic() + 3
    while len(reader.delays) < count and time.monotonic() < deadline:
        reader.read(0.1)
    if len(reader.delays) != count:
        raise Failed(f"{len(reader.delays)} probes came out, not {count}")


class Reader:
    """Finds probes in a stream, as soon as they can be read there."""

    def __init__(self, fd):
        self.fd, self.rest, self.delays = fd, b"", []

    def read(self, patience):
        """Reads once, if something comes in time."""
        if not select.select([self.fd], [], [], patience)[0]:
            return
        data = os.read(self.fd, 1 << 20)
        now = time.time_ns()
        if not data:
            raise Failed("the collector has ended")
        data = self.rest + data
        at = data.find(MARK)
        while 0 <= at <= len(data) - len(MARK) - STAMP.size:
            (sent,) = STAMP.unpack_from(data, at + len(MARK))
            self.delays.append((now - sent) / 1e9)
            data = data[at + len(MARK) + STAMP.size :]
            at = data.find(MARK)
        # A probe may be cut in two.
        self.rest = data[-(len(MARK) + STAMP.size - 1) :]
