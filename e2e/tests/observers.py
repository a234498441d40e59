"""The observers on real traffic: flows, streams, pairs; and TZSP, from a socket and from a device."""

import socket
import threading

from testkit import frames
from testkit.host import Host, join
from testkit.ledger import Account, nothing_lost
from testkit.outcome import check, equal, until

# The TZSP header of MikroTik's sniffer: version 1, received packet, Ethernet; then the end tag.
TZSP = bytes.fromhex("0100000101")


def test_tcp_connection(testbed):
    """Observes one end of a TCP connection: bytes and states of both directions, the flow, and the pair. A collector
    has the same series with a source label."""
    other = Host("other")
    join(testbed.home, "near", other, "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, observe="all")
    capture = testbed.capture(device="near", filter="tcp", relay_endpoint=endpoint).ready().connected()
    observe = testbed.observe(device="near", filter="tcp").ready()
    request, response = 10_000, 250_000
    ports = exchange(testbed.home, other, "10.8.0.2", request, response)
    for program in (observe, collect):

        def finished(program=program):
            states = program.metrics().values("tcp_bytes_transferred_total", state="finalized")
            return sorted(states) == [request, response]

        until(finished, f"{program.name} has not seen both directions end")
        metrics = program.metrics()
        stream = {"src_ip": "10.8.0.1", "src_port": str(ports[0]), "dst_ip": "10.8.0.2", "dst_port": str(ports[1])}
        equal(metrics.one("tcp_bytes_transferred_total", **stream), request, "bytes of the request")
        equal(metrics.one("tcp_resets_total", **stream), 0, "resets")
        check(metrics.one("tcp_stream_health_score", **stream) > 0, "the health score is 0")
        pair = {"srcIp": "10.8.0.1", "dstIp": "10.8.0.2", "deviceName": "near"}
        equal(metrics.one("window_scale_metric", **pair), 1, "segments with a window scale")
        flow = {"from": "10.8.0.2", "from_type": "private", "to": "10.8.0.1", "to_type": "private", "protocol": "tcp"}
        size = metrics.one("packeteur_flow_bytes_total", device="near", **flow)
        check(response < size < response * 1.1, f"the flow of the response has {size} bytes")
    label = {"source": "capture", "device": "near"}
    equal(len(collect.metrics().values("tcp_bytes_transferred_total", **label)), 2, "streams with a source")
    capture.stop()
    observe.stop()
    collect.stop()


def exchange(host, other, address, request, response):
    """Sends `request` bytes on a TCP connection, and `response` bytes back. Returns its two ports."""
    with other.open_socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                receive(connection, request)
                connection.sendall(bytes(response))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with host.connect(address, listener.getsockname()[1]) as connection:
            connection.sendall(bytes(request))
            receive(connection, response)
            thread.join()
            return connection.getsockname()[1], connection.getpeername()[1]


def receive(connection, length):
    while length:
        length -= len(connection.recv(length))


def test_tzsp_to_a_socket(testbed):
    """TZSP on two ports, with keepalives and invalid datagrams: each is counted, and the flows have the metrics of
    tzsp_packetstream_exporter."""
    ports = [testbed.home.free_port(), testbed.home.free_port()]
    observe = testbed.observe(tzsp_port=",".join(map(str, ports)), observe="flows,sizes").ready()
    with testbed.home.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        for number in range(20):
            router.sendto(TZSP + frames.frame(4 * number, 100), ("127.0.0.1", ports[0]))
        router.sendto(TZSP + frames.frame(3, 100), ("127.0.0.1", ports[1]))
        # A keepalive, which has no packet; an unknown version; tags without an end tag.
        for datagram in (b"\1\4\0\0", b"\7\0\0\1\1", b"\1\0\0\1\x0a\xff"):
            router.sendto(datagram, ("127.0.0.1", ports[1]))
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
    # Bytes are the total length of the inner IP header.
    equal(metrics.one("tzsp_observed_bytes_total", **flow), 20 * 128, "bytes")
    equal(metrics.sum("tzsp_observed_packets_total", listen_port=str(ports[1])), 1, "packets on the other port")
    errors = {
        reason: metrics.sum("packeteur_tzsp_errors_total", listen_port=str(ports[1]), reason=reason)
        for reason in ("version", "tags", "header", "type", "encapsulation", "empty")
    }
    equal({r for r, count in errors.items() if count}, {"version", "tags"}, f"errors counted: {errors}")
    equal(metrics.sum("packeteur_tzsp_keepalives_total", listen_port=str(ports[1])), 1, "keepalives")
    observe.stop()


def test_tzsp_relayed(testbed):
    """A capture relays the packets inside TZSP datagrams. Their source is the router."""
    endpoint = testbed.endpoint()
    port = testbed.home.free_port()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = testbed.capture(tzsp_port=str(port), relay_endpoint=endpoint).ready().connected()
    sent = [frames.frame(number, 60 + number) for number in range(300)]
    with testbed.home.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        for data in sent:
            router.sendto(TZSP + data, ("127.0.0.1", port))
    collect.wait_for_metric("packeteur_source_received_packets_total", 300, listen_port=str(port))
    capture.stop()
    collect.wait()
    equal([packet.data for packet in testbed.packets(collect)], sent, "packets")
    account = Account(collect.last_metrics(), source="capture", device="127.0.0.1", listen_port=str(port))
    account.check_sums()
    nothing_lost(account)


def test_tzsp_from_a_device(testbed):
    """With DEVICE, TZSP datagrams are captured, although no socket listens, and fragments are reassembled."""
    router = Host("router")
    join(testbed.home, "near", router, "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = testbed.capture(device="near", tzsp_port="37008", relay_endpoint=endpoint).ready().connected()
    sent = [frames.frame(0, 60), frames.frame(4, 1472), frames.frame(8, 700)]
    check(len(sent[1]) == 1514, "not a frame of full size")
    with router.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in sent:
            try:
                sender.sendto(TZSP + data, ("10.8.0.1", 37008))
            except ConnectionRefusedError:
                # The reply to an earlier datagram: the port is closed. This one was not sent.
                sender.sendto(TZSP + data, ("10.8.0.1", 37008))
    collect.wait_for_metric("packeteur_source_received_packets_total", 3, listen_port="37008")
    capture.stop()
    collect.wait()
    equal([packet.data for packet in testbed.packets(collect)], sent, "packets")
