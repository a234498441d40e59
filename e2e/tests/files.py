"""Capture files of every format through the relay: the output equals the input."""

import gzip
import subprocess
import threading
import time

from testkit import frames, pcap, pcapng
from testkit.frames import ETHERNET, LINUX_SLL2, RAW_IP
from testkit.ledger import Account, nothing_lost
from testkit.outcome import check, equal
from testkit.pcap import MICROSECONDS, MODIFIED, NANOSECONDS, Packet

CLASSIC = {
    f"{name}-{order}": (magic, mark)
    for name, magic in (("micro", MICROSECONDS), ("nano", NANOSECONDS), ("modified", MODIFIED))
    for order, mark in (("little", "<"), ("big", ">"))
}


def classic(name, count=3000):
    """A classic pcap file of one variant, and its packets with the time resolution of that variant."""
    magic, order = CLASSIC[name]
    unit = pcap.UNITS[magic]
    # A truncated packet, a large one, and a packet of one byte.
    packets = frames.packets(count)
    packets[7] = packets[7]._replace(original=9000)
    packets[8] = Packet(packets[8].time, 60_000, frames.frame(8, 60_000)[:59_000])
    packets[9] = Packet(packets[9].time, 1, b"\x00")
    packets = [packet._replace(time=packet.time // unit * unit) for packet in packets]
    return packets, pcap.encode(packets, magic, order)


def feed(stream, data, pieces=9, pause=0.05):
    """Writes to a pipe in the background, slowly, in pieces that do not end at packet boundaries."""

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


def relay_pipe(testbed, data, name="pipe", **collector):
    """Relays a file through standard input, slowly. Returns capture and collector."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(f"{name}-collect", collect_endpoint=endpoint, exit_on_end="true", **collector)
    capture = testbed.capture(f"{name}-capture", relay_endpoint=endpoint, read_file="-", stdin=subprocess.PIPE)
    feed(capture.stdin, data).join()
    capture.wait()
    collect.wait()
    return capture, collect


def test_classic_pcap_by_path(testbed):
    """Micro- and nanoseconds, both byte orders, and the variant with longer record headers: the output equals the
    input, and tcpdump prints the same for both."""
    for name in CLASSIC:
        packets, data = classic(name)
        path = testbed.write(f"{name}.pcap", data)
        capture, collect = testbed.relay_file(path, name)
        equal(testbed.packets(collect), packets, f"packets of {name}")
        metrics = collect.last_metrics()
        account = Account(metrics, source=f"{name}-capture", device=f"{name}.pcap")
        account.check_sums()
        nothing_lost(account)
        equal(capture.output(), b"", "standard output of a capture")
        show = ("tcpdump", "-tt", "-nn", "-e", "--nano", "-r")
        equal(testbed.run(*show, collect.stdout_path), testbed.run(*show, path), f"tcpdump's output for {name}")


def test_classic_pcap_through_a_pipe(testbed):
    """The same from standard input, in pieces that end within packets."""
    for name in ("micro-little", "nano-little", "nano-big", "modified-big"):
        packets, data = classic(name, 500)
        _, collect = relay_pipe(testbed, data, name)
        equal(testbed.packets(collect), packets, f"packets of {name}")


def test_pipe_of_a_live_tcpdump(testbed):
    """`tcpdump -U -w - | pcktr --read-file -`: packets arrive while tcpdump still runs."""
    testbed.need("tcpdump")
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true")
    tcpdump = testbed.start(
        "tcpdump", "tcpdump", "-i", "lo", "-U", "--nano", "-Z", "root", "-w", "-", "icmp", stdout=subprocess.PIPE
    )
    tcpdump.wait_for_log("listening on")
    capture = testbed.capture(relay_endpoint=endpoint, read_file="-", stdin=tcpdump.stdout)
    tcpdump.stdout.close()
    for count in (2, 4):
        testbed.home.run("ping", "-q", "-c", "1", "127.0.0.1")
        testbed.wait_for_packets(collect, count, seconds=5)
    tcpdump.stop()
    capture.wait()
    collect.wait()
    equal(len(testbed.packets(collect)), 4, "packets")


def several_interfaces(order):
    """A pcapng file of two sections: three link types, several time resolutions, interfaces with and without names,
    and simple packets. Returns its packets, with times in nanoseconds, and the file."""
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
    # Interface numbers restart in the next section.
    file.section()
    file.interface(ETHERNET, "eth1", resolution=6)
    last = second + 400
    add(0, ETHERNET, last * 1_000_000, last * 1_000_000_000, frames.frame(400))
    # A simple packet has no timestamp: it gets that of the packet before it.
    file.simple_packet(frames.frame(401))
    packets.append(packets[-1]._replace(data=frames.frame(401), original=len(frames.frame(401))))
    return packets, file.bytes()


def cooked(number):
    """A packet as captured on `any` (LINUX_SLL2), from interface index 2."""
    return bytes.fromhex("0800 0000 00000002 0001 00 06 0200000000010000") + frames.udp4(frames.numbered(number, 30))


def without_interfaces(packets):
    return [packet._replace(interface=0) for packet in packets]


def test_pcapng_with_several_interfaces(testbed):
    """The file of `several_interfaces` in both byte orders: the output has the same packets on the same interfaces, and
    tshark prints the same for both."""
    for order in "<>":
        packets, data = several_interfaces(order)
        name = {"<": "little", ">": "big"}[order]
        path = testbed.write(f"{name}.pcapng", data)
        _, collect = testbed.relay_file(path, name, collector={"output_format": "pcapng"})
        file = testbed.capture_file(collect)
        equal(without_interfaces(file.packets), packets, f"packets ({name})")
        names = [interface.name for interface in file.interfaces]
        devices = ("eth0", "tun0", "slow0", "any", f"{name}.pcapng", "eth1")
        expected = [f"{name}-capture/{device}" for device in devices]
        equal(sorted(names), sorted(expected), "interfaces")
        nothing_lost(Account(collect.last_metrics()))
    fields = ("frame.time_epoch", "frame.len", "frame.cap_len", "frame.encap_type", "_ws.col.Info")
    show = ["tshark", "-n", "-T", "fields", *(part for field in fields for part in ("-e", field)), "-r"]
    # The last packet is the simple one: tshark shows no time for it.
    got, expected = (testbed.run(*show, path).splitlines()[:-1] for path in (collect.stdout_path, path))
    equal(got, expected, "tshark's output")


def test_pcapng_through_a_pipe(testbed):
    """pcapng from standard input, slowly."""
    packets, data = several_interfaces("<")
    _, collect = relay_pipe(testbed, data, output_format="pcapng")
    equal(without_interfaces(testbed.packets(collect)), packets, "packets")


def test_mixed_link_types_in_classic_pcap(testbed):
    """The output takes the first link type. Packets of others are counted, with one warning for each link type."""
    packets, data = several_interfaces("<")
    _, collect = testbed.relay_file(testbed.write("mixed.pcapng", data), "mixed")
    expected = [packet for packet in packets if packet.link_type == ETHERNET]
    equal(without_interfaces(testbed.packets(collect)), expected, "packets")
    discarded = collect.last_metrics().sum("packeteur_source_discarded_packets_total", reason="link_type")
    equal(discarded, len(packets) - len(expected), "packets discarded")
    others = {packet.link_type for packet in packets} - {ETHERNET}
    equal(len(collect.log_lines("WARN.*OUTPUT_FORMAT=pcapng")), len(others), "warnings")


def test_timestamps_out_of_order(testbed):
    """A file keeps its order whatever its timestamps. Packets older than the one before count as late."""
    packets = frames.packets(2000)
    for at in (700, 701, 1500):
        packets[at] = packets[at]._replace(time=packets[at].time - 5_000_000_000)
    _, collect = testbed.relay_file(testbed.write("in.pcap", pcap.encode(packets)))
    equal(testbed.packets(collect), packets, "packets")
    equal(collect.last_metrics().sum("packeteur_source_late_packets_total"), 3, "late packets")


def test_compressed_batches(testbed):
    """lz4 and zstd: the same packets in fewer bytes."""
    packets, data = classic("nano-little")
    path = testbed.write("in.pcap", data)
    sent = {}
    for compression in ("none", "lz4", "zstd"):
        capture, collect = testbed.relay_file(path, compression, compression=compression)
        equal(testbed.packets(collect), packets, f"packets ({compression})")
        sent[compression] = capture.last_metrics().sum("packeteur_relay_sent_bytes_total")
        received = collect.last_metrics().sum("packeteur_source_received_bytes_total")
        equal(received, sent[compression], f"bytes received, bytes sent ({compression})")
    check(sent["none"] > 1.2 * sent["lz4"] and sent["lz4"] > sent["zstd"], f"too little compression: {sent}")


def test_truncated_file(testbed):
    """A file that ends in the middle of a packet: complete packets are relayed, the log reports it, exit code 0."""
    packets, data = classic("nano-little", 100)
    whole, ng = several_interfaces("<")
    last = len(packets[-1].data)
    for name, content, expected in (
        ("in-the-bytes.pcap", data[:-1], packets[:-1]),
        ("in-the-header.pcap", data[: -last - 3], packets[:-1]),
        ("in-a-block.pcapng", ng[:-10], whole[:-1]),
    ):
        capture, collect = testbed.relay_file(testbed.write(name, content), name, collector={"output_format": "pcapng"})
        equal(without_interfaces(testbed.packets(collect)), expected, f"packets of {name}")
        message = f"is truncated in packet {len(expected) + 1}; {len(expected)} packets were read"
        check(capture.log_lines(message), f"the log does not say `{message}`: {capture.log()}")


def test_corrupt_file(testbed):
    """An invalid record header: the packets before it are relayed, then the capture fails with exit code 1."""
    packets, data = classic("nano-little", 100)
    corrupt = data + b"\0" * 8 + b"\xff\xff\xff\x7f" * 2 + b"\0" * 100
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true")
    capture = testbed.capture(relay_endpoint=endpoint, read_file=testbed.write("corrupt.pcap", corrupt))
    capture.wait(code=1)
    collect.wait()
    equal(testbed.packets(collect), packets, "packets")
    check(capture.log_lines("ERROR.*is corrupt after packet 100: "), "the log does not say where the file is corrupt")


def test_not_a_capture_file(testbed):
    """A file in another format is rejected: exit code 64. The message names setting, value and reason."""
    _, data = classic("nano-little", 10)
    for name, content, why in (
        ("text.txt", b"this is plain text\n", "it does not start with a magic number of pcap or pcapng"),
        ("empty.pcap", b"", "it is empty"),
        ("head.pcap", data[:20], "it ends within the file header"),
        ("zipped.pcap.gz", gzip.compress(data), "it is compressed with gzip; use `zcat FILE | pcktr --read-file -`"),
    ):
        path = testbed.write(name, content)
        capture = testbed.capture(name, read_file=path, relay_endpoint=testbed.endpoint())
        capture.wait(code=64)
        check(f"READ_FILE: `{path}` is not a pcap or pcapng file: {why}" in capture.log(), f"{name}: {capture.log()}")
    missing = testbed.capture("missing", read_file="/nowhere/x.pcap", relay_endpoint=testbed.endpoint())
    missing.wait(code=64)
    check("READ_FILE: cannot open `/nowhere/x.pcap`: No such file" in missing.log(), missing.log())


def test_file_without_packets(testbed):
    """A capture file without packets is valid. The output is a pcap file without packets."""
    capture, collect = testbed.relay_file(testbed.write("none.pcap", pcap.encode([])))
    equal(testbed.capture_file(collect), pcap.Capture([], 1, 262144, NANOSECONDS), "file")
    equal(capture.losses_in_log() + collect.losses_in_log(), [], "errors")


def test_filter_and_snaplen(testbed):
    """FILTER and SNAPLEN apply to files too. Original lengths are kept."""
    packets, data = classic("nano-little")
    path = testbed.write("in.pcap", data)
    _, collect = testbed.relay_file(path, filter="ip6", snaplen="64")
    expected = [p._replace(data=p.data[:64]) for p in packets if p.data[12:14] == b"\x86\xdd"]
    equal(testbed.packets(collect), expected, "packets")
    check(len(expected) > 500, "too few packets for a meaningful test")
    for name, settings in (("invalid", {"filter": "udp prot 53"}), ("other-link-type", {"filter": "wlan type mgt"})):
        capture = testbed.capture(name, read_file=path, relay_endpoint=testbed.endpoint(), **settings)
        capture.wait(code=64)
        check(f"FILTER: `{settings['filter']}` does not compile" in capture.log(), capture.log())


def test_many_files_merge_in_order(testbed):
    """Six captures with interleaved packets become one stream, complete and in order, if all connect within the merge
    window."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true", merge_window="3s")
    everything, captures = [], []
    for number in range(6):
        packets = frames.packets(4000, 100, step=8_000, begin=frames.BEGIN + 1000 * number)
        everything += packets
        path = testbed.write(f"{number}.pcap", pcap.encode(packets))
        captures.append(testbed.capture(f"file-{number}", relay_endpoint=endpoint, read_file=path))
    for capture in captures:
        capture.wait()
    collect.wait()
    equal(testbed.packets(collect), sorted(everything), "packets")
    for capture in captures:
        account = Account(collect.last_metrics(), source=capture.name)
        account.check_sums()
        nothing_lost(account)
