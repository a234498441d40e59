"""Many files merged by time: through the relay, compared with mergecap, which reads them directly."""

import time

from bench import input_files
from bench.measurement import TIMEOUT, Measurement, PeakMemory
from bench.table import Table, figure, in_turn, mib, ratio
from testkit.outcome import Failed, until

# Captures have filled their buffers if they have not read from their files for this many seconds.
IDLE = 0.5


def run(bench):
    """Captures of files → one collector → /dev/null. The captures have filled their buffers and wait for the collector.
    The time is from the collector's start to its end."""
    total = bench.sized(5_000_000, 160_000)
    for sizes in input_files.SIZES:
        for sources in (16, bench.sized(256, 32)):
            each = total // sources
            write = (input_files.write_traffic, sizes, each)
            paths = [bench.work.input(*write, index, sources) for index in range(sources)]
            contestants = [("pcktr", lambda: ours(bench, paths, each))]
            if bench.has("mergecap", "mergecap"):
                contestants.append(("mergecap", lambda: theirs(bench, paths)))
            results = in_turn(bench.rounds, contestants)
            yield f"{sources} sources, {each * sources / 1e6:g} million packets, {sizes}"
            yield table(results, each * sources)
            bench.work.delete(*paths)


def ours(bench, paths, each):
    """Seconds, CPU seconds of all ends, late packets, peak memory of the collector."""
    with Measurement(bench.work) as measurement:
        endpoint = measurement.endpoint()
        captures = start_captures(measurement, paths, endpoint)
        began = time.monotonic()
        collector = measurement.collect(collect_endpoint=endpoint, exit_on_end="true")
        with PeakMemory(collector) as peak:
            used = collector.wait(seconds=TIMEOUT)
        seconds = time.monotonic() - began
        metrics = collector.last_metrics()
        connected = len(metrics.values("packeteur_source_written_packets_total"))
        if connected != len(paths):
            # It exits when all sources seen so far have ended.
            missing = len(paths) - connected
            raise Failed(f"the collector exited after {seconds:.2f} s, before {missing} sources had connected")
        cpu = used.cpu + sum(program.wait().cpu for program in captures)
        written = metrics.sum("packeteur_source_written_packets_total")
        if written != each * len(paths):
            raise Failed(f"{written} packets were written, not {each * len(paths)}")
        return seconds, cpu, metrics.sum("packeteur_source_late_packets_total"), peak.bytes


def start_captures(measurement, paths, endpoint):
    """Starts a capture of each file, and waits until all of them have filled their buffers."""
    captures = [
        measurement.capture(f"host{index}", relay_endpoint=endpoint, read_file=path) for index, path in enumerate(paths)
    ]
    read, since = -1, time.monotonic()

    def are_idle():
        nonlocal read, since
        now = sum(program.bytes_read() for program in captures)
        # Trying to connect takes small reads. Those of a file are larger.
        if now - read > 4096 * len(captures):
            read, since = now, time.monotonic()
        return time.monotonic() - since > IDLE

    until(are_idle, "the captures have not filled their buffers", 60, 0.05)
    return captures


def theirs(bench, paths):
    """The same for mergecap."""
    with Measurement(bench.work) as measurement:
        began = time.monotonic()
        mergecap = measurement.start("mergecap", "mergecap", "-F", "nsecpcap", "-w", "/dev/null", *paths)
        used = mergecap.wait(seconds=TIMEOUT)
        return time.monotonic() - began, used.cpu, 0, 0


def table(results, count):
    made = Table("", "Mpps", "CPU-s/M, all ends", "late packets", "collector, peak", "ours, times its rate")
    rate = {name: [count / result[0] / 1e6 for result in each] for name, each in results.items()}
    for name, each in results.items():
        cost = figure([result[1] / count * 1e6 for result in each], 3)
        if name == "pcktr":
            late = max(result[2] for result in each)
            made.add(name, figure(rate[name]), cost, late, mib(max(result[3] for result in each)), "")
        else:
            made.add(name, figure(rate[name]), cost, "", "", ratio(rate["pcktr"], rate[name]))
    return made
