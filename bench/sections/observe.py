"""The observers: speed, memory, and the duration of a scrape."""

import subprocess
import sys
import time

from bench import input_files
from bench.measurement import TIMEOUT, Measurement
from bench.table import Table, figure, mib
from testkit import http
from testkit.build import ROOT
from testkit.outcome import Failed, until

SYN, ACK, PUSH = 0x02, 0x10, 0x08

# Packets per second during the scrapes.
BACKGROUND_RATE = 20_000


def run(bench):
    """A file with all observers; then large tables: their memory, and how long a scrape takes while 20 000 packets per
    second arrive."""
    yield rates(bench)
    yield tables(bench)


def rates(bench):
    """All observers, and the default, on several files."""
    count = bench.sized(5_000_000, 200_000)
    made = Table("file", "observers", "Mpps", "CPU-s/M")
    conversations = bench.work.input(write_conversations, 1024, count)
    for name, path in (
        ("TCP, 1024 conversations", conversations),
        ("UDP, small", bench.work.input(input_files.write_traffic, "small", count)),
    ):
        for observers in ("all", "sizes"):
            results = [observe(bench, path, count, observers) for _ in range(bench.rounds)]
            rate = [count / seconds / 1e6 for seconds, _ in results]
            made.add(name, observers, figure(rate), figure([cpu / count * 1e6 for _, cpu in results], 3))
        bench.work.delete(path)
    return made


def observe(bench, path, count, observers):
    """Seconds, and CPU seconds."""
    with Measurement(bench.work) as measurement:
        metrics_file = measurement.path("observe.prom")
        began = time.monotonic()
        program = measurement.observe(read_file=path, observe=observers, metrics_file=metrics_file)
        used = program.wait(seconds=TIMEOUT)
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
        # Of a million streams, a scrape exports the default number; of fewer, all.
        exported = number if number <= 100_000 // scale else 10_000 // scale
        settings = {"observe": "streams", "streams_export": exported}
        figures = measure_table(bench, write_streams, number, **settings)
        made.add(f"{number} directed streams, {exported} exported", *figures)
    number = 100_000 // scale
    made.add(f"{number} flows", *measure_table(bench, write_flows, number, observe="flows"))
    return made


def measure_table(bench, write, number, **settings):
    """Resident memory before and after, series, duration and size of a scrape."""
    path, background = bench.work.input(write, number), bench.work.input(write_background, 10_000)
    with Measurement(bench.work) as measurement:
        argv = [sys.executable, "-m", "bench.feeder", path, background, BACKGROUND_RATE]
        feeder = measurement.start("feeder", *argv, stdout=subprocess.PIPE, cwd=ROOT)
        program = measurement.observe(stdin=feeder.stdout, read_file="-", metrics_addrport="127.0.0.1:0", **settings)
        feeder.stdout.close()
        feeder.wait_for_log("fed", 60)
        program.ready()
        # The rest of the file is still in the pipe.
        time.sleep(0.5)
        before = program.memory()
        scrapes = [scrape(program) for _ in range(bench.rounds + 2)]
        after = program.memory()

        def seen():
            return metric(scrape(program)[1], b"capture_packets_processed_total")

        first = seen()
        until(lambda: seen() > first, "no packets arrive")
        text = scrapes[-1][1]
        if settings["observe"] == "streams":
            found = metric(text, b"packeteur_tcp_streams")
        else:
            found = text.count(b"\npacketeur_flow_packets_total{")
        if found < number:
            raise Failed(f"the table has {found:.0f} entries, not {number}")
        series = sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
        seconds = figure([took * 1000 for took, _ in scrapes], 0)
        return mib(before), mib(after), series, f"{seconds} ms", mib(len(text))


def scrape(program):
    """Seconds, and the exposition."""
    port = program.metrics_port()
    began = time.monotonic()
    text = http.get(program.host, port, "/metrics", seconds=60).body
    return time.monotonic() - began, text


def metric(text, name):
    """The value of a metric without labels."""
    at = text.index(b"\n" + name + b" ") + len(name) + 2
    return float(text[at : text.index(b"\n", at)])


def ends(number):
    """The two ends of conversation `number`: addresses and ports."""
    client = input_files.address("10.0.0.0") + number % 60_000
    return (client, input_files.address("10.200.0.1")), (1024 + number // 60_000 * 7 % 60_000, 443)


def segments(number, data):
    """A handshake, then `data` segments with data, each acknowledged."""
    (client, server), ports = ends(number)
    reverse, sent, received = ports[::-1], number * 7919, number * 104_729
    yield input_files.tcp(client, server, ports, sent, 0, SYN)
    yield input_files.tcp(server, client, reverse, received, sent + 1, SYN | ACK)
    sent, received = sent + 1, received + 1
    for _ in range(data):
        yield input_files.tcp(client, server, ports, sent, received, PUSH | ACK, 50)
        sent += 50
        yield input_files.tcp(server, client, reverse, received, sent, ACK)


def write_conversations(path, conversations, count):
    """Interleaved conversations, one packet per microsecond."""

    def frames():
        data = -(-count // conversations // 2) + 1
        running = [segments(number, data) for number in range(conversations)]
        left = count
        while left > 0:
            for conversation in running[:left]:
                yield next(conversation)
            left -= conversations

    input_files.write_frames(path, frames(), 1000)


def write_streams(path, directed):
    """Conversations of two directed streams each, in which the client has sent data."""
    frames = (frame for number in range(directed // 2) for frame in segments(number, 1))
    input_files.write_frames(path, frames, 1000)


def write_flows(path, flows):
    """Flows of one packet."""
    frames = (input_files.udp(input_files.address("10.0.0.0") + number, 9, 64) for number in range(flows))
    input_files.write_frames(path, frames, 1000)


def write_background(path, count):
    """Segments of one conversation, all of the same length."""
    (client, server), ports = ends(0)
    frame = input_files.tcp(client, server, ports, 1, 1, PUSH | ACK, 50)
    input_files.write_frames(path, [frame] * count, 1000)
