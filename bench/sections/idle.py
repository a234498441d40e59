"""CPU usage with little or no traffic."""

import time

from bench import live_hosts
from bench.live_hosts import LiveHosts
from bench.table import Table, figure

NEEDS_HOSTS = True


def run(bench):
    """Live capture and collector: share of a core, without traffic and at 10 000 packets/s."""
    seconds = bench.sized(20, 2)
    made = Table("packets/s", "capture", "collector")
    for rate in (0, 10_000):
        shares = [measure(bench, rate, seconds) for _ in range(bench.rounds)]
        made.add(rate, *(figure([share[end] * 100 for share in shares]) + " %" for end in (0, 1)))
    yield made


def measure(bench, rate, seconds):
    """Shares of a core: capture, collector."""
    with LiveHosts(bench.work) as hosts:
        collector = hosts.start_collector()
        ends = [hosts.start_capture(), collector]
        # Startup is not measured.
        time.sleep(1)
        sender = hosts.send(rate, seconds + 2) if rate else None
        time.sleep(1 if rate else 0)
        began, before = time.monotonic(), [program.cpu_so_far() for program in ends]
        time.sleep(seconds)
        after, elapsed = [program.cpu_so_far() for program in ends], time.monotonic() - began
        if sender:
            live_hosts.check_rate(live_hosts.sent(sender)[1], rate)
        return [(late - early) / elapsed for early, late in zip(before, after)]
