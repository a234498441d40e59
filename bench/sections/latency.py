"""The time from capture until a packet can be read from the collector's output."""

import os
import random
import select
import socket
import struct
import subprocess
import time

from bench import input_files, live_hosts
from bench.live_hosts import LiveHosts
from bench.table import Table, quantile
from testkit.outcome import Failed

NEEDS_HOSTS = True

# The beginning of a probe's payload. The time of sending follows.
MARK = b"pcktr bench probe"
STAMP = struct.Struct("<Q")

# Seconds between two probes, on average.
PAUSE = 0.02


def run(bench):
    """Packets that carry the time of their sending: how long until they can be read from the collector's standard
    output, at the defaults."""
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
    """The delays of `count` probes."""
    with LiveHosts(bench.work) as hosts:
        collector = hosts.start_collector(stdout=subprocess.PIPE)
        hosts.start_capture(name="busy")
        if idle:
            hosts.start_capture(live_hosts.IDLE, name="idle")
        sender = hosts.send(rate, count * PAUSE + 4) if rate else None
        time.sleep(1)
        with hosts.sender.open_socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((live_hosts.BUSY_PEER, 0))
            reader = Reader(collector.stdout.fileno())
            probe(raw, reader, count)
        while sender and sender.is_running():
            reader.read(0.1)
        if sender:
            live_hosts.check_rate(live_hosts.sent(sender)[1], rate)
        return reader.delays


def probe(raw, reader, count):
    """Sends probes, and reads the output meanwhile."""
    rng = random.Random(0)
    sent, due = 0, time.monotonic()
    while sent < count:
        reader.read(max(due - time.monotonic(), 0))
        if time.monotonic() < due:
            continue
        raw.send(input_files.udp(1, 9, 100, MARK + STAMP.pack(time.time_ns())))
        sent += 1
        due += rng.uniform(0, 2 * PAUSE)
    deadline = time.monotonic() + 3
    while len(reader.delays) < count and time.monotonic() < deadline:
        reader.read(0.1)
    if len(reader.delays) != count:
        raise Failed(f"{len(reader.delays)} probes arrived, not {count}")


class Reader:
    """Finds probes in a stream as soon as they can be read."""

    def __init__(self, fd):
        self.fd, self.rest, self.delays = fd, b"", []

    def read(self, timeout):
        """Reads once, if there is something to read within `timeout` seconds."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return
        data = os.read(self.fd, 1 << 20)
        now = time.time_ns()
        if not data:
            raise Failed("the collector has exited")
        data = self.rest + data
        at = data.find(MARK)
        while 0 <= at <= len(data) - len(MARK) - STAMP.size:
            (sent,) = STAMP.unpack_from(data, at + len(MARK))
            self.delays.append((now - sent) / 1e9)
            data = data[at + len(MARK) + STAMP.size :]
            at = data.find(MARK)
        # A probe may continue in the next read.
        self.rest = data[-(len(MARK) + STAMP.size - 1) :]
