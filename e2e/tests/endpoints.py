"""Where the two sides meet: every form of endpoint, and those that are none."""

import socket

from harness import frames, isolation, pcap
from harness.host import Host, join
from harness.outcome import check, equal, until


def meet(scene, name, collect_at, relay_to, host=None, **settings):
    """A collector and a capture of a file, which must meet."""
    packets = frames.packets(50)
    path = scene.write(f"{name}.pcap", pcap.encode(packets))
    collect = scene.collect(f"{name}-collect", collect_endpoint=collect_at, exit_on_end="true", **settings)
    capture = scene.capture(f"{name}-capture", host, relay_endpoint=relay_to, read_file=path)
    capture.wait()
    collect.wait()
    equal(scene.packets(collect), packets, f"packets by way of {relay_to} to {collect_at}")


def test_forms_of_tcp(scene):
    """Names, addresses of both families, all addresses: a collector on each is reached by those that it should be."""
    other = Host("other")
    join(scene.home, "near", other, "far", ("10.8.0.1/24", "10.8.0.2/24"))
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
        port = scene.home.free_port()
        if bind == "[::1]":
            hosts_with_two_localhosts(scene)
        meet(scene, f"tcp-{number}", f"tcp://{bind}:{port}", f"tcp://{to}:{port}", host)


def hosts_with_two_localhosts(scene):
    isolation.replace_file("/etc/hosts", scene.write("hosts", b"127.0.0.1 localhost\n::1 localhost\n"))


def test_ipc(scene):
    """A socket in the file system, and one in the abstract namespace."""
    meet(scene, "path", f"ipc://{scene.path('relay.sock')}", f"ipc://{scene.path('relay.sock')}")
    meet(scene, "abstract", "ipc://@pcktr-e2e", "ipc://@pcktr-e2e")


def test_defaults(scene):
    """Capture and collector meet at tcp://localhost:7386, and serve metrics on port 9108, where nothing is said: here
    nobody else is who could have these ports. Empty means the default."""
    collect = scene.collect(collect_endpoint="", metrics_addrport="")
    capture = scene.capture(relay_endpoint="", device="", filter="icmp").ready().connected()
    equal(collect.metrics_port(), 9108, "port of the metrics")
    scene.home.run("ping", "-q", "-c", "2", "-i", "0.02", "127.0.0.1")
    equal(len(scene.wait_for_packets(collect, 4)), 4, "packets")
    capture.stop()
    collect.stop()


def test_several_endpoints(scene):
    """A collector on several endpoints; a capture for each."""
    ports = [scene.home.free_port() for _ in range(2)]
    path = scene.path("relay.sock")
    ends = [f"tcp://127.0.0.1:{ports[0]}", f"tcp://[::1]:{ports[1]}", f"ipc://{path}"]
    collect = scene.collect(collect_endpoint=", ".join(ends), exit_on_end="true")
    # All three have to be there before the first has ended, or the collector would end with it.
    captures = [scene.capture(f"to-{n}", filter="icmp", relay_endpoint=end).ready() for n, end in enumerate(ends)]
    until(lambda: collect.metrics().one("packeteur_collect_connections") == 3, "three connections")
    collect.wait_for_metric("packeteur_source_up", 3)
    scene.home.run("ping", "-q", "-c", "2", "-i", "0.02", "127.0.0.1")
    for capture in captures:
        collect.wait_for_metric("packeteur_source_received_packets_total", 4, source=capture.name)
        capture.stop()
    collect.wait()
    equal(len(scene.packets(collect)), 12, "packets")


def test_either_side_first(scene):
    """A capture that starts long before its collector."""
    endpoint = scene.endpoint()
    packets = frames.packets(100)
    capture = scene.capture(relay_endpoint=endpoint, read_file=scene.write("in.pcap", pcap.encode(packets)))
    capture.wait_for_log("all packets are read; waiting for the collector")
    check(capture.process.poll() is None, "the capture did not wait")
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture.wait()
    collect.wait()
    equal(scene.packets(collect), packets, "packets")


def test_port_in_use(scene):
    """Setting, endpoint, remedy; exit code 1; for the relay's port and for that of the metrics."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, settings, said in (
            *(
                (name, {"collect_endpoint": endpoint}, f"COLLECT_ENDPOINT: `{endpoint}` is in use")
                for name, endpoint in (("one", f"tcp://127.0.0.1:{port}"), ("every", f"tcp://*:{port}"))
            ),
            (
                "metrics",
                {"collect_endpoint": scene.endpoint(), "metrics_addrport": f"127.0.0.1:{port}"},
                f"METRICS_ADDRPORT: can't listen on `127.0.0.1:{port}`: Address already in use",
            ),
        ):
            collect = scene.pcktr(name, mode="collect", **settings)
            collect.wait(code=1)
            check(said in collect.log() and "another port" in collect.log(), collect.log())
            equal(collect.output(), b"", "standard output")


def test_address_of_another_machine(scene):
    """An address that this machine has not got: an error with exit code 1."""
    collect = scene.pcktr("collect", mode="collect", collect_endpoint="tcp://192.0.2.77:7386")
    collect.wait(code=1)
    check("COLLECT_ENDPOINT: cannot listen at `tcp://192.0.2.77:7386`" in collect.log(), collect.log())


def test_no_endpoint(scene):
    """What is no endpoint is refused before anything opens: exit code 64."""
    for number, (setting, value, why) in enumerate(
        (
            ("relay_endpoint", "localhost:7386", "is no endpoint"),
            ("relay_endpoint", "tcp://localhost", "has no port"),
            ("relay_endpoint", "tcp://localhost:99999", "99999"),
            ("relay_endpoint", "udp://localhost:7386", "has an unknown transport `udp`"),
            ("relay_endpoint", "tcp://*:7386", "names no host to send to"),
            ("relay_endpoint", "tcp://::1:7386", "lacks brackets"),
            ("collect_endpoint", "tcp://127.0.0.1:7386,nonsense", "is no endpoint"),
            ("collect_endpoint", "ipc://" + "x" * 200, "is too long"),
        )
    ):
        mode = "collect" if setting.startswith("collect") else "capture"
        program = scene.pcktr(f"wrong-{number}", mode=mode, **{setting: value})
        program.wait(code=64)
        log = program.log()
        check(log.startswith(f"{setting.upper()}: `{value}` ") and why in log, log)
        equal((log.count("\n"), program.output()), (1, b""), "lines, and standard output")
