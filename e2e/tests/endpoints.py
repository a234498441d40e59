"""Relay endpoints: every valid form, the defaults, and errors."""

import socket

from testkit import frames, isolation, pcap
from testkit.host import Host, join
from testkit.outcome import check, equal, until


def relay(testbed, name, collect_at, relay_to, host=None, **settings):
    """Relays a file from a capture to a collector at these endpoints."""
    packets = frames.packets(50)
    path = testbed.write(f"{name}.pcap", pcap.encode(packets))
    collect = testbed.collect(f"{name}-collect", collect_endpoint=collect_at, exit_on_end="true", **settings)
    capture = testbed.capture(f"{name}-capture", host, relay_endpoint=relay_to, read_file=path)
    capture.wait()
    collect.wait()
    equal(testbed.packets(collect), packets, f"packets from {relay_to} to {collect_at}")


def test_tcp_endpoints(testbed):
    """Names, addresses of both families, and wildcards: captures reach the collector on each of them."""
    other = Host("other")
    join(testbed.home, "near", other, "far", ("10.8.0.1/24", "10.8.0.2/24"))
    for number, (bind, to, host) in enumerate(
        (
            ("localhost", "localhost", None),
            ("127.0.0.1", "localhost", None),
            ("*", "10.8.0.1", other),
            ("*", "[::1]", None),
            ("[::]", "127.0.0.1", None),
            ("[::]", "[::1]", None),
            ("0.0.0.0", "10.8.0.1", other),
            ("10.8.0.1", "10.8.0.1", other),
            ("[::1]", "localhost", None),
        )
    ):
        port = testbed.home.free_port()
        if bind == "[::1]":
            add_ipv6_localhost(testbed)
        relay(testbed, f"tcp-{number}", f"tcp://{bind}:{port}", f"tcp://{to}:{port}", host)


def add_ipv6_localhost(testbed):
    isolation.replace_file("/etc/hosts", testbed.write("hosts", b"127.0.0.1 localhost\n::1 localhost\n"))


def test_ipc(testbed):
    """A socket in the file system, and one in the abstract namespace."""
    relay(testbed, "path", f"ipc://{testbed.path('relay.sock')}", f"ipc://{testbed.path('relay.sock')}")
    relay(testbed, "abstract", "ipc://@pcktr-e2e", "ipc://@pcktr-e2e")


def test_defaults(testbed):
    """By default capture and collector use tcp://localhost:7386 and port 9108 for metrics. Both ports are free in the
    test's network namespace. An empty setting means the default."""
    collect = testbed.collect(collect_endpoint="", metrics_addrport="")
    capture = testbed.capture(relay_endpoint="", device="", filter="icmp").ready().connected()
    equal(collect.metrics_port(), 9108, "metrics port")
    testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", "127.0.0.1")
    equal(len(testbed.wait_for_packets(collect, 4)), 4, "packets")
    capture.stop()
    collect.stop()


def test_several_endpoints(testbed):
    """A collector on several endpoints, with a capture on each."""
    ports = [testbed.home.free_port() for _ in range(2)]
    path = testbed.path("relay.sock")
    ends = [f"tcp://127.0.0.1:{ports[0]}", f"tcp://[::1]:{ports[1]}", f"ipc://{path}"]
    collect = testbed.collect(collect_endpoint=", ".join(ends), exit_on_end="true")
    # All three must be connected before the first ends: the collector exits when all known sources have ended.
    captures = [testbed.capture(f"to-{n}", filter="icmp", relay_endpoint=end).ready() for n, end in enumerate(ends)]
    until(lambda: collect.metrics().one("packeteur_collector_connections") == 3, "three connections")
    collect.wait_for_metric("packeteur_source_up", 3)
    testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", "127.0.0.1")
    for capture in captures:
        collect.wait_for_metric("packeteur_source_received_packets_total", 4, source=capture.name)
        capture.stop()
    collect.wait()
    equal(len(testbed.packets(collect)), 12, "packets")


def test_capture_starts_first(testbed):
    """A capture waits for a collector that starts later."""
    endpoint = testbed.endpoint()
    packets = frames.packets(100)
    capture = testbed.capture(relay_endpoint=endpoint, read_file=testbed.write("in.pcap", pcap.encode(packets)))
    capture.wait_for_log("end of file; waiting for the collector to receive the remaining packets")
    check(capture.is_running(), "the capture did not wait")
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture.wait()
    collect.wait()
    equal(testbed.packets(collect), packets, "packets")


def test_port_in_use(testbed):
    """A relay or metrics port in use: exit code 1. The message names setting, endpoint and remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, settings, message in (
            *(
                (name, {"collect_endpoint": endpoint}, f"COLLECT_ENDPOINT: `{endpoint}` is in use")
                for name, endpoint in (("one", f"tcp://127.0.0.1:{port}"), ("every", f"tcp://*:{port}"))
            ),
            (
                "metrics",
                {"collect_endpoint": testbed.endpoint(), "metrics_addrport": f"127.0.0.1:{port}"},
                f"METRICS_ADDRPORT: cannot listen on `127.0.0.1:{port}`: Address already in use",
            ),
        ):
            collect = testbed.pcktr(name, mode="collect", **settings)
            collect.wait(code=1)
            check(message in collect.log() and "another port" in collect.log(), collect.log())
            equal(collect.output(), b"", "standard output")


def test_address_not_available(testbed):
    """An address that this host does not have: exit code 1."""
    collect = testbed.pcktr("collect", mode="collect", collect_endpoint="tcp://192.0.2.77:7386")
    collect.wait(code=1)
    check("COLLECT_ENDPOINT: cannot listen at `tcp://192.0.2.77:7386`" in collect.log(), collect.log())


def test_invalid_endpoints(testbed):
    """An invalid endpoint is rejected before anything is opened: exit code 64."""
    for number, (setting, value, why) in enumerate(
        (
            ("relay_endpoint", "localhost:7386", "is not a valid endpoint"),
            ("relay_endpoint", "tcp://localhost", "has no port"),
            ("relay_endpoint", "tcp://localhost:99999", "99999"),
            ("relay_endpoint", "udp://localhost:7386", "has an unknown transport `udp`"),
            ("relay_endpoint", "tcp://*:7386", "names no host to send to"),
            ("relay_endpoint", "tcp://::1:7386", "lacks brackets"),
            ("collect_endpoint", "tcp://127.0.0.1:7386,nonsense", "is not a valid endpoint"),
            ("collect_endpoint", "ipc://" + "x" * 200, "is too long"),
        )
    ):
        mode = "collect" if setting.startswith("collect") else "capture"
        program = testbed.pcktr(f"invalid-{number}", mode=mode, **{setting: value})
        program.wait(code=64)
        log = program.log()
        check(log.startswith(f"{setting.upper()}: `{value}` ") and why in log, log)
        equal((log.count("\n"), program.output()), (1, b""), "lines, and standard output")
