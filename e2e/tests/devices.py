"""Devices: any of them, several, those that vanish, those that never were."""

import os
import shutil
import struct

from harness import pcapng
from harness.host import Host, join
from harness.ledger import Account, nothing_lost
from harness.outcome import Skipped, check, equal, until
from harness.pcktr import PCKTR


def test_any_keeps_the_interfaces(scene):
    """`any`: LINUX_SLL2, which has the index of the interface of every packet."""
    join(scene.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = scene.capture(device="any", filter="icmp", relay_endpoint=endpoint).ready().connected()
    scene.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.0.2")
    scene.home.run("ping", "-q", "-c", "2", "-i", "0.02", "127.0.0.1")
    collect.wait_for_metric("packeteur_source_received_packets_total", 8)
    capture.stop()
    collect.wait()
    file = scene.capture_file(collect)
    equal(file.link_type, 276, "link type (LINUX_SLL2)")
    indices = {}
    for line in scene.home.run("ip", "-o", "link").splitlines():
        index, name = line.split(": ")[:2]
        indices[int(index)] = name.partition("@")[0]
    # LINKTYPE_LINUX_SLL2: protocol u16, reserved u16, interface index u32.
    names = [indices[struct.unpack_from("!HHI", packet.data)[2]] for packet in file.packets]
    equal(names[:4], ["near"] * 4, "interfaces of the first ping")
    equal(set(names[4:]), {"lo"}, "interfaces of the second ping")


def vanish(scene, how, why):
    """Two devices, one of which goes away: its source ends with an error, the other one goes on."""
    for name, number in (("stays", 1), ("goes", 2)):
        join(scene.home, name, Host(f"behind-{name}"), "eth0", (f"10.8.{number}.1/24", f"10.8.{number}.2/24"))
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    capture = scene.capture(device="stays,goes", filter="icmp", relay_endpoint=endpoint).ready().connected()
    scene.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.2.2")
    collect.wait_for_metric("packeteur_source_received_packets_total", 4, device="goes")
    scene.home.run("ip", "link", *how, "goes")
    capture.wait_for_log(f"the capture on `goes` has ended: {why}")
    until(lambda: collect.metrics().one("packeteur_source_up", device="goes") == 0, "the source has ended")
    scene.home.run("ping", "-q", "-c", "3", "-i", "0.02", "10.8.1.2")
    collect.wait_for_metric("packeteur_source_received_packets_total", 6, device="stays")
    # A source that ended before its time is a failure, however the others end.
    capture.stop(code=1)
    collect.wait()
    for device in ("stays", "goes"):
        account = Account(collect.last_metrics(), device=device)
        account.check_sums()
        nothing_lost(account)


def test_device_removed(scene):
    """`ip link del` under a capture."""
    vanish(scene, ["del"], "the device disappeared")


def test_device_down(scene):
    """`ip link set down` under a capture."""
    vanish(scene, ["set", "down"], "the device went down")


def test_the_only_device_removed(scene):
    """With its last source a capture ends by itself: all is delivered, exit code 1."""
    join(scene.home, "goes", Host("other"), "far", ("10.8.2.1/24", "10.8.2.2/24"))
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = scene.capture(device="goes", filter="icmp", relay_endpoint=endpoint).ready().connected()
    scene.home.run("ping", "-q", "-c", "2", "-i", "0.02", "10.8.2.2")
    scene.home.run("ip", "link", "del", "goes")
    capture.wait(code=1)
    collect.wait()
    equal(len(scene.packets(collect)), 4, "packets")


def test_unknown_device(scene):
    """Setting, value, and what there is; exit code 64; and nothing was opened: also with a good device beside it."""
    for device in ("eht0", "lo,eht0"):
        capture = scene.capture(f"capture-{device}", device=device, relay_endpoint=scene.endpoint())
        capture.wait(code=64)
        check("DEVICE: no such device `eht0` (there are: lo" in capture.log(), capture.log())
        equal(capture.output(), b"", "standard output")


def test_filter_that_does_not_compile(scene):
    """Setting, value, device, and what libpcap says; exit code 64."""
    for number, (expression, why) in enumerate(
        (
            ("udp prot 53", "syntax error"),
            ("host no.such.host.invalid", "unknown host"),
            ("ether host 10.0.0.1/33", ""),
        )
    ):
        capture = scene.capture(f"capture-{number}", filter=expression, relay_endpoint=scene.endpoint())
        capture.wait(code=64)
        said = f"FILTER: `{expression}` does not compile for `lo` (EN10MB): "
        check(said in capture.log() and why in capture.log(), capture.log())


def test_no_permission(scene):
    """As nobody: the capability, and the line that grants it; exit code 1."""
    scene.need("setpriv")
    if os.geteuid() != 0:
        raise Skipped("it takes root to become somebody else")
    program = shutil.copy(PCKTR, scene.path("pcktr"))
    os.chmod(program, 0o755)
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    # It may not write beside the other files of this test either.
    capture = scene.capture(prefix=prefix, binary=program, metrics_file="", relay_endpoint=scene.endpoint())
    capture.wait(code=1)
    remedy = f"setcap cap_net_raw,cap_net_admin=ep {program}"
    for part in ("DEVICE: no permission to capture on `lo`", "CAP_NET_RAW", remedy):
        check(part in capture.log(), f"`{part}` is not in: {capture.log()}")


def test_snaplen(scene):
    """SNAPLEN cuts what is kept; the original length stays; and the file says so for every packet."""
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    capture = scene.capture(snaplen="60", filter="icmp", relay_endpoint=endpoint).ready().connected()
    scene.home.run("ping", "-q", "-c", "3", "-i", "0.02", "-s", "1000", "127.0.0.1")
    collect.wait_for_metric("packeteur_source_received_packets_total", 6)
    capture.stop()
    collect.wait()
    file = scene.capture_file(collect)
    equal([(p.original, len(p.data)) for p in file.packets], [(1042, 60)] * 6, "original and captured lengths")
    equal(file.interfaces[0].options.get(pcapng.IF_NAME), b"capture/lo", "interface")
    size = collect.last_metrics().sum("packeteur_capture_bytes_sum", address_family="IPv4")
    equal(size, 6 * 1042, "bytes on the wire, as measured")
