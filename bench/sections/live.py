"""Live capture at half a million packets per second, compared with tcpdump."""

import re
import time

from bench import live_hosts
from bench.live_hosts import LiveHosts
from bench.table import Table, figure, in_turn, ratio
from testkit.outcome import Failed

NEEDS_HOSTS = True


def run(bench):
    """Half a million small packets per second on a veth pair: capture and collector to /dev/null on one machine, and
    `tcpdump -w /dev/null` on the same device with a buffer of the same size."""
    rate, seconds = bench.sized(500_000, 100_000), bench.sized(8, 1)
    contestants = [("pcktr", lambda: ours(bench, rate, seconds))]
    if bench.has("tcpdump", "tcpdump"):
        contestants.append(("tcpdump", lambda: theirs(bench, rate, seconds)))
    results = in_turn(bench.rounds, contestants)
    made = Table("", "packets/s", "lost", "CPU-s/M, capture", "CPU-s/M, both ends", "capture, times tcpdump", "both")

    def cost(name, which):
        return [result[which] / result[1] * 1e6 for result in results[name]]

    for name, each in results.items():
        rates = figure([result[0] for result in each], 0)
        lost = sum(result[4] for result in each)
        both = figure(cost(name, 3), 3) if name == "pcktr" else ""
        beside = ["", ""]
        if name == "pcktr" and "tcpdump" in results:
            beside = [ratio(cost("pcktr", which), cost("tcpdump", 2)) for which in (2, 3)]
        made.add(name, rates, lost, figure(cost(name, 2), 3), both, *beside)
    yield made


def ours(bench, rate, seconds):
    """Packets per second, packets, CPU seconds of the capture, of both ends, packets lost."""
    with LiveHosts(bench.work) as hosts:
        collector = hosts.start_collector()
        capture = hosts.start_capture()
        # Startup is not measured.
        before = [program.cpu_so_far() for program in (capture, collector)]
        count, reached = live_hosts.sent(hosts.send(rate, seconds))
        live_hosts.check_rate(reached, rate)
        # Packets in transit arrive.
        time.sleep(1)
        spent = [program.cpu_so_far() - was for program, was in zip((capture, collector), before)]
        capture.stop()
        collector.stop()
        written = collector.last_metrics().sum("packeteur_source_written_packets_total")
        return reached, count, spent[0], sum(spent), count - written


def theirs(bench, rate, seconds):
    """The same for tcpdump."""
    with LiveHosts(bench.work) as hosts:
        argv = ["-i", live_hosts.BUSY, "--nano", "-n", "-B", live_hosts.BUFFER_KIB, "-Z", "root", "-w", "/dev/null"]
        dump = hosts.start("tcpdump", "tcpdump", *argv, host=hosts.capturer)
        dump.wait_for_log("listening on")
        before = dump.cpu_so_far()
        count, reached = live_hosts.sent(hosts.send(rate, seconds))
        live_hosts.check_rate(reached, rate)
        time.sleep(1)
        spent = dump.cpu_so_far() - before
        dump.stop()
        captured = re.search(r"^(\d+) packets captured", dump.log(), re.MULTILINE)
        if captured is None:
            raise Failed(f"tcpdump does not print what it captured: {dump.log()}")
        return reached, count, spent, spent, count - int(captured.group(1))
