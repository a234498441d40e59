"""What a relay costs that has little to do."""

import time

from harness import stage
from harness.process import Programs
from harness.table import Table, figure

NEEDS_HOSTS = True


def run(bench):
    """A capture on a device and its collector: share of a core, when nothing comes and at 10 000 packets a second."""
    seconds = bench.sized(20, 2)
    made = Table("packets/s", "capture", "collector")
    for rate in (0, 10_000):
        shares = [measure(bench, rate, seconds) for _ in range(bench.rounds)]
        made.add(rate, *(figure([share[end] * 100 for share in shares]) + " %" for end in (0, 1)))
    yield made


def measure(bench, rate, seconds):
    with Programs() as programs:
        scene = stage.Stage(bench, programs)
        ends = [scene.collect(), scene.capture()][::-1]
        # What a start leaves to be done.
        time.sleep(1)
        sends = scene.send(rate, seconds + 2) if rate else None
        time.sleep(1 if rate else 0)
        began, before = time.monotonic(), [program.cpu_so_far() for program in ends]
        time.sleep(seconds)
        after, took = [program.cpu_so_far() for program in ends], time.monotonic() - began
        if sends:
            stage.at_rate(stage.sent(sends)[1], rate)
        return [(there - here) / took for here, there in zip(before, after)]
