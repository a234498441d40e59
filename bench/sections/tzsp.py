"""TZSP over UDP on loopback, compared with tzsp2pcap."""

import os
import re
import socket
import subprocess
import time

from bench import input_files, ports
from bench.measurement import TIMEOUT, Measurement
from bench.table import Table, figure, in_turn
from testkit import pcap
from testkit.build import RELEASE
from testkit.outcome import Failed, Skipped, until

SENDER = os.environ.get("TZSP_SEND") or str(RELEASE / "examples" / "tzsp_send")


def run(bench):
    """Datagrams with small packets at several rates, received and relayed to a collector on this machine: losses, and
    CPU of both ends. `UDP_SEGMENT`: the kernel splits the sender's writes into datagrams of equal length."""
    if not os.access(SENDER, os.X_OK):
        build = "`cargo build --release --package source --example tzsp_send`"
        raise Skipped(f"{SENDER} is missing: run {build}, or set TZSP_SEND")
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
            reached = figure([reached for reached, _, _ in results], 0)
            made.add(name, reached, "UDP_SEGMENT" if segment else "plain", f"{lost} %", cost)
    yield made


class Traffic:
    """A file that is sent again and again."""

    # Packets in the file.
    LENGTH = 10_000

    def __init__(self, bench, rate, count, segment):
        self.rate, self.segment = rate, segment
        self.repeat = max(count // self.LENGTH, 1)
        self.count = self.repeat * self.LENGTH
        # Segmentation needs datagrams of equal length.
        write, *arguments = (write_equal,) if segment else (input_files.write_traffic, "small")
        self.path = bench.work.input(write, *arguments, self.LENGTH)

    def send(self, measurement, port):
        """Sends everything, and returns the rate."""
        argv = [SENDER, self.path, f"127.0.0.1:{port}", "--rate", self.rate, "--repeat", self.repeat]
        sender = measurement.start("sender", *argv, *(["--segment"] if self.segment else []), stdout=subprocess.PIPE)
        sender.wait(seconds=TIMEOUT)
        found = re.search(r"sent (\d+) packets in ([0-9.]+) s", sender.stdout.read().decode())
        if found is None or int(found.group(1)) != self.count:
            raise Failed(f"{SENDER} does not report that it sent {self.count} packets")
        return self.count / float(found.group(2))


def write_equal(path, count):
    """A file with packets of equal length."""
    input_files.write_repeated(path, [input_files.udp(number, 9, 96) for number in range(200)], count, 1000)


def ours(bench, traffic):
    """Datagrams per second, CPU seconds of both ends, datagrams lost."""
    with Measurement(bench.work) as measurement:
        endpoint, port = measurement.endpoint(), measurement.home.free_port(socket.SOCK_DGRAM)
        collector = measurement.collect(collect_endpoint=endpoint)
        capture = measurement.capture(relay_endpoint=endpoint, tzsp_port=port).connected()
        until(lambda: ports.is_receiving(port), f"the capture does not receive on port {port}")
        before = sum(program.cpu_so_far() for program in (capture, collector))
        reached = traffic.send(measurement, port)
        time.sleep(1)
        spent = sum(program.cpu_so_far() for program in (capture, collector)) - before
        capture.stop()
        collector.stop()
        written = collector.last_metrics().sum("packeteur_source_written_packets_total")
        return reached, spent, traffic.count - written


def theirs(bench, traffic):
    """The same for tzsp2pcap, which writes to a file. Its packets are counted afterwards."""
    with Measurement(bench.work) as measurement:
        port, path = measurement.home.free_port(socket.SOCK_DGRAM), measurement.path("received.pcap")
        receiver = measurement.start("tzsp2pcap", "tzsp2pcap", "-p", port, "-o", path)
        until(lambda: ports.is_receiving(port), f"tzsp2pcap does not receive on port {port}")
        before = receiver.cpu_so_far()
        reached = traffic.send(measurement, port)
        time.sleep(1)
        spent = receiver.cpu_so_far() - before
        receiver.stop(code=None)
        with open(path, "rb") as file:
            received = sum(1 for _ in pcap.read_packets(file.read()))
        return reached, spent, traffic.count - received
