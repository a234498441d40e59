"""The observers on real traffic: flows, streams, pairs; and TZSP, from a socket and from the wire."""

import socket
import threading

from harness import frames
from harness.host import Host, join
from harness.ledger import Account, nothing_lost
from harness.outcome import check, equal, until

# What MikroTik's sniffer writes in front of an Ethernet frame: version 1, a received packet, Ethernet, no tags.
TZSP = bytes.fromhex("0100000101")


def test_a_connection(scene):
    """A connection between two hosts, of which one end is observed: bytes and states of both directions, the flows,
    and the pair, also at a collector, where the series say which source they are of."""
    other = Host("other")
    join(scene.home, "near", other, "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, observe="all")
    capture = scene.capture(device="near", filter="tcp", relay_endpoint=endpoint).ready().connected()
    observe = scene.observe(device="near", filter="tcp").ready()
    asked, answered = 10_000, 250_000
    ports = exchange(scene.home, other, "10.8.0.2", asked, answered)
    for program in (observe, collect):

        def finished(program=program):
            states = program.metrics().values("tcp_bytes_transferred_total", state="finalized")
            return sorted(states) == [asked, answered]

        until(finished, f"both directions have ended, as {program.name} sees them")
        metrics = program.metrics()
        there = {"src_ip": "10.8.0.1", "src_port": str(ports[0]), "dst_ip": "10.8.0.2", "dst_port": str(ports[1])}
        equal(metrics.one("tcp_bytes_transferred_total", **there), asked, "bytes asked")
        equal(metrics.one("tcp_resets_total", **there), 0, "resets")
        equal(metrics.one("tcp_stream_health_score", **there) > 0, True, "health")
        pair = {"srcIp": "10.8.0.1", "dstIp": "10.8.0.2", "deviceName": "near"}
        equal(metrics.one("window_scale_metric", **pair), 1, "segments with a window scale")
        flow = {"from": "10.8.0.2", "from_type": "private", "to": "10.8.0.1", "to_type": "private", "protocol": "tcp"}
        flowed = metrics.one("packeteur_flow_bytes_total", device="near", **flow)
        check(answered < flowed < answered * 1.1, f"{flowed} bytes flowed back")
    label = {"source": "capture", "device": "near"}
    equal(len(collect.metrics().values("tcp_bytes_transferred_total", **label)), 2, "streams with a source")
    capture.stop()
    observe.stop()
    collect.stop()


def exchange(host, other, address, asked, answered):
    """A connection on which so many bytes go there, and so many come back. Returns its two ports."""
    with other.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                receive(connection, asked)
                connection.sendall(bytes(answered))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with host.connect(address, listener.getsockname()[1]) as connection:
            connection.sendall(bytes(asked))
            receive(connection, answered)
            thread.join()
            return connection.getsockname()[1], connection.getpeername()[1]


def receive(connection, length):
    while length:
        length -= len(connection.recv(length))


def test_tzsp_to_a_socket(scene):
    """Two ports, datagrams that carry a packet, some that need not, some that are wrong: flows as the exporter for
    TZSP had them, and each datagram counted."""
    ports = [scene.home.free_port(), scene.home.free_port()]
    observe = scene.observe(tzsp_port=",".join(map(str, ports)), observe="flows,sizes").ready()
    with scene.home.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        for number in range(20):
            router.sendto(TZSP + frames.frame(4 * number, 100), ("127.0.0.1", ports[0]))
        router.sendto(TZSP + frames.frame(3, 100), ("127.0.0.1", ports[1]))
        # A keepalive, which carries nothing; a version that there is not; tags without an end.
        for wrong in (b"\1\4\0\0", b"\7\0\0\1\1", b"\1\0\0\1\x0a\xff"):
            router.sendto(wrong, ("127.0.0.1", ports[1]))
    observe.wait_for_metric("packeteur_tzsp_datagrams_total", 4, listen_port=str(ports[1]))
    observe.wait_for_metric("packeteur_capture_total", 21)
    metrics = observe.metrics()
    flow = {
        "from": "192.0.2.1",
        "from_type": "public",
        "to": "198.51.100.2",
        "to_type": "public",
        "protocol": "udp",
        "listen_port": str(ports[0]),
    }
    equal(metrics.one("tzsp_observed_packets_total", **flow), 20, "packets")
    # The inner IP header's total length.
    equal(metrics.one("tzsp_observed_bytes_total", **flow), 20 * 128, "bytes")
    equal(metrics.sum("tzsp_observed_packets_total", listen_port=str(ports[1])), 1, "packets on the other port")
    errors = {
        reason: metrics.sum("packeteur_tzsp_errors_total", listen_port=str(ports[1]), reason=reason)
        for reason in ("version", "tags", "header", "type", "encapsulation", "empty")
    }
    equal({r for r, count in errors.items() if count}, {"version", "tags"}, f"errors counted: {errors}")
    equal(metrics.sum("packeteur_tzsp_idle_total", listen_port=str(ports[1])), 1, "keepalives")
    observe.stop()


def test_tzsp_relayed(scene):
    """A capture that receives TZSP relays the packets that came in it, whole; their source is the router."""
    endpoint = scene.endpoint()
    port = scene.home.free_port()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = scene.capture(tzsp_port=str(port), relay_endpoint=endpoint).ready().connected()
    sent = [frames.frame(number, 60 + number) for number in range(300)]
    with scene.home.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        for data in sent:
            router.sendto(TZSP + data, ("127.0.0.1", port))
    collect.wait_for_metric("packeteur_source_received_packets_total", 300, listen_port=str(port))
    capture.stop()
    collect.wait()
    equal([packet.data for packet in scene.packets(collect)], sent, "packets")
    account = Account(collect.last_metrics(), source="capture", device="127.0.0.1", listen_port=str(port))
    account.check_sums()
    nothing_lost(account)


def test_tzsp_from_the_wire(scene):
    """With DEVICE the datagrams are read from the wire, where nobody listens, and put together where a full frame
    made two fragments of one."""
    router = Host("router")
    join(scene.home, "near", router, "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = scene.capture(device="near", tzsp_port="37008", relay_endpoint=endpoint).ready().connected()
    sent = [frames.frame(0, 60), frames.frame(4, 1472), frames.frame(8, 700)]
    check(len(sent[1]) == 1514, "a full frame")
    with router.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in sent:
            try:
                sender.sendto(TZSP + data, ("10.8.0.1", 37008))
            except ConnectionRefusedError:
                # Nobody listens, as an earlier answer says. This one was not sent.
                sender.sendto(TZSP + data, ("10.8.0.1", 37008))
    collect.wait_for_metric("packeteur_source_received_packets_total", 3, listen_port="37008")
    capture.stop()
    collect.wait()
    equal([packet.data for packet in scene.packets(collect)], sent, "packets")
