"""Capture devices: `any`, several, removed, unknown, and not permitted."""

import os
import shutil
import struct

from testkit import pcapng, traffic
from testkit.build import PCKTR
from testkit.host import Host, join
from testkit.ledger import Account, nothing_lost
from testkit.outcome import Skipped, check, equal, until


def test_any_keeps_interface_indices(testbed):
    """With `any`, the link type LINUX_SLL2 carries the interface index of each packet."""
    join(testbed.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = testbed.capture(device="any", filter="icmp", relay_endpoint=endpoint).ready().connected()
    testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.0.2")
    testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", "127.0.0.1")
    collect.wait_for_metric("packeteur_source_received_packets_total", 8)
    capture.stop()
    collect.wait()
    file = testbed.capture_file(collect)
    equal(file.link_type, 276, "link type (LINUX_SLL2)")
    indices = {}
    for line in testbed.home.run("ip", "-o", "link").splitlines():
        index, name = line.split(": ")[:2]
        indices[int(index)] = name.partition("@")[0]
    # LINKTYPE_LINUX_SLL2: protocol u16, reserved u16, interface index u32.
    names = [indices[struct.unpack_from("!HHI", packet.data)[2]] for packet in file.packets]
    equal(names[:4], ["near"] * 4, "interfaces of the first ping")
    equal(set(names[4:]), {"lo"}, "interfaces of the second ping")


def test_packets_before_the_filter_are_not_counted(testbed):
    """Packets that arrive between the opening of a device and its filter are neither captured nor counted."""
    _keeper = traffic.sink(testbed.home, "127.0.0.1", 20100)
    stream = traffic.Stream(testbed.home, "127.0.0.1", 20100, pause=0)
    for number in range(5):
        observe = testbed.observe(f"observe-{number}", device="lo", filter="udp port 20101").ready()
        equal(observe.metrics().sum("packeteur_device_received_packets_total"), 0, "packets received")
        observe.stop()
    check(stream.stop() > 10_000, "too few packets for a meaningful test")


def lose_device(testbed, command, reason):
    """Captures on two devices, one of which goes away: its source ends with an error, and the other continues."""
    for name, number in (("stays", 1), ("goes", 2)):
        join(testbed.home, name, Host(f"behind-{name}"), "eth0", (f"10.8.{number}.1/24", f"10.8.{number}.2/24"))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    capture = testbed.capture(device="stays,goes", filter="icmp", relay_endpoint=endpoint).ready().connected()
    testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.2.2")
    collect.wait_for_metric("packeteur_source_received_packets_total", 4, device="goes")
    testbed.home.run("ip", "link", *command, "goes")
    capture.wait_for_log(f"the capture on `goes` ended: {reason}")
    until(lambda: collect.metrics().one("packeteur_source_up", device="goes") == 0, "the source has ended")
    testbed.home.run("ping", "-q", "-c", "3", "-i", "0.02", "10.8.1.2")
    collect.wait_for_metric("packeteur_source_received_packets_total", 6, device="stays")
    # A device that was lost is a failure, even if the other sources end normally.
    capture.stop(code=1)
    collect.wait()
    for device in ("stays", "goes"):
        account = Account(collect.last_metrics(), device=device)
        account.check_sums()
        nothing_lost(account)


def test_device_removed(testbed):
    """`ip link del` during a capture."""
    lose_device(testbed, ["del"], "the device disappeared")


def test_device_down(testbed):
    """`ip link set down` during a capture."""
    lose_device(testbed, ["set", "down"], "the device went down")


def test_only_device_removed(testbed):
    """A capture without any device left exits with code 1, after everything has been delivered."""
    join(testbed.home, "goes", Host("other"), "far", ("10.8.2.1/24", "10.8.2.2/24"))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = testbed.capture(device="goes", filter="icmp", relay_endpoint=endpoint).ready().connected()
    testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.2.2")
    testbed.home.run("ip", "link", "del", "goes")
    capture.wait(code=1)
    collect.wait()
    equal(len(testbed.packets(collect)), 4, "packets")


def test_unknown_device(testbed):
    """An unknown device: exit code 64, and the message lists the devices. No device is opened, not even a valid one."""
    for device in ("eht0", "lo,eht0"):
        capture = testbed.capture(f"capture-{device}", device=device, relay_endpoint=testbed.endpoint())
        capture.wait(code=64)
        check("DEVICE: no such device `eht0` (there are: lo" in capture.log(), capture.log())
        equal(capture.output(), b"", "standard output")


def test_invalid_filter(testbed):
    """An invalid filter: exit code 64. The message names setting, value and device, and has libpcap's error."""
    for number, (expression, why) in enumerate(
        (
            ("udp prot 53", "syntax error"),
            ("host no.such.host.invalid", "unknown host"),
            ("ether host 10.0.0.1/33", ""),
        )
    ):
        capture = testbed.capture(f"capture-{number}", filter=expression, relay_endpoint=testbed.endpoint())
        capture.wait(code=64)
        message = f"FILTER: `{expression}` does not compile for `lo` (EN10MB): "
        check(message in capture.log() and why in capture.log(), capture.log())


def test_without_a_descriptor(testbed):
    """A device that libpcap cannot wait for is refused with exit code 64 and a remedy."""
    testbed.need("dbus-daemon")
    bus = f"unix:path={testbed.path('bus')}"
    testbed.start("bus", "dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={bus}")
    until(lambda: os.path.exists(testbed.path("bus")), "the bus is there")
    endpoint = testbed.endpoint()
    settings = {"device": "dbus-system", "dbus_system_bus_address": bus, "relay_endpoint": endpoint}
    capture = testbed.capture(metrics_file="", **settings)
    capture.wait(code=64)
    for part in ("DEVICE: cannot capture on `dbus-system`", "tcpdump -i dbus-system -U -w - | pcktr"):
        check(part in capture.log(), f"`{part}` is not in: {capture.log()}")
    capture = testbed.capture("dpdk", metrics_file="", device="dpdk:0", relay_endpoint=endpoint)
    capture.wait(code=64)
    check("DEVICE: cannot capture on `dpdk:0`" in capture.log(), capture.log())


def test_no_permission(testbed):
    """Without permission: exit code 1. The message names the capability and the command that grants it."""
    testbed.need("setpriv")
    if os.geteuid() != 0:
        raise Skipped("changing the user needs root")
    program = shutil.copy(PCKTR, testbed.path("pcktr"))
    os.chmod(program, 0o755)
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    # This user can't write to the test's directory either.
    capture = testbed.capture(prefix=prefix, binary=program, metrics_file="", relay_endpoint=testbed.endpoint())
    capture.wait(code=1)
    remedy = f"setcap cap_net_raw=ep {program}"
    for part in ("DEVICE: no permission to capture on `lo`", "CAP_NET_RAW", remedy):
        check(part in capture.log(), f"`{part}` is not in: {capture.log()}")


def test_snaplen(testbed):
    """SNAPLEN truncates packets. Their original length is kept, in the file and in the metrics."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    capture = testbed.capture(snaplen="60", filter="icmp", relay_endpoint=endpoint).ready().connected()
    testbed.home.run("ping", "-q", "-c", "3", "-i", "0.02", "-s", "1000", "127.0.0.1")
    collect.wait_for_metric("packeteur_source_received_packets_total", 6)
    capture.stop()
    collect.wait()
    file = testbed.capture_file(collect)
    equal([(p.original, len(p.data)) for p in file.packets], [(1042, 60)] * 6, "original and captured lengths")
    equal(file.interfaces[0].options.get(pcapng.IF_NAME), b"capture/lo", "interface")
    size = collect.last_metrics().sum("packeteur_capture_bytes_sum", address_family="IPv4")
    equal(size, 6 * 1042, "bytes on the wire, in the metrics")
