"""Memory usage with many busy sources."""

import subprocess

from bench import input_files
from bench.measurement import TIMEOUT, Measurement, PeakMemory
from bench.sections import merge
from bench.table import Table, mib

# Seconds, longer than it takes to fill all buffers.
STALL = 3


def run(bench):
    """Many captures of files send to one collector as fast as possible, at the defaults, with a fast and with a stalled
    reader: peak resident memory of the collector and of the largest capture (its RELAY_BUFFER of 64 MiB included)."""
    total = bench.sized(5_000_000, 160_000)
    made = Table("sources", "reader of the output", "collector", "largest capture")
    for sources in (16, bench.sized(256, 32)):
        each = total // sources
        paths = [bench.work.input(input_files.write_traffic, "mix", each, index, sources) for index in range(sources)]
        for reader, stall in (("/dev/null", 0), (f"stalls for {STALL} s", STALL)):
            peaks = [measure(bench, paths, stall) for _ in range(bench.rounds)]
            made.add(sources, reader, *(mib(max(peak[end] for peak in peaks)) for end in (0, 1)))
        bench.work.delete(*paths)
    yield made


def measure(bench, paths, stall):
    """Peak bytes of the collector and of the largest capture."""
    with Measurement(bench.work) as measurement:
        endpoint = measurement.endpoint()
        captures = merge.start_captures(measurement, paths, endpoint)
        largest = max(program.memory_peak() for program in captures)
        output = subprocess.PIPE if stall else subprocess.DEVNULL
        collector = measurement.collect(collect_endpoint=endpoint, exit_on_end="true", stdout=output)
        with PeakMemory(collector) as peak:
            if stall:
                command = f"sleep {stall}; exec cat >/dev/null"
                measurement.start("reader", "sh", "-c", command, stdin=collector.stdout)
            collector.wait(seconds=TIMEOUT)
        return peak.bytes, largest
