"""The exposition of metrics: over HTTP, in a file, and as promtool and Prometheus read it."""

import os
import re
import socket
import subprocess

from testkit import frames, http, pcap
from testkit.host import Host, join
from testkit.metrics import Metrics
from testkit.outcome import check, equal, until

BUCKETS = [str(1 << power) for power in range(6, 17)] + ["+Inf"]


def test_paths(testbed):
    """/metrics with Prometheus' content type, /-/healthy, /-/ready, and a landing page. Other paths are not found."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint)
    capture = testbed.capture(relay_endpoint=endpoint).ready()
    observe = testbed.observe().ready()
    for program in (capture, collect, observe):
        metrics = program.get("/metrics")
        equal((metrics.status, metrics.content_type), (200, "text/plain; version=0.0.4; charset=utf-8"), "/metrics")
        check(Metrics(metrics.text).one("packeteur_build_info") == 1, "packeteur_build_info")
        check(Metrics(metrics.text).one("process_resident_memory_bytes") > 0, "process metrics")
        for path in ("/-/healthy", "/-/ready"):
            until(lambda path=path: program.get(path).status == 200, f"{path} does not return 200")
        page = program.get("/")
        check(page.status == 200 and page.content_type.startswith("text/html"), "the landing page")
        check(f"<code>{program.name}</code>" in page.text and 'href="/metrics"' in page.text, page.text)
        equal(program.get("/nothing").status, 404, "status of an unknown path")
        program.stop()


def test_addresses(testbed):
    """METRICS_ADDRPORT: all addresses, one of either family, a name, and `off`."""
    for number, (host, reached) in enumerate(
        (
            ("", ("127.0.0.1", "::1")),
            ("127.0.0.1", ("127.0.0.1",)),
            ("[::1]", ("::1",)),
            ("localhost", ("127.0.0.1",)),
        )
    ):
        port = testbed.home.free_port()
        observe = testbed.observe(f"observe-{number}", metrics_addrport=f"{host}:{port}").ready()
        for address in ("127.0.0.1", "::1"):
            try:
                status = http.get(testbed.home, port, "/-/healthy", address).status
            except ConnectionRefusedError:
                status = None
            equal(
                status, 200 if address in reached else None, f"status on {address} with METRICS_ADDRPORT={host}:{port}"
            )
        observe.stop()
    off = testbed.observe("off", metrics_addrport="off", max_duration="200ms")
    off.wait_for_log("capturing")
    listening = testbed.home.run("ss", "-Hltnp")
    check(f"pid={off.pid}," not in listening, f"it listens with METRICS_ADDRPORT=off: {listening}")
    off.wait()


def test_sizes(testbed):
    """`packeteur_capture_total` and `packeteur_capture_bytes` count lengths on the wire by address family, with buckets
    2^6 to 2^16. They are the same at the capture, the collector and an exporter."""
    packets = frames.packets(2000, 300) + frames.packets(10, 60_000, begin=frames.BEGIN + 10**10)
    packets[3] = packets[3]._replace(original=70_000)
    packets.append(packets[-1]._replace(data=b"\xff" * 12 + b"\x08\x06" + bytes(28), original=42))
    path = testbed.write("in.pcap", pcap.encode(packets))
    capture, collect = testbed.relay_file(path)
    observe = testbed.observe(read_file=path)
    observe.wait()
    families = {"IPv4": [], "IPv6": [], "other": []}
    for packet in packets:
        families[{b"\x08\0": "IPv4", b"\x86\xdd": "IPv6"}.get(packet.data[12:14], "other")].append(packet.original)
    for program in (capture, collect, observe):
        metrics = program.last_metrics()
        for family, lengths in families.items():
            label = {"address_family": family}
            equal(metrics.one("packeteur_capture_total", **label), len(lengths), f"packets of {family}")
            equal(metrics.one("packeteur_capture_bytes_count", **label), len(lengths), f"packets of {family}")
            equal(metrics.one("packeteur_capture_bytes_sum", **label), sum(lengths), f"bytes of {family}")
            got = [
                (labels["le"], value)
                for name, labels, value in metrics.samples
                if name == "packeteur_capture_bytes_bucket" and labels["address_family"] == family
            ]
            expected = [(le, float(sum(length <= float(le) for length in lengths))) for le in BUCKETS]
            equal(got, expected, f"buckets of {family} in {program.name}")
        equal(metrics.families["packeteur_capture_bytes"], "histogram", "kind")
        equal(metrics.families["packeteur_capture_total"], "counter", "kind")


def test_promtool_accepts_metrics(testbed):
    """`promtool check metrics` has no complaints in any mode, with all observers and traffic. Names inherited from
    other exporters are exempt: they are kept for compatibility."""
    testbed.need("promtool")
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, observe="all")
    capture = testbed.capture(relay_endpoint=endpoint, observe="all").ready().connected()
    observe = testbed.observe().ready()
    talk(testbed)
    collect.wait_for_metric("packeteur_source_received_packets_total", 10)
    for program in (capture, collect, observe):
        text = program.get("/metrics").text
        check("packeteur_capture_total" in text, "no metrics")
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        complaints = (checked.stdout + checked.stderr).splitlines()
        ours = [
            line for line in complaints if line.startswith(("packeteur_", "capture_", "process_")) or "error" in line
        ]
        equal(ours, [], f"promtool's complaints about {program.name}")
        program.stop()


def test_no_duplicate_samples(testbed):
    """Each series is exposed once, even if two devices see the same stream or two routers send the same packet."""
    join(testbed.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, observe="all")
    tzsp = [testbed.home.free_port(), testbed.home.free_port()]
    programs = [
        testbed.capture(device="near,lo", relay_endpoint=endpoint, observe="all").ready().connected(),
        testbed.observe("devices", device="near,lo").ready(),
        testbed.observe("any", device="any").ready(),
        testbed.observe("routers", tzsp_port=",".join(map(str, tzsp))).ready(),
    ]
    talk(testbed)
    with testbed.home.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        for port in tzsp:
            for number in range(8):
                router.sendto(bytes.fromhex("0100000101") + frames.frame(number), ("127.0.0.1", port))
    programs[-1].wait_for_metric("packeteur_capture_total", 16)
    collect.wait_for_metric("packeteur_source_received_packets_total", 10)
    for program in [*programs, collect]:
        # The parser rejects duplicate samples.
        check(program.metrics().sum("packeteur_capture_total") > 0, f"{program.name} has measured nothing")
        program.stop()


def talk(testbed):
    """Sends pings and data on a TCP connection."""
    testbed.home.run("ping", "-q", "-c", "3", "-i", "0.02", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as connection:
        peer, _ = server.accept()
        with peer:
            connection.sendall(b"hello")
            equal(peer.recv(5), b"hello", "received data")


def test_prometheus_scrapes(testbed):
    """Prometheus scrapes an exporter: the target is up, and its packets are counted."""
    testbed.need("prometheus")
    capture = testbed.observe(filter="icmp").ready()
    port = testbed.home.free_port()
    config = f"""
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: pcktr
    static_configs: [{{targets: ["127.0.0.1:{capture.metrics_port()}"]}}]
