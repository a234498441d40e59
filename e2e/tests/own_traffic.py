"""A capture excludes its own relay connection, and nothing else."""

import socket
import struct

from testkit import isolation, traffic
from testkit.host import Host, join
from testkit.outcome import check, equal


def addresses(packet):
    """Protocol, addresses and ports of a packet on Ethernet."""
    kind = struct.unpack_from("!H", packet.data, 12)[0]
    if kind == 0x0800:
        protocol, source, target = packet.data[23], packet.data[26:30], packet.data[30:34]
        family, at = socket.AF_INET, 14 + 4 * (packet.data[14] & 0xF)
    elif kind == 0x86DD:
        protocol, source, target = packet.data[20], packet.data[22:38], packet.data[38:54]
        family, at = socket.AF_INET6, 54
    else:
        return None
    ports = struct.unpack_from("!HH", packet.data, at) if protocol in (6, 17) else (0, 0)
    return protocol, socket.inet_ntop(family, source), socket.inet_ntop(family, target), ports


def relayed(packets, port):
    """The packets that may belong to the relay: TCP with its port."""
    found = [addresses(packet) for packet in packets]
    return [a for a in found if a and a[0] == 6 and port in a[3]]


def port_of(endpoint):
    return int(endpoint.rpartition(":")[2])


def test_on_lo(testbed):
    """On `lo`, which the relay uses too, with several filters: the output has pings and none of the relay's packets."""
    for name, expression in (
        ("all", None),
        ("or", "icmp or tcp"),
        ("not", "not udp or tcp port 1"),
        # All that follows `mpls` applies to what is inside of MPLS.
        ("mpls", "icmp or tcp or mpls"),
    ):
        endpoint = testbed.endpoint("127.0.0.1")
        collect = testbed.collect(f"collect-{name}", collect_endpoint=endpoint, metrics_addrport="127.0.0.1:0")
        # Do not scrape meanwhile: that would be traffic too.
        capture = testbed.capture(name, filter=expression, relay_endpoint=endpoint).ready().connected()
        testbed.home.run("ping", "-q", "-c", "20", "-i", "0.05", "127.0.0.1")
        packets = testbed.wait_for_packets(collect, 40)
        capture.stop()
        equal(relayed(packets, port_of(endpoint)), [], f"packets of the relay (filter: {expression})")
        equal(len(packets), 40, f"packets (filter: {expression})")
        collect.stop()


def test_other_traffic_on_the_same_port(testbed):
    """UDP on the relay's port, and TCP on that port of another address, are captured."""
    endpoint = testbed.endpoint("127.0.0.1")
    port = port_of(endpoint)
    collect = testbed.collect(collect_endpoint=endpoint)
    capture = testbed.capture(filter=f"port {port}", relay_endpoint=endpoint).ready().connected()
    with traffic.sink(testbed.home, "127.0.0.1", port):
        traffic.burst(testbed.home, "127.0.0.1", port, 5)
    with socket.create_server(("127.0.0.2", port)), socket.create_connection(("127.0.0.2", port)):
        pass
    packets = [addresses(packet) for packet in testbed.wait_for_packets(collect, 5 + 3)]
    capture.stop()
    collect.stop()
    equal([p for p in packets if p[0] == 17 and p[3][1] == port], packets[:5], "datagrams")
    check(all("127.0.0.2" in p[1:3] for p in packets[5:]), f"not only TCP of the other address: {packets[5:]}")


def test_localhost_of_two_families(testbed):
    """`localhost` is 127.0.0.1 and ::1. With a collector on either or both, the relay's packets are excluded."""
    hosts = testbed.write("hosts", b"127.0.0.1 localhost\n::1 localhost\n")
    isolation.replace_file("/etc/hosts", hosts)
    for name, bind in (("both", "localhost"), ("four", "127.0.0.1"), ("six", "[::1]")):
        port = testbed.home.free_port()
        collect = testbed.collect(f"collect-{name}", collect_endpoint=f"tcp://{bind}:{port}")
        capture = testbed.capture(name, relay_endpoint=f"tcp://localhost:{port}").ready().connected()
        for target in ("127.0.0.1", "::1"):
            testbed.home.run("ping", "-q", "-c", "5", "-i", "0.05", target)
        packets = testbed.wait_for_packets(collect, 20)
        capture.stop()
        collect.stop()
        equal(relayed(packets, port), [], f"packets of the relay (collector on {bind})")


def test_name_of_several_addresses(testbed):
    """Only the last address of a name has a collector: the capture connects there, and excludes that connection."""
    join(testbed.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    other = Host("third")
    join(testbed.home, "near2", other, "far", ("10.8.1.1/24", "10.8.1.2/24"))
    hosts = testbed.write("hosts", b"10.8.0.2 collector.test\n10.8.1.2 collector.test\n")
    isolation.replace_file("/etc/hosts", hosts)
    port = other.free_port()
    collect = testbed.collect(host=other, collect_endpoint=f"tcp://10.8.1.2:{port}")
    capture = (
        testbed.capture(device="near,near2", filter="tcp or icmp", relay_endpoint=f"tcp://collector.test:{port}")
        .ready()
        .connected()
    )
    for target in ("10.8.0.2", "10.8.1.2"):
        testbed.home.run("ping", "-q", "-c", "5", "-i", "0.05", target)
    packets = testbed.wait_for_packets(collect, 20)
    capture.stop()
    collect.stop()
    equal([a for a in relayed(packets, port) if "10.8.1.2" in a[1:3]], [], "packets of the relay")
    icmp = [a for a in map(addresses, packets) if a and a[0] == 1]
    equal(len(icmp), 20, "packets of the pings")


def test_two_captures_of_one_host(testbed):
    """Each capture excludes both connections: they go to the same collector."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint)
    captures = [testbed.capture(name, relay_endpoint=endpoint).ready().connected() for name in ("one", "two")]
    testbed.home.run("ping", "-q", "-c", "5", "-i", "0.05", "127.0.0.1")
    packets = testbed.wait_for_packets(collect, 20)
    for capture in captures:
        capture.stop()
    collect.stop()
    equal(relayed(packets, port_of(endpoint)), [], "packets of the relay")
