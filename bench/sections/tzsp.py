"""TZSP over UDP on loopback, beside tzsp2pcap."""

import os
import re
import socket
import struct
import subprocess
import time

from harness import packets, pcktr
from harness.process import Failed, Programs, until
from harness.table import Table, figure, in_turn

SENDER = os.environ.get("TZSP_SEND") or os.path.join(pcktr.RELEASE, "examples", "tzsp_send")


def run(bench):
    """Datagrams of small packets at several rates, received and relayed to a collector on this machine: how many were
    lost, and CPU of both ends. `UDP_SEGMENT`: the sender has the kernel cut trains of datagrams of one length."""
    if not os.access(SENDER, os.X_OK):
        build = "`cargo build --release --package source --example tzsp_send`"
        yield f"Left out: {SENDER} is missing; {build}, or set TZSP_SEND."
        return
    seconds = bench.sized(5, 0.5)
    made = Table("", "datagrams/s", "sender", "lost", "CPU-s/M")
    for rate, segment in ((200_000, False), (350_000, False), (1_000_000, True)):
        if bench.small:
            rate //= 10
        traffic = Traffic(bench, rate, int(rate * seconds), segment)
        contestants = [("pcktr", lambda: ours(bench, traffic))]
        if bench.has("tzsp2pcap", "tzsp2pcap"):
            contestants.append(("tzsp2pcap", lambda: theirs(bench, traffic)))
        for name, results in in_turn(bench.rounds, contestants).items():
            lost = figure([100 * lost / traffic.count for _, _, lost in results])
            cost = figure([cpu / traffic.count * 1e6 for _, cpu, _ in results], 3)
            came_to = figure([came_to for came_to, _, _ in results], 0)
            made.add(name, came_to, "UDP_SEGMENT" if segment else "plain", f"{lost} %", cost)
    yield made


class Traffic:
    """What is sent: a file, again and again."""

    # Packets of the file.
    ROUND = 10_000

    def __init__(self, bench, rate, count, segment):
        self.rate, self.segment = rate, segment
        self.repeat = max(count // self.ROUND, 1)
        self.count = self.repeat * self.ROUND
        # Trains are of datagrams of one length.
        make, *arguments = (write_even,) if segment else (packets.write_traffic, "small")
        self.path = bench.place.input(make, *arguments, self.ROUND)

    def send(self, programs, port):
        """Sends all of it, and says how many a second that were."""
        argv = [SENDER, self.path, f"127.0.0.1:{port}", "--rate", self.rate, "--repeat", self.repeat]
        sends = programs.start(*argv, *(["--segment"] if self.segment else []), stdout=subprocess.PIPE)
        sends.finish()
        said = re.search(r"sent (\d+) packets in ([0-9.]+) s", sends.process.stdout.read().decode())
        if said is None or int(said.group(1)) != self.count:
            raise Failed(f"{SENDER} does not say that it has sent {self.count} packets")
        return self.count / float(said.group(2))


def write_even(path, count):
    """A file of packets of one length."""
    packets.write_repeated(path, [packets.udp(number, 9, 96) for number in range(200)], count, 1000)


def ours(bench, traffic):
    """Datagrams a second, CPU seconds of both ends, datagrams lost."""
    with Programs() as programs:
        endpoint, port = pcktr.endpoint(), pcktr.free_port(socket.SOCK_DGRAM)
        collect = pcktr.collect(programs, bench.place, endpoint)
        capture = pcktr.capture(programs, bench.place, endpoint, tzsp_port=port)
        capture.wait_for_log("connected to the collector")
        until(lambda: receives(port), f"the capture receiving on port {port}")
        before = sum(program.cpu_so_far() for program in (capture, collect))
        came_to = traffic.send(programs, port)
        time.sleep(1)
        spent = sum(program.cpu_so_far() for program in (capture, collect)) - before
        capture.stop()
        collect.stop()
        written = collect.last_metrics().sum("packeteur_source_written_packets_total")
        return came_to, spent, traffic.count - written


def theirs(bench, traffic):
    """The same of tzsp2pcap, which writes to a file that is counted afterwards."""
    with Programs() as programs:
        port, path = pcktr.free_port(socket.SOCK_DGRAM), bench.place.name("pcap")
        receiver = programs.start("tzsp2pcap", "-p", port, "-o", path)
        until(lambda: receives(port), f"tzsp2pcap receiving on port {port}")
        before = receiver.cpu_so_far()
        came_to = traffic.send(programs, port)
        time.sleep(1)
        spent = receiver.cpu_so_far() - before
        receiver.stop()
        return came_to, spent, traffic.count - packets_in(path)


def packets_in(path):
    """How many packets a pcap file of this machine's byte order has."""
    with open(path, "rb") as file:
        data = file.read()
    at, count = 24, 0
    while at + 16 <= len(data):
        at += 16 + struct.unpack_from("<I", data, at + 8)[0]
        count += 1
    return count


def receives(port):
    """Whether somebody receives there, on IPv4 or IPv6."""
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        if any(int(row[1].rsplit(":", 1)[1], 16) == port for row in rows):
            return True
    return False
