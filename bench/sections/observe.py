"""The observers: how fast, how large, and how long a scrape takes."""

import http.client
import subprocess
import sys
import time

from harness import feeder, packets
from harness.pcktr import Pcktr
from harness.process import Failed, Programs, until
from harness.table import Table, figure, mib

SYN, ACK, PUSH = 0x02, 0x10, 0x08

# Packets a second that go on while the figures are taken.
MEANWHILE = 20_000


def run(bench):
    """A file with every observer on; and what a large table takes, and how long a scrape of it takes while packets go
    on, 20 000 a second."""
    yield rates(bench)
    yield tables(bench)


def rates(bench):
    """Every observer on files of several kinds."""
    count = bench.sized(5_000_000, 200_000)
    made = Table("file", "observers", "Mpps", "CPU-s/M")
    talk = bench.place.input(write_talk, 1024, count)
    for name, path in (
        ("TCP, 1024 conversations", talk),
        ("UDP, small", bench.place.input(packets.write_traffic, "small", count)),
    ):
        for observers in ("all", "sizes"):
            results = [observe(bench, path, count, observers) for _ in range(bench.rounds)]
            rate = [count / seconds / 1e6 for seconds, _ in results]
            made.add(name, observers, figure(rate), figure([cpu / count * 1e6 for _, cpu in results], 3))
        bench.place.forget(path)
    return made


def observe(bench, path, count, observers):
    """Seconds, and CPU seconds."""
    with Programs() as programs:
        began = time.monotonic()
        program = programs.keep(
            Pcktr(bench.place, mode="observe", read_file=path, observe=observers, with_metrics=True)
        )
        used = program.finish()
        seconds = time.monotonic() - began
        seen = program.last_metrics().sum("capture_packets_processed_total")
        if seen != count:
            raise Failed(f"{seen} packets were measured, not {count}")
        return seconds, used.cpu


def tables(bench):
    """Large tables."""
    scale = bench.sized(1, 100)
    made = Table("known", "resident, before a scrape", "after it", "series", "a scrape", "its size")
    for number in (10_000, 100_000, 1_000_000):
        number //= scale
        # All streams in a scrape, as far as anybody scrapes so many; of a million, as many as by default.
        exported = number if number <= 100_000 // scale else 10_000 // scale
        settings = {"observe": "streams", "streams_export": exported}
        figures = known(bench, write_streams, number, **settings)
        made.add(f"{number} directed streams, {exported} exported", *figures)
    number = 100_000 // scale
    made.add(f"{number} flows", *known(bench, write_flows, number, observe="flows"))
    return made


def known(bench, write, number, **settings):
    """Resident bytes before and after, series, seconds and bytes of a scrape."""
    path, goes_on = bench.place.input(write, number), bench.place.input(write_meanwhile, 10_000)
    with Programs() as programs:
        feeds = programs.start(sys.executable, feeder.__file__, path, goes_on, MEANWHILE, stdout=subprocess.PIPE)
        program = programs.keep(
            Pcktr(
                bench.place,
                stdin=feeds.process.stdout,
                mode="observe",
                read_file="-",
                metrics_addrport="127.0.0.1:0",
                **settings,
            )
        )
        feeds.process.stdout.close()
        feeds.wait_for_log("fed", 60)
        port = program.metrics_port()
        # What the pipe still holds is read in a moment.
        time.sleep(0.5)
        before = program.memory()
        scrapes = [scrape(port) for _ in range(bench.rounds + 2)]
        after = program.memory()

        def seen():
            return metric(scrape(port)[1], b"capture_packets_processed_total")

        first = seen()
        until(lambda: seen() > first, "packets that go on")
        text = scrapes[-1][1]
        if settings["observe"] == "streams":
            found = metric(text, b"packeteur_tcp_streams")
        else:
            found = text.count(b"\npacketeur_flow_packets_total{")
        if found < number:
            raise Failed(f"{found:.0f} are known, not {number}")
        series = sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
        seconds = figure([took * 1000 for took, _ in scrapes], 0)
        return mib(before), mib(after), series, f"{seconds} ms", mib(len(text))


def scrape(port):
    """Seconds, and the text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.monotonic()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read()
    took = time.monotonic() - began
    connection.close()
    return took, text


def metric(text, name):
    """The value of a metric without labels."""
    at = text.index(b"\n" + name + b" ") + len(name) + 2
    return float(text[at : text.index(b"\n", at)])


def ends(number):
    """The two ends of conversation `number`: addresses and ports."""
    client = packets.address("10.0.0.0") + number % 60_000
    return (client, packets.address("10.200.0.1")), (1024 + number // 60_000 * 7 % 60_000, 443)


def segments(number, data):
    """A conversation that begins, and says something so many times, answered each time."""
    (client, server), there = ends(number)
    back, mine, theirs = there[::-1], number * 7919, number * 104_729
    yield packets.tcp(client, server, there, mine, 0, SYN)
    yield packets.tcp(server, client, back, theirs, mine + 1, SYN | ACK)
    mine, theirs = mine + 1, theirs + 1
    for _ in range(data):
        yield packets.tcp(client, server, there, mine, theirs, PUSH | ACK, 50)
        mine += 50
        yield packets.tcp(server, client, back, theirs, mine, ACK)


def write_talk(path, conversations, count):
    """Conversations side by side, each one's segments in order, a packet in each microsecond."""

    def frames():
        data = -(-count // conversations // 2) + 1
        talks = [segments(number, data) for number in range(conversations)]
        left = count
        while left > 0:
            for talk in talks[:left]:
                yield next(talk)
            left -= conversations

    packets.write_packets(path, frames(), 1000)


def write_streams(path, directed):
    """Two directed streams for each conversation, all of them at once; each direction has sent something."""
    frames = (frame for number in range(directed // 2) for frame in segments(number, 1))
    packets.write_packets(path, frames, 1000)


def write_flows(path, flows):
    """Flows of one packet."""
    frames = (packets.udp(packets.address("10.0.0.0") + number, 9, 64) for number in range(flows))
    packets.write_packets(path, frames, 1000)


def write_meanwhile(path, count):
    """What goes on: segments of one conversation, all of one length."""
    (client, server), ports = ends(0)
    frame = packets.tcp(client, server, ports, 1, 1, PUSH | ACK, 50)
    packets.write_packets(path, [frame] * count, 1000)
