"""Live capture at half a million packets a second, beside tcpdump."""

import re
import time

from harness import stage
from harness.process import Failed, Programs
from harness.table import Table, figure, in_turn, ratio

NEEDS_HOSTS = True


def run(bench):
    """Small packets, half a million a second, on a veth pair: capture and collector to /dev/null on one machine, and
    `tcpdump -w /dev/null` with a buffer of the same size on the same device."""
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
    """Packets a second, packets, CPU seconds of the capture, of both ends, packets lost."""
    with Programs() as programs:
        scene = stage.Stage(bench, programs)
        collect = scene.collect()
        capture = scene.capture()
        # The start is not the capture's work.
        before = [program.cpu_so_far() for program in (capture, collect)]
        count, came_to = stage.sent(scene.send(rate, seconds))
        stage.at_rate(came_to, rate)
        # What is on its way arrives.
        time.sleep(1)
        spent = [program.cpu_so_far() - was for program, was in zip((capture, collect), before)]
        capture.stop()
        collect.stop()
        written = collect.last_metrics().sum("packeteur_source_written_packets_total")
        return came_to, count, spent[0], sum(spent), count - written


def theirs(bench, rate, seconds):
    with Programs() as programs:
        scene = stage.Stage(bench, programs)
        argv = ["tcpdump", "-i", stage.BUSY, "--nano", "-n", "-B", stage.BUFFER_KIB, "-Z", "root", "-w", "/dev/null"]
        dump = programs.start(*scene.near.prefix, *argv)
        dump.wait_for_log("listening on")
        before = dump.cpu_so_far()
        count, came_to = stage.sent(scene.send(rate, seconds))
        stage.at_rate(came_to, rate)
        time.sleep(1)
        spent = dump.cpu_so_far() - before
        dump.stop()
        captured = re.search(r"^(\d+) packets captured", dump.log_text(), re.MULTILINE)
        if captured is None:
            raise Failed(f"tcpdump does not say how much it captured: {dump.log_text()}")
        return came_to, count, spent, spent, count - int(captured.group(1))