"""
    testbed.start(
        "prometheus",
        "prometheus",
        f"--config.file={testbed.write('prometheus.yml', config.encode())}",
        f"--storage.tsdb.path={testbed.path('data')}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    testbed.home.run("ping", "-q", "-c", "3", "-i", "0.02", "127.0.0.1")

    def value(query):
        try:
            answer = http.get(testbed.home, port, f"/api/v1/query?query={query}")
        except (ConnectionError, OSError):
            return None
        found = re.search(r'"value":\[[\d.]+,"([^"]+)"\]', answer.text)
        return found and found.group(1)

    until(
        lambda: value("packeteur_capture_total%7Baddress_family%3D%22IPv4%22%7D") == "6",
        "Prometheus does not have six packets",
        30,
    )
    equal(value("up"), "1", "up")


def test_metrics_file(testbed):
    """METRICS_FILE holds the final metrics. Temporary files are removed, and an error is logged."""
    path = testbed.write("in.pcap", pcap.encode(frames.packets(100)))
    observe = testbed.observe(read_file=path, metrics_addrport="off")
    observe.wait()
    equal(observe.last_metrics().sum("packeteur_capture_total"), 100, "packets")
    nowhere = testbed.observe("nowhere", read_file=path, metrics_file="/nowhere/at/all.prom")
    nowhere.wait(code=None, seconds=10)
    check("/nowhere/at/all.prom" in nowhere.log(), f"the log does not report the error: {nowhere.log()}")
    left = [name for name in os.listdir(testbed.directory) if ".prom" in name]
    equal(left, ["observe.prom"], "metrics files")
