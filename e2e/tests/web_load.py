"""The metrics endpoint under clients that are silent, slow or many."""

import gzip
import resource
import socket
import struct
import subprocess
import time

from testkit import frames, pcap
from testkit.metrics import Metrics
from testkit.outcome import check, equal, until

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

# Flows that make a scrape of about 12 MB.
FLOWS = 40_000
SIZE = 10_000_000


def collector_of_many_flows(testbed):
    """A collector with a large table."""
    packet = frames.packets(1)[0]
    packets = []
    for number in range(FLOWS):
        source = struct.pack("!I", 0x0A000000 + number)
        data = frames.ethernet(frames.udp4(b"x" * 8, source))
        packets.append(packet._replace(data=data, original=len(data)))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, output="/dev/null", observe="flows")
    path = testbed.write("in.pcap", pcap.encode(packets))
    testbed.capture(relay_endpoint=endpoint, read_file=path, observe="none").wait()
    collect.wait_for_metric("packeteur_source_received_packets_total", FLOWS)
    return collect


def silent_clients(testbed, program, number):
    """Connections that send the beginning of a request and nothing else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, number + 100), hard), hard))
    clients = [testbed.home.connect("127.0.0.1", program.metrics_port()) for _ in range(number)]
    for client in clients:
        client.sendall(b"GET ")
    return clients


def answers_in(program, seconds, path="/-/healthy"):
    """Checks that a request is answered within `seconds`."""
    begin = time.monotonic()
    equal(program.get(path, seconds=30).status, 200, path)
    took = time.monotonic() - begin
    check(took < seconds, f"{path} took {took:.2f} s")


def test_gzip(testbed):
    """A scrape is compressed for clients that accept it, and has the same series."""
    observe = testbed.observe().ready()
    plain = observe.get("/metrics")
    equal((plain.headers["Content-Encoding"], plain.headers["Vary"]), (None, "Accept-Encoding"), "headers")
    compressed = observe.get("/metrics", headers={"Accept-Encoding": "br;q=1.0, gzip;q=0.5"})
    equal(compressed.headers["Content-Encoding"], "gzip", "Content-Encoding")
    equal(compressed.headers["Vary"], "Accept-Encoding", "Vary")
    equal(int(compressed.headers["Content-Length"]), len(compressed.body), "length")
    check(len(compressed.body) < len(plain.body) / 2, f"{len(compressed.body)} of {len(plain.body)} bytes")
    series = [
        {name for name, _, _ in Metrics(text).samples}
        for text in (plain.text, gzip.decompress(compressed.body).decode())
    ]
    equal(series[0], series[1], "series")
    for refused in ("gzip;q=0", "identity", "*;q=0", "deflate"):
        response = observe.get("/metrics", headers={"Accept-Encoding": refused})
        equal(response.headers["Content-Encoding"], None, f"Content-Encoding for {refused}")


def test_silent_clients(testbed):
    """128 silent connections and more do not delay health checks and scrapes."""
    observe = testbed.observe().ready()
    clients = silent_clients(testbed, observe, 200)
    for _ in range(5):
        answers_in(observe, 1)
        answers_in(observe, 1, "/metrics")
    metrics = observe.metrics()
    check(metrics.one("packeteur_web_evicted_connections_total") >= 200 - 64, "closed connections are not counted")
    check(metrics.one("packeteur_web_connections") <= 64, "too many connections")
    for client in clients:
        client.close()


def test_file_descriptors_run_out(testbed):
    """Without file descriptors, the program neither spins nor stops answering. It says so, once, and counts it."""
    testbed.need("prlimit")
    # The program has about 20 open.
    observe = testbed.observe(prefix=("prlimit", "--nofile=40:40")).ready()
    clients = silent_clients(testbed, observe, 100)
    observe.wait_for_log("cannot accept connections to the metrics; repeats suppressed")
    begin, cpu = time.monotonic(), observe.cpu_so_far()
    answers_in(observe, 20)
    used = (observe.cpu_so_far() - cpu) / (time.monotonic() - begin)
    check(used < 0.2, f"{used:.2f} of a core")
    until(lambda: observe.metrics().one("packeteur_web_accept_errors_total") >= 1, "errors are not counted")
    equal(len(observe.log_lines("cannot accept connections")), 1, "log lines")
    for client in clients:
        client.close()
    until(lambda: observe.get("/-/healthy").status == 200, "health")


def slow_reader(testbed, program):
    """A client that reads the beginning of a scrape, and then nothing."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(20)
    reader.connect(("127.0.0.1", program.metrics_port()))
    reader.sendall(SCRAPE)
    check(reader.recv(100).startswith(b"HTTP/1.1 200"), "no scrape")
    return reader


def test_slow_readers(testbed):
    """Clients that do not read their scrapes neither delay other clients nor fill the memory."""
    collect = collector_of_many_flows(testbed)
    size = len(collect.get("/metrics").body)
    check(size > SIZE, f"a scrape has only {size} bytes: it fits into the socket's buffers")
    before = collect.memory_peak()
    readers = [slow_reader(testbed, collect) for _ in range(10)]
    answers_in(collect, 1)
    answers_in(collect, 5, "/metrics")
    grown = collect.memory_peak() - before
    # Three renderings, and what the allocator keeps.
    check(grown < 5 * size, f"{grown} bytes for {len(readers)} slow readers of {size} bytes")
    check(collect.metrics().one("packeteur_web_evicted_connections_total") >= 7, "slow readers are not closed")
    for reader in readers:
        reader.close()


def test_scrapes_share_renderings(testbed):
    """Thirty scrapes at once cost as much as a few. Health checks are answered meanwhile."""
    testbed.need("curl")
    collect = collector_of_many_flows(testbed)
    collect.get("/metrics")

    def cost(scrapes):
        """The program's CPU seconds for scrapes at the same time, and the longest time of a health check."""
        cpu = collect.cpu_so_far()
        # A process of its own, so that it does not delay the health checks here.
        url = f"http://127.0.0.1:{collect.metrics_port()}/metrics"
        argv = ["curl", "-s", "-Z", "--parallel-immediate", "--parallel-max", str(scrapes), "-w", "%{size_download}\\n"]
        for _ in range(scrapes):
            argv += ["-o", "/dev/null", url]
        client = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        slowest = 0
        while client.poll() is None:
            begin = time.monotonic()
            equal(collect.get("/-/healthy").status, 200, "health")
            slowest = max(slowest, time.monotonic() - begin)
        sizes = [int(line) for line in client.communicate()[0].splitlines()]
        check(len(sizes) == scrapes and min(sizes) > SIZE, f"incomplete scrapes: {sizes}")
        return collect.cpu_so_far() - cpu, slowest

    one = min(cost(1)[0] for _ in range(3))
    many, slowest = cost(30)
    check(many < 12 * one, f"30 scrapes took {many:.3f} s of CPU, one {one:.3f} s")
    check(slowest < 1, f"a health check took {slowest:.2f} s")
