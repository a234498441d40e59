"""A file through the relay to nowhere, beside pipes that do not look at the packets, and tcpdump, which does."""

import os
import time

from harness import packets, pcktr
from harness.process import Failed, Programs, until
from harness.table import Table, figure, in_turn, ratio


# Commands that send what they read to `{port}`, or throw away what comes there. The netcat is OpenBSD's.
SOCAT_OUT = ["socat", "-u", "-b", "262144", "-", "TCP:127.0.0.1:{port}"]
SOCAT_IN = ["socat", "-u", "-b", "262144", "TCP-LISTEN:{port},reuseaddr", "OPEN:/dev/null"]
NC_OUT = ["nc", "-N", "127.0.0.1", "{port}"]
NC_IN = ["nc", "-l", "127.0.0.1", "{port}"]


def run(bench):
    """File → capture → TCP over loopback → collect → /dev/null, one source."""
    count = bench.sized(5_000_000, 200_000)
    for sizes in packets.SIZES:
        path = bench.place.input(packets.write_traffic, sizes, count)
        contestants = [("pcktr", lambda: ours(bench, path, count))]
        for name, tools, sender, receiver in peers(path):
            if bench.has(name, *tools):
                contestants.append((name, lambda s=sender, r=receiver: theirs(s, r)))
        results = in_turn(bench.rounds, contestants)
        yield f"{count / 1e6:g} million packets, {sizes}, {os.stat(path).st_size / 1e6:.0f} MB"
        yield table(results, count)
        bench.place.forget(path)
    path = bench.place.input(packets.write_traffic, "small", 1)
    alone = [ours(bench, path, 1)[0] for _ in range(bench.rounds)]
    yield (
        f"One packet takes ours {figure(alone)} s: so much of each time above is start and end, and the wait of a "
        "collector for sources that connect a moment later (half of MERGE_WINDOW)."
    )


def peers(path):
    """Name, tools, the commands that send to a port, the command that receives there."""
    cat = ["cat", path]
    user = ["-Z", "root"] if os.geteuid() == 0 else []
    dump = ["tcpdump", *user, "-r", path, "-w", "-"]
    yield "cat \\| socat → socat", ["socat"], [cat, SOCAT_OUT], SOCAT_IN
    yield "tcpdump \\| socat → socat", ["tcpdump", "socat"], [dump, SOCAT_OUT], SOCAT_IN
    yield "cat \\| nc → nc", ["nc"], [cat, NC_OUT], NC_IN


def ours(bench, path, count):
    """Seconds, and CPU seconds of both ends."""
    with Programs() as programs:
        endpoint = pcktr.endpoint()
        collect = pcktr.collect(programs, bench.place, endpoint, exit_on_end="true")
        began = time.monotonic()
        capture = pcktr.capture(programs, bench.place, endpoint, read_file=path)
        usage = [collect.finish(), capture.finish()]
        seconds = time.monotonic() - began
        written = collect.last_metrics().sum("packeteur_source_written_packets_total")
        if written != count:
            raise Failed(f"{written} packets came out, not {count}")
        return seconds, sum(used.cpu for used in usage)


def theirs(sender, receiver):
    """The same of a pipe."""
    with Programs() as programs:
        port = pcktr.free_port()
        sender, receiver = [at(port, argv) for argv in sender], at(port, receiver)
        receives = programs.start(*receiver)
        until(lambda: listens(port), f"{receives.argv[0]} listening")
        began = time.monotonic()
        sends = programs.pipe(*sender)
        usage = [receives.finish(), *(program.wait() for program in sends)]
        return time.monotonic() - began, sum(used.cpu for used in usage)


def at(port, argv):
    """A command with its port."""
    return [arg.replace("{port}", str(port)) for arg in argv]


def listens(port):
    """Whether somebody listens there, on IPv4 or IPv6."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        # proc_net_tcp(5): the local address, and state 0A for listening.
        if any(row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port for row in rows):
            return True
    return False


def table(results, count):
    """Rates and costs, and how many times the peer's ours is in the same round."""
    made = Table("", "Mpps", "CPU-s/M, both ends", "ours, times its rate", "ours, times its cost")
    rate = {name: [count / seconds / 1e6 for seconds, _ in each] for name, each in results.items()}
    cost = {name: [cpu / count * 1e6 for _, cpu in each] for name, each in results.items()}
    for name in results:
        beside = ["", ""]
        if name != "pcktr":
            beside = [ratio(rate["pcktr"], rate[name]), ratio(cost["pcktr"], cost[name])]
        made.add(name, figure(rate[name]), figure(cost[name], 3), *beside)
    return made
