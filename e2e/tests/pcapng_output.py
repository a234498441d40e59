"""OUTPUT_FORMAT=pcapng, as Wireshark and tcpdump read it."""

import fcntl
import struct

from harness.frames import ping4
from harness.host import Host, join
from harness.outcome import check, equal

RECEIVED, DROPPED_INTERFACE, DROPPED_SYSTEM, DELIVERED = 4, 5, 7, 8


def two_captures(scene, **settings):
    """The pcapng of two hosts that ping each other."""
    one, two = scene.lan("one", "two")
    one.run("ip", "link", "set", "eth0", "alias", "uplink of one")
    endpoint = scene.endpoint("10.9.0.100")
    collect = scene.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    captures = [
        scene.capture(host.name, host, device="eth0", filter="icmp", relay_endpoint=endpoint, **settings).ready()
        for host in (one, two)
    ]
    one.run("ping", "-q", "-c", "4", "-i", "0.02", "10.9.0.2")
    collect.wait_for_metric("packeteur_source_received_packets_total", 16)
    for capture in captures:
        capture.stop()
    collect.wait()
    return collect


def test_interfaces_and_statistics(scene):
    """An interface for each source and device: name, filter, link type, snaplen; statistics with the ledger."""
    collect = two_captures(scene)
    file = scene.capture_file(collect)
    equal(len(file.packets), 16, "packets")
    for number, interface in enumerate(file.interfaces):
        check(interface.name in ("one/eth0", "two/eth0"), f"the name {interface.name}")
        equal((interface.link_type, interface.snaplen), (1, 262144), "link type and snaplen")
        equal(interface.filter, "icmp", "filter")
        counts = file.statistics[number]
        expected = {RECEIVED: 8, DROPPED_INTERFACE: 0, DROPPED_SYSTEM: 0, DELIVERED: 8}
        equal({code: counts[code] for code in expected}, expected, f"statistics of {interface.name}")


def test_tshark_shows_the_interfaces(scene):
    """tshark knows of each packet where it was captured; capinfos reads the whole file."""
    collect = two_captures(scene)
    fields = ("-T", "fields", "-e", "frame.interface_name", "-e", "icmp.seq")
    shown = scene.run("tshark", "-n", "-r", collect.stdout_path, *fields)
    rows = sorted(line.split("\t") for line in shown.splitlines())
    # Each of four requests and four answers, on both hosts.
    expected = [[name, str(seq)] for name in ("one/eth0", "two/eth0") for seq in (1, 1, 2, 2, 3, 3, 4, 4)]
    equal(rows, expected, "interface and sequence number of each packet")
    about = scene.run("capinfos", collect.stdout_path)
    interfaces = ("Number of interfaces in file: 2", "Name = one/eth0", "Name = two/eth0", "Filter string = icmp")
    for part in ("Number of packets:   16", *interfaces):
        check(part in about, f"capinfos does not say `{part}`: {about}")


def test_tcpdump_accepts_it(scene):
    """`tcpdump -r -` reads it, although its interfaces came one after the other, and its sources have other
    snaplens."""
    collect = two_captures(scene, snaplen="96")
    # Of several interfaces libpcap makes one stream.
    shown = scene.run("tcpdump", "-n", "-r", "-", data=collect.output())
    equal(len(shown.splitlines()), 16, "packets that tcpdump shows")


def test_description(scene):
    """A device that libpcap can describe keeps its description."""
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    capture = scene.capture(device="any", relay_endpoint=endpoint).ready().connected()
    collect.wait_for_log("a source came")
    capture.stop()
    collect.wait()
    described = [(i.name, i.description) for i in scene.capture_file(collect).interfaces]
    equal(described, [("capture/any", "Pseudo-device that captures on all interfaces")], "interfaces")


def test_a_tunnel_beside_ethernet(scene):
    """Two link types at once: both are there, which classic pcap could not hold."""
    join(scene.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    scene.home.run("ip", "tuntap", "add", "tun7", "mode", "tun")
    scene.home.run("ip", "address", "add", "10.7.0.1/24", "dev", "tun7")
    scene.home.run("ip", "link", "set", "tun7", "up")
    # Somebody has to hold the tunnel open, or it has no carrier; to receive through it is not needed.
    with open("/dev/net/tun", "r+b", buffering=0) as tunnel:
        attach(tunnel, b"tun7")
        endpoint = scene.endpoint()
        collect = scene.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
        capture = scene.capture(device="near,tun7", filter="icmp", relay_endpoint=endpoint).ready().connected()
        scene.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.0.2")
        packet = ping4("10.7.0.2", "10.7.0.1")
        tunnel.write(packet)
        collect.wait_for_metric("packeteur_source_received_packets_total", 5)
        capture.stop()
    collect.wait()
    file = scene.capture_file(collect)
    types = {interface.name: interface.link_type for interface in file.interfaces}
    equal(types, {"capture/near": 1, "capture/tun7": 101}, "link types")
    check(packet in [p.data for p in file.packets if p.link_type == 101], "the tunnel's packet is missing")
    equal(len([p for p in file.packets if p.link_type == 1]), 4, "packets on Ethernet")


def attach(tunnel, name):
    """Makes an open /dev/net/tun the other end of a device: TUNSETIFF of linux/if_tun.h, packets without a header."""
    iff_tun, iff_no_pi, tunsetiff = 0x0001, 0x1000, 0x400454CA
    fcntl.ioctl(tunnel, tunsetiff, struct.pack("16sH22x", name, iff_tun | iff_no_pi))
