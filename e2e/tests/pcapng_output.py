"""OUTPUT_FORMAT=pcapng, as Wireshark and tcpdump read it."""

import fcntl
import struct

from testkit.frames import address, ping4
from testkit.host import Host, join
from testkit.outcome import check, equal

RECEIVED, DROPPED_INTERFACE, DROPPED_SYSTEM, DELIVERED = 4, 5, 7, 8


def two_captures(testbed, **settings):
    """Captures two hosts that ping each other, as pcapng. Returns the collector."""
    one, two = testbed.lan("one", "two")
    one.run("ip", "link", "set", "eth0", "alias", "uplink of one")
    endpoint = testbed.endpoint("10.9.0.100")
    collect = testbed.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    captures = [
        testbed.capture(host.name, host, device="eth0", filter="icmp", relay_endpoint=endpoint, **settings).ready()
        for host in (one, two)
    ]
    one.run("ping", "-q", "-c", "4", "-i", "0.02", "10.9.0.2")
    collect.wait_for_metric("packeteur_source_received_packets_total", 16)
    for capture in captures:
        capture.stop()
    collect.wait()
    return collect


def test_interfaces_and_statistics(testbed):
    """Each source and device has an interface with name, filter, link type, snaplen, and statistics."""
    collect = two_captures(testbed)
    file = testbed.capture_file(collect)
    equal(len(file.packets), 16, "packets")
    for number, interface in enumerate(file.interfaces):
        check(interface.name in ("one/eth0", "two/eth0"), f"unexpected interface {interface.name}")
        equal((interface.link_type, interface.snaplen), (1, 262144), "link type and snaplen")
        equal(interface.filter, "icmp", "filter")
        counts = file.statistics[number]
        expected = {RECEIVED: 8, DROPPED_INTERFACE: 0, DROPPED_SYSTEM: 0, DELIVERED: 8}
        equal({code: counts[code] for code in expected}, expected, f"statistics of {interface.name}")


def test_tshark_shows_the_interfaces(testbed):
    """tshark shows the interface of each packet, and capinfos lists the interfaces."""
    collect = two_captures(testbed)
    fields = ("-T", "fields", "-e", "frame.interface_name", "-e", "icmp.seq")
    shown = testbed.run("tshark", "-n", "-r", collect.stdout_path, *fields)
    rows = sorted(line.split("\t") for line in shown.splitlines())
    # Four requests and four replies, on both hosts.
    expected = [[name, str(seq)] for name in ("one/eth0", "two/eth0") for seq in (1, 1, 2, 2, 3, 3, 4, 4)]
    equal(rows, expected, "interface and sequence number of each packet")
    about = testbed.run("capinfos", collect.stdout_path)
    interfaces = ("Number of interfaces in file: 2", "Name = one/eth0", "Name = two/eth0", "Filter string = icmp")
    for part in ("Number of packets:   16", *interfaces):
        check(part in about, f"capinfos does not say `{part}`: {about}")


def test_tcpdump_accepts_it(testbed):
    """`tcpdump -r -` reads it, although interfaces were added between packets and snaplens differ from the default."""
    collect = two_captures(testbed, snaplen="96")
    shown = testbed.run("tcpdump", "-n", "-r", "-", data=collect.output())
    equal(len(shown.splitlines()), 16, "packets printed by tcpdump")


def test_description(testbed):
    """The interface has libpcap's description of the device."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    capture = testbed.capture(device="any", relay_endpoint=endpoint).ready().connected()
    collect.wait_for_log("new source")
    capture.stop()
    collect.wait()
    described = [(i.name, i.description) for i in testbed.capture_file(collect).interfaces]
    equal(described, [("capture/any", "Pseudo-device that captures on all interfaces")], "interfaces")


def test_two_link_types(testbed):
    """An Ethernet device and a tunnel: both link types are in the file."""
    join(testbed.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    testbed.home.run("ip", "tuntap", "add", "tun7", "mode", "tun")
    testbed.home.run("ip", "address", "add", "10.7.0.1/24", "dev", "tun7")
    testbed.home.run("ip", "link", "set", "tun7", "up")
    # The tunnel has a carrier only while it is open.
    with open("/dev/net/tun", "r+b", buffering=0) as tunnel:
        attach(tunnel, b"tun7")
        endpoint = testbed.endpoint()
        collect = testbed.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
        capture = testbed.capture(device="near,tun7", filter="icmp", relay_endpoint=endpoint).ready().connected()
        testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.0.2")
        packet = ping4(address("10.7.0.2"), address("10.7.0.1"))
        tunnel.write(packet)
        collect.wait_for_metric("packeteur_source_received_packets_total", 5)
        capture.stop()
    collect.wait()
    file = testbed.capture_file(collect)
    types = {interface.name: interface.link_type for interface in file.interfaces}
    equal(types, {"capture/near": 1, "capture/tun7": 101}, "link types")
    check(packet in [p.data for p in file.packets if p.link_type == 101], "the tunnel's packet is missing")
    equal(len([p for p in file.packets if p.link_type == 1]), 4, "packets on Ethernet")


def attach(tunnel, name):
    """Attaches an open /dev/net/tun to a device, without packet headers (TUNSETIFF in linux/if_tun.h)."""
    iff_tun, iff_no_pi, tunsetiff = 0x0001, 0x1000, 0x400454CA
    fcntl.ioctl(tunnel, tunsetiff, struct.pack("16sH22x", name, iff_tun | iff_no_pi))
