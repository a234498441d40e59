"""Many files merged by time: through the relay, beside mergecap, which has no network between."""

import time

from harness import packets, pcktr
from harness.process import Failed, Peak, Programs, until
from harness.table import Table, figure, in_turn, mib, ratio

# Captures at rest: their CPU time has not grown for so long.
REST = 0.3


def run(bench):
    """File sources → one collector → /dev/null. The captures wait for it, their files open and begun; the time is the
    collector's, from its start to its end."""
    total = bench.sized(5_000_000, 160_000)
    for sizes in packets.SIZES:
        for sources in (16, bench.sized(256, 32)):
            each = total // sources
            make = (packets.write_traffic, sizes, each)
            paths = [bench.place.input(*make, index, sources) for index in range(sources)]
            contestants = [("pcktr", lambda: ours(bench, paths, each))]
            if bench.has("mergecap", "mergecap"):
                contestants.append(("mergecap", lambda: theirs(paths)))
            results = in_turn(bench.rounds, contestants)
            yield f"{sources} sources, {each * sources / 1e6:g} million packets, {sizes}"
            yield table(results, each * sources)
            bench.place.forget(*paths)


def ours(bench, paths, each):
    """Seconds, CPU seconds of all ends, late packets, peak memory of the collector."""
    with Programs() as programs:
        endpoint = pcktr.endpoint()
        captures = start_waiting(bench, programs, paths, endpoint)
        began = time.monotonic()
        collect = pcktr.collect(programs, bench.place, endpoint, exit_on_end="true")
        with Peak(collect) as peak:
            used = collect.finish()
        seconds = time.monotonic() - began
        metrics = collect.last_metrics()
        came = metrics.count("packeteur_source_written_packets_total")
        if came != len(paths):
            # It ends when every source seen so far has ended.
            raise Failed(f"the collector had ended after {seconds:.2f} s, before {len(paths) - came} sources found it")
        cpu = used.cpu + sum(program.finish(20).cpu for program in captures)
        written = metrics.sum("packeteur_source_written_packets_total")
        if written != each * len(paths):
            raise Failed(f"{written} packets came out, not {each * len(paths)}")
        return seconds, cpu, metrics.sum("packeteur_source_late_packets_total"), peak.bytes


def start_waiting(bench, programs, paths, endpoint):
    """Captures that have read as much of their files as they keep, and wait for their collector."""
    captures = [
        pcktr.capture(programs, bench.place, endpoint, read_file=path, source_name=f"host{index}")
        for index, path in enumerate(paths)
    ]
    spent = [-1.0, time.monotonic()]

    def at_rest():
        now = sum(program.cpu_so_far() for program in captures)
        # Looking for the collector costs next to nothing, but not nothing.
        if now - spent[0] > 0.002 * len(captures):
            spent[:] = now, time.monotonic()
        return time.monotonic() - spent[1] > REST

    until(at_rest, "captures that wait for their collector", 60, 0.05)
    return captures


def theirs(paths):
    with Programs() as programs:
        began = time.monotonic()
        used = programs.start("mergecap", "-F", "nsecpcap", "-w", "/dev/null", *paths).finish()
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
