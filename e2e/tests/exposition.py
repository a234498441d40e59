"""The metrics: where they are served, what they are, and what a judge says of them."""

import os
import re
import socket
import subprocess

from harness import frames, http, pcap
from harness.host import Host, join
from harness.metrics import Metrics
from harness.outcome import check, equal, until

BUCKETS = [str(1 << power) for power in range(6, 17)] + ["+Inf"]


def test_paths(scene):
    """/metrics with Prometheus' content type, /-/healthy, /-/ready, a landing page; anything else is not found."""
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint)
    capture = scene.capture(relay_endpoint=endpoint).ready()
    observe = scene.observe().ready()
    for program in (capture, collect, observe):
        metrics = program.get("/metrics")
        equal((metrics.status, metrics.kind), (200, "text/plain; version=0.0.4; charset=utf-8"), "/metrics")
        check(Metrics(metrics.text).one("packeteur_build_info") == 1, "packeteur_build_info")
        check(Metrics(metrics.text).one("process_resident_memory_bytes") > 0, "process metrics")
        for path in ("/-/healthy", "/-/ready"):
            until(lambda path=path: program.get(path).status == 200, f"{path} says 200")
        page = program.get("/")
        check(page.status == 200 and page.kind.startswith("text/html"), "the landing page")
        check(f"<code>{program.name}</code>" in page.text and 'href="/metrics"' in page.text, page.text)
        equal(program.get("/nothing").status, 404, "what there is not")
        program.stop()


def test_addresses(scene):
    """METRICS_ADDRPORT: every address, one of either family, a name, none."""
    for number, (host, reached) in enumerate(
        (
            ("", ("127.0.0.1", "::1")),
            ("127.0.0.1", ("127.0.0.1",)),
            ("[::1]", ("::1",)),
            ("localhost", ("127.0.0.1",)),
        )
    ):
        port = scene.home.free_port()
        observe = scene.observe(f"observe-{number}", metrics_addrport=f"{host}:{port}").ready()
        for address in ("127.0.0.1", "::1"):
            try:
                status = http.get(scene.home, port, "/-/healthy", address).status
            except ConnectionRefusedError:
                status = None
            equal(status, 200 if address in reached else None, f"{address} where METRICS_ADDRPORT is {host}:{port}")
        observe.stop()
    off = scene.observe("off", metrics_addrport="off", max_duration="200ms")
    off.wait_for_log("capturing")
    listening = scene.home.run("ss", "-Hltnp")
    equal(f"pid={off.process.pid}," in listening, False, f"whether it listens with METRICS_ADDRPORT=off: {listening}")
    off.wait()


def test_sizes(scene):
    """`packeteur_capture_total` and `packeteur_capture_bytes` by address family, with the buckets 2^6 to 2^16,
    count the lengths on the wire; at both ends the same, and when only observed."""
    packets = frames.packets(2000, 300) + frames.packets(10, 60_000, begin=frames.BEGIN + 10**10)
    packets[3] = packets[3]._replace(original=70_000)
    packets.append(packets[-1]._replace(data=b"\xff" * 12 + b"\x08\x06" + bytes(28), original=42))
    path = scene.write("in.pcap", pcap.encode(packets))
    capture, collect = scene.relay_file(path)
    observe = scene.observe(read_file=path)
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


def test_promtool_has_nothing_to_say(scene):
    """`promtool check metrics` is silent about every name of ours, in all modes, with all observers, under traffic.
    The names that come from the programs which this one replaces stay as they were."""
    scene.need("promtool")
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, observe="all")
    capture = scene.capture(relay_endpoint=endpoint, observe="all").ready().connected()
    observe = scene.observe().ready()
    talk(scene)
    collect.wait_for_metric("packeteur_source_received_packets_total", 10)
    for program in (capture, collect, observe):
        text = program.get("/metrics").text
        check("packeteur_capture_total" in text, "there are no metrics")
        judged = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        said = (judged.stdout + judged.stderr).splitlines()
        ours = [line for line in said if line.startswith(("packeteur_", "capture_", "process_")) or "error" in line]
        equal(ours, [], f"what promtool says of {program.name}")
        program.stop()


def test_no_sample_stands_there_twice(scene):
    """Where two devices see the same stream, and two routers send the same packet, each series is there once."""
    join(scene.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, observe="all")
    tzsp = [scene.home.free_port(), scene.home.free_port()]
    programs = [
        scene.capture(device="near,lo", relay_endpoint=endpoint, observe="all").ready().connected(),
        scene.observe("devices", device="near,lo").ready(),
        scene.observe("any", device="any").ready(),
        scene.observe("routers", tzsp_port=",".join(map(str, tzsp))).ready(),
    ]
    talk(scene)
    with scene.home.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        for port in tzsp:
            for number in range(8):
                router.sendto(bytes.fromhex("0100000101") + frames.frame(number), ("127.0.0.1", port))
    programs[-1].wait_for_metric("packeteur_capture_total", 16)
    collect.wait_for_metric("packeteur_source_received_packets_total", 10)
    for program in [*programs, collect]:
        # The parser refuses what stands there twice.
        check(program.metrics().sum("packeteur_capture_total") > 0, f"{program.name} has measured nothing")
        program.stop()


def talk(scene):
    """A ping, datagrams, a connection."""
    scene.home.run("ping", "-q", "-c", "3", "-i", "0.02", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as connection:
            peer, _ = server.accept()
            with peer:
                connection.sendall(b"hello")
                equal(peer.recv(5), b"hello", "what arrives")


def test_prometheus_scrapes_it(scene):
    """Prometheus itself, with a capture as its target: the target is up, and has its packets."""
    scene.need("prometheus")
    capture = scene.observe(filter="icmp").ready()
    port = scene.home.free_port()
    config = f"""
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: pcktr
    static_configs: [{{targets: ["127.0.0.1:{capture.metrics_port()}"]}}]
"""
    scene.start(
        "prometheus",
        "prometheus",
        f"--config.file={scene.write('prometheus.yml', config.encode())}",
        f"--storage.tsdb.path={scene.path('data')}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    scene.home.run("ping", "-q", "-c", "3", "-i", "0.02", "127.0.0.1")

    def value(query):
        try:
            answer = http.get(scene.home, port, f"/api/v1/query?query={query}")
        except (ConnectionError, OSError):
            return None
        found = re.search(r'"value":\[[\d.]+,"([^"]+)"\]', answer.text)
        return found and found.group(1)

    until(lambda: value("packeteur_capture_total%7Baddress_family%3D%22IPv4%22%7D") == "6", "six packets", 30)
    equal(value("up"), "1", "whether the target is up")


def test_metrics_file(scene):
    """METRICS_FILE holds at the end what was last to be seen on /metrics, and is never there in part."""
    path = scene.write("in.pcap", pcap.encode(frames.packets(100)))
    observe = scene.observe(read_file=path, metrics_addrport="off")
    observe.wait()
    equal(observe.last_metrics().sum("packeteur_capture_total"), 100, "packets")
    nowhere = scene.observe("nowhere", read_file=path, metrics_file="/nowhere/at/all.prom")
    nowhere.process.wait(10)
    check("/nowhere/at/all.prom" in nowhere.log(), f"the log does not say that nothing was written: {nowhere.log()}")
    left = [name for name in os.listdir(scene.directory) if ".prom" in name]
    equal(left, ["observe.prom"], "files of metrics")
