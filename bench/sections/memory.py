"""How much memory many busy sources take."""

import subprocess

from harness import packets, pcktr
from harness.process import Peak, Programs
from harness.table import Table, mib

from . import merge


def run(bench):
    """File sources that send as fast as they can to one collector: the most resident memory of the collector, and of
    the largest capture (its RELAY_BUFFER of 64 MiB included), at the defaults; also with a reader that stalls."""
    total = bench.sized(5_000_000, 160_000)
    made = Table("sources", "reader of the output", "collector", "largest capture")
    for sources in (16, bench.sized(256, 32)):
        each = total // sources
        paths = [bench.place.input(packets.write_traffic, "mix", each, index, sources) for index in range(sources)]
        for reader, stall in (("/dev/null", 0), (f"stalls for {STALL} s", STALL)):
            peaks = [measure(bench, paths, stall) for _ in range(bench.rounds)]
            made.add(sources, reader, *(mib(max(peak[end] for peak in peaks)) for end in (0, 1)))
        bench.place.forget(*paths)
    yield made


# Longer than it takes to fill all buffers.
STALL = 3


def measure(bench, paths, stall):
    """The most bytes of the collector and of the largest capture."""
    with Programs() as programs:
        endpoint = pcktr.endpoint()
        captures = merge.start_waiting(bench, programs, paths, endpoint)
        largest = max(program.memory("VmHWM") or 0 for program in captures)
        output = subprocess.PIPE if stall else subprocess.DEVNULL
        collect = pcktr.collect(programs, bench.place, endpoint, exit_on_end="true", stdout=output)
        with Peak(collect) as peak:
            if stall:
                programs.start("sh", "-c", f"sleep {stall}; exec cat >/dev/null", stdin=collect.process.stdout)
            collect.finish()
        return peak.bytes, largest
