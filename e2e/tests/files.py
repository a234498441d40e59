"""Capture files of every kind, through the relay: they come out as they went in."""

import gzip
import subprocess
import threading
import time

from harness import frames, pcap, pcapng
from harness.frames import ETHERNET, LINUX_SLL2, RAW_IP
from harness.ledger import Account, nothing_lost
from harness.outcome import check, equal
from harness.pcap import MICROSECONDS, MODIFIED, NANOSECONDS, Packet

CLASSIC = {
    f"{name}-{order}": (magic, mark)
    for name, magic in (("micro", MICROSECONDS), ("nano", NANOSECONDS), ("modified", MODIFIED))
    for order, mark in (("little", "<"), ("big", ">"))
}


def classic(name, count=3000):
    """A classic pcap file of some kind, and its packets as precise as that kind is."""
    magic, order = CLASSIC[name]
    unit = pcap.UNITS[magic]
    # A snapped packet, a jumbo one, a tiny one.
    packets = frames.packets(count)
    packets[7] = packets[7]._replace(original=9000)
    packets[8] = Packet(packets[8].time, 60_000, frames.frame(8, 60_000)[:59_000])
    packets[9] = Packet(packets[9].time, 1, b"\x00")
    packets = [packet._replace(time=packet.time // unit * unit) for packet in packets]
    return packets, pcap.encode(packets, magic, order)


def feed(stream, data, pieces=9, pause=0.05):
    """Writes to a pipe, slowly, and not where packets begin."""

    def write():
        with stream:
            size = len(data) // pieces + 1
            for begin in range(0, len(data), size):
                stream.write(data[begin : begin + size])
                stream.flush()
                time.sleep(pause)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def relay_pipe(scene, data, name="pipe", **collector):
    """Relays what comes through standard input, slowly. Returns the collector."""
    endpoint = scene.endpoint()
    collect = scene.collect(f"{name}-collect", collect_endpoint=endpoint, exit_on_end="true", **collector)
    capture = scene.capture(f"{name}-capture", relay_endpoint=endpoint, read_file="-", stdin=subprocess.PIPE)
    feed(capture.stdin, data).join()
    capture.wait()
    collect.wait()
    return capture, collect


def test_classic_kinds_by_path(scene):
    """Micro- and nanoseconds, both byte orders, and the kind with longer records: identical, and tcpdump reads the
    same."""
    for name in CLASSIC:
        packets, data = classic(name)
        path = scene.write(f"{name}.pcap", data)
        capture, collect = scene.relay_file(path, name)
        equal(scene.packets(collect), packets, f"packets of {name}")
        metrics = collect.last_metrics()
        account = Account(metrics, source=f"{name}-capture", device=f"{name}.pcap")
        account.check_sums()
        nothing_lost(account)
        equal(capture.output(), b"", "standard output of a capture")
        # tcpdump says when it reads a kind of its own choice; what it prints of the packets is to be the same.
        show = ("tcpdump", "-tt", "-nn", "-e", "--nano", "-r")
        equal(scene.run(*show, collect.stdout_path), scene.run(*show, path), f"what tcpdump makes of {name}")


def test_classic_kinds_through_a_pipe(scene):
    """The same from standard input, in pieces that end within packets."""
    for name in ("micro-little", "nano-little", "nano-big", "modified-big"):
        packets, data = classic(name, 500)
        _, collect = relay_pipe(scene, data, name)
        equal(scene.packets(collect), packets, f"packets of {name}")


def test_pipe_of_a_live_tcpdump(scene):
    """`ssh host tcpdump -U -w - | pcktr --read-file -`: packets arrive while tcpdump still runs."""
    scene.need("tcpdump")
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true")
    tcpdump = scene.start(
        "tcpdump", "tcpdump", "-i", "lo", "-U", "--nano", "-Z", "root", "-w", "-", "icmp", stdout=subprocess.PIPE
    )
    tcpdump.wait_for_log("listening on")
    capture = scene.capture(relay_endpoint=endpoint, read_file="-", stdin=tcpdump.stdout)
    tcpdump.stdout.close()
    for count in (2, 4):
        scene.home.run("ping", "-q", "-c", "1", "127.0.0.1")
        scene.wait_for_packets(collect, count, seconds=5)
    tcpdump.stop()
    capture.wait()
    collect.wait()
    equal(len(scene.packets(collect)), 4, "packets")


def several_interfaces(order):
    """A pcapng file of two sections: three link types, times of every resolution, names and none, simple packets.
    What comes out has times in nanoseconds, and the link type of its interface."""
    file = pcapng.Writer(order)
    packets = []
    second = frames.BEGIN // 1_000_000_000

    def add(interface, link_type, ticks, nanos, data, original=None):
        file.packet(interface, ticks, data, original)
        packets.append(Packet(nanos, original or len(data), data, link_type))

    file.interface(ETHERNET, "eth0")
    file.interface(RAW_IP, "tun0", resolution=9)
    file.interface(ETHERNET, "slow0", resolution=3)
    file.interface(LINUX_SLL2, "any", resolution=0x80 | 20)
    file.interface(ETHERNET, None, resolution=9, offset=1_000_000_000)
    for number in range(400):
        at = second + number
        nanos = at * 1_000_000_000
        frame = frames.frame(number)
        add(0, ETHERNET, at * 1_000_000 + 1, nanos + 1000, frame)
        add(1, RAW_IP, nanos + 1001, nanos + 1001, frames.udp4(frames.numbered(number, 40)), 1400)
        add(2, ETHERNET, at * 1000 + 7, nanos + 7_000_000, frame[:40])
        add(3, LINUX_SLL2, (at << 20) + (1 << 19), nanos + 500_000_000, cooked(number))
        add(4, ETHERNET, nanos + 600_000_000 - 1_000_000_000 * 1_000_000_000, nanos + 600_000_000, frame)
    # In the next section the numbers of interfaces begin anew.
    file.section()
    file.interface(ETHERNET, "eth1", resolution=6)
    last = second + 400
    add(0, ETHERNET, last * 1_000_000, last * 1_000_000_000, frames.frame(400))
    # A simple packet has no time of its own: it is not before the one in front of it.
    file.simple_packet(frames.frame(401))
    packets.append(packets[-1]._replace(data=frames.frame(401), original=len(frames.frame(401))))
    return packets, file.bytes()


def cooked(number):
    """A packet as `any` has it (LINUX_SLL2), of the interface with index 2."""
    return bytes.fromhex("0800 0000 00000002 0001 00 06 0200000000010000") + frames.udp4(frames.numbered(number, 30))


def without_interfaces(packets):
    return [packet._replace(interface=0) for packet in packets]


def test_pcapng_with_several_interfaces(scene):
    """Several interfaces and link types, every resolution of time, offsets, two sections, simple packets, in both
    byte orders: identical packets, each on the interface of its name; tshark reads the same of both."""
    for order in "<>":
        packets, data = several_interfaces(order)
        name = {"<": "little", ">": "big"}[order]
        path = scene.write(f"{name}.pcapng", data)
        _, collect = scene.relay_file(path, name, collector={"output_format": "pcapng"})
        file = scene.capture_file(collect)
        equal(without_interfaces(file.packets), packets, f"packets ({name})")
        names = [interface.name for interface in file.interfaces]
        devices = ("eth0", "tun0", "slow0", "any", f"{name}.pcapng", "eth1")
        expected = [f"{name}-capture/{device}" for device in devices]
        equal(sorted(names), sorted(expected), "interfaces")
        nothing_lost(Account(collect.last_metrics()))
    fields = ("frame.time_epoch", "frame.len", "frame.cap_len", "frame.encap_type", "_ws.col.Info")
    show = ["tshark", "-n", "-T", "fields", *(part for field in fields for part in ("-e", field)), "-r"]
    # tshark shows no time for the simple packet, which is the last.
    got, expected = (scene.run(*show, path).splitlines()[:-1] for path in (collect.stdout_path, path))
    equal(got, expected, "what tshark makes of it")


def test_pcapng_through_a_pipe(scene):
    """pcapng from standard input, slowly."""
    packets, data = several_interfaces("<")
    _, collect = relay_pipe(scene, data, output_format="pcapng")
    equal(without_interfaces(scene.packets(collect)), packets, "packets")


def test_mixed_link_types_in_classic_pcap(scene):
    """The first link type wins; packets of others are counted, and the log says once for each type what to set."""
    packets, data = several_interfaces("<")
    _, collect = scene.relay_file(scene.write("mixed.pcapng", data), "mixed")
    expected = [packet for packet in packets if packet.link_type == ETHERNET]
    equal(without_interfaces(scene.packets(collect)), expected, "packets")
    skipped = collect.last_metrics().sum("packeteur_source_skipped_packets_total", reason="link_type")
    equal(skipped, len(packets) - len(expected), "packets left out")
    others = {packet.link_type for packet in packets} - {ETHERNET}
    equal(len(collect.log_lines("WARN.*OUTPUT_FORMAT=pcapng")), len(others), "warnings")


def test_time_that_goes_back(scene):
    """A file keeps its own order, whatever its times; packets older than the one before count as late."""
    packets = frames.packets(2000)
    for at in (700, 701, 1500):
        packets[at] = packets[at]._replace(time=packets[at].time - 5_000_000_000)
    _, collect = scene.relay_file(scene.write("in.pcap", pcap.encode(packets)))
    equal(scene.packets(collect), packets, "packets")
    equal(collect.last_metrics().sum("packeteur_source_late_packets_total"), 3, "late packets")


def test_compressed_batches(scene):
    """lz4 and zstd: the same packets, and fewer bytes on the way."""
    packets, data = classic("nano-little")
    path = scene.write("in.pcap", data)
    sent = {}
    for compression in ("none", "lz4", "zstd"):
        capture, collect = scene.relay_file(path, compression, compression=compression)
        equal(scene.packets(collect), packets, f"packets ({compression})")
        sent[compression] = capture.last_metrics().sum("packeteur_relay_sent_bytes_total")
        received = collect.last_metrics().sum("packeteur_source_received_bytes_total")
        equal(received, sent[compression], f"bytes received, of those sent ({compression})")
    check(sent["none"] > 1.2 * sent["lz4"] and sent["lz4"] > sent["zstd"], f"hardly any compression: {sent}")


def test_cut_off(scene):
    """A capture that ends in the middle of a packet: all whole packets are relayed, the rest is said, exit code 0."""
    packets, data = classic("nano-little", 100)
    whole, ng = several_interfaces("<")
    last = len(packets[-1].data)
    for name, content, expected in (
        ("in-the-bytes.pcap", data[:-1], packets[:-1]),
        ("in-the-header.pcap", data[: -last - 3], packets[:-1]),
        ("in-a-block.pcapng", ng[:-10], whole[:-1]),
    ):
        capture, collect = scene.relay_file(scene.write(name, content), name, collector={"output_format": "pcapng"})
        equal(without_interfaces(scene.packets(collect)), expected, f"packets of {name}")
        said = f"cut off in the middle of packet {len(expected) + 1}; the {len(expected)} before it are whole"
        check(capture.log_lines(said), f"the log does not say `{said}`: {capture.log()}")


def test_damaged(scene):
    """A record that claims what cannot be: what stands before it is relayed, then it is an error with exit code 1."""
    packets, data = classic("nano-little", 100)
    damaged = data + b"\0" * 8 + b"\xff\xff\xff\x7f" * 2 + b"\0" * 100
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = scene.capture(relay_endpoint=endpoint, read_file=scene.write("damaged.pcap", damaged))
    capture.wait(code=1)
    collect.wait()
    equal(scene.packets(collect), packets, "packets")
    check(capture.log_lines("ERROR.*damaged behind packet 100"), "the log does not say where")


def test_no_capture(scene):
    """What is no capture is refused: setting, value, what it is instead; exit code 64."""
    _, data = classic("nano-little", 10)
    for name, content, why in (
        ("text.txt", b"this is a text, and nothing else\n", "it begins with none of the magic numbers"),
        ("empty.pcap", b"", "it is empty"),
        ("head.pcap", data[:20], "it ends within the header"),
        ("zipped.pcap.gz", gzip.compress(data), "it is compressed by gzip: `zcat FILE | pcktr --read-file -`"),
    ):
        path = scene.write(name, content)
        capture = scene.capture(name, read_file=path, relay_endpoint=scene.endpoint())
        capture.wait(code=64)
        check(f"READ_FILE: `{path}` is no capture: {why}" in capture.log(), f"of {name}: {capture.log()}")
    missing = scene.capture("missing", read_file="/nowhere/x.pcap", relay_endpoint=scene.endpoint())
    missing.wait(code=64)
    check("READ_FILE: cannot open `/nowhere/x.pcap`: No such file" in missing.log(), missing.log())


def test_empty_capture(scene):
    """A capture without packets is a capture: what comes out is a pcap file without packets."""
    capture, collect = scene.relay_file(scene.write("none.pcap", pcap.encode([])))
    equal(scene.capture_file(collect), pcap.Capture([], 1, 262144, NANOSECONDS), "file")
    equal(capture.losses_in_log() + collect.losses_in_log(), [], "errors")


def test_filter_and_snaplen(scene):
    """FILTER and SNAPLEN hold for files too; original lengths stay."""
    packets, data = classic("nano-little")
    path = scene.write("in.pcap", data)
    _, collect = scene.relay_file(path, filter="ip6", snaplen="64")
    expected = [p._replace(data=p.data[:64]) for p in packets if p.data[12:14] == b"\x86\xdd"]
    equal(scene.packets(collect), expected, "packets")
    check(len(expected) > 500, "too few packets to show anything")
    for name, settings in (("wrong", {"filter": "udp prot 53"}), ("foreign", {"filter": "wlan type mgt"})):
        capture = scene.capture(name, read_file=path, relay_endpoint=scene.endpoint(), **settings)
        capture.wait(code=64)
        check(f"FILTER: `{settings['filter']}` does not compile" in capture.log(), capture.log())


def test_many_files_merge_in_order(scene):
    """Six captures, whose packets interleave: one stream, complete and in order, once all are there within the
    window."""
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true", merge_window="3s")
    everything, captures = [], []
    for number in range(6):
        packets = frames.packets(4000, 100, step=8_000, begin=frames.BEGIN + 1000 * number)
        everything += packets
        path = scene.write(f"{number}.pcap", pcap.encode(packets))
        captures.append(scene.capture(f"file-{number}", relay_endpoint=endpoint, read_file=path))
    for capture in captures:
        capture.wait()
    collect.wait()
    equal(scene.packets(collect), sorted(everything), "packets")
    for capture in captures:
        account = Account(collect.last_metrics(), source=capture.name)
        account.check_sums()
        nothing_lost(account)
