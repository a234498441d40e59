"""Messages on the collector's port that are not valid batches: they are counted and have no other effect."""

import socket

from testkit import batch, frames, pcap, zmtp
from testkit.outcome import check, equal, until

# Invalid messages, by the reason under which they must be counted.
INVALID = {
    "magic": [b"hello", b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"PKTX" + bytes(200), bytes(300_000)],
    "truncated": [b"", b"P", b"PKTR", b"PKTR\x01", batch.encode()[:103], batch.encode(header_length=5000)],
    "version": [batch.encode(version=2), batch.encode(version=255), batch.encode(version=0)],
    "length": [
        batch.encode(header_length=50),
        batch.encode(header_length=70_000),
        batch.encode(payload_length=1 << 31),
        batch.encode(frames.packets(3), payload_length=5),
        batch.encode(frames.packets(3), packet_count=4),
        batch.encode(frames.packets(3))[:-1],
    ],
    "compression": [
        batch.encode(frames.packets(3), compression=9),
        batch.encode(frames.packets(3), compression=1),
        batch.encode(frames.packets(3), compression=2),
    ],
    "field": [
        batch.encode(fields=b"\x01\0\xff\xffx"),
        batch.encode(fields=b""),
        batch.encode(fields=batch.fields("name", "device") + b"\x03\0\x01\0\0"),
        batch.encode(fields=b"\x01\0\x02\0\xff\xfe"),
    ],
    "name": [batch.encode(source="a\nb"), batch.encode(device="\x1b[2J"), batch.encode(source="x" * 256)],
    "decompression": [batch.encode(payload=bytes(100), payload_length=1 << 20, packet_count=1, compression=2)],
    "record": [
        batch.encode(payload=bytes(7), packet_count=1),
        batch.encode(payload=b"\xff" * 64, packet_count=1),
        batch.encode(payload=batch.records(frames.packets(2))[:-3], packet_count=2),
    ],
}


def collector_with_a_capture(testbed):
    """Starts a collector, a capture of pings, and the ping. Returns collector, ping, and the collector's port."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint)
    testbed.capture(filter="icmp", relay_endpoint=endpoint).ready().connected()
    ping = testbed.start("ping", "ping", "-q", "-i", "0.02", "127.0.0.1")
    port = int(endpoint.rpartition(":")[2])
    return collect, ping, port


def counted(collect):
    metrics = collect.metrics()
    return {reason: metrics.sum("packeteur_rejected_batches_total", reason=reason) for reason in INVALID}


def check_undisturbed(testbed, collect, ping):
    """Checks that all packets of the capture still arrive, on its first connection."""
    before = collect.metrics().sum("packeteur_source_received_packets_total", source="capture")
    collect.wait_for_metric("packeteur_source_received_packets_total", before + 10, source="capture")
    capture = next(program for program in testbed.programs if program.name == "capture")
    ping.kill()
    capture.stop()
    sent = capture.last_metrics().sum("packeteur_relay_sent_packets_total")
    collect.wait_for_metric("packeteur_source_written_packets_total", sent, source="capture")
    equal(capture.last_metrics().one("packeteur_relay_connections_total"), 1, "connections of the capture")
    collect.stop()
    metrics = collect.last_metrics()
    equal(metrics.sum("packeteur_source_lost_packets_total"), 0, "packets lost")
    packets = testbed.packets(collect)
    check(all(packet.data[23] == 1 for packet in packets), "the output has packets that no capture sent")


def test_invalid_messages_are_counted(testbed):
    """Each is counted by its reason. The connection stays usable."""
    collect, ping, port = collector_with_a_capture(testbed)
    push = zmtp.Push(testbed.home.connect("127.0.0.1", port))
    for messages in INVALID.values():
        for message in messages:
            push.send(message)
    expected = {reason: len(messages) for reason, messages in INVALID.items()}
    until(lambda: counted(collect) == expected, lambda: f"counted: {counted(collect)}, sent: {expected}")
    # A batch has one part. A sender of several is cut off at the first.
    several = zmtp.Push(testbed.home.connect("127.0.0.1", port))
    several.connection.sendall(zmtp.frame(b"one", zmtp.MORE))
    check(zmtp.is_closed(several.connection), "a message of several parts is accepted")
    collect.wait_for_metric("packeteur_rejected_connections_total", 1, reason="multipart")
    # A valid batch on the same connection is received.
    push.send(batch.encode(flags=1, source="raw"))
    collect.wait_for_metric("packeteur_source_received_batches_total", 1, source="raw")
    push.close()
    # One line for each reason.
    lines = collect.log_lines("batch rejected; repeats suppressed for 1 min")
    equal(len(lines), len(INVALID), "lines in the log")
    check("127.0.0.1" in lines[0], f"the log does not name the sender: {lines[0]}")
    check_undisturbed(testbed, collect, ping)


def test_garbage_on_the_port(testbed):
    """Data that is not ZeroMQ: raw bytes, HTTP, silence, half a greeting, wrong socket types, an oversized frame."""
    collect, ping, port = collector_with_a_capture(testbed)
    http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for text in (b"\0" * 100, http, bytes(range(256)) * 40, zmtp.GREETING[:30], b"\xff"):
        with testbed.home.connect("127.0.0.1", port) as connection:
            connection.sendall(text)
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                # The collector has closed the connection already.
                continue
            zmtp.is_closed(connection)
    silent = testbed.home.connect("127.0.0.1", port)
    for kind in (b"REQ", b"SUB", b"NONSENSE"):
        try:
            push = zmtp.Push(testbed.home.connect("127.0.0.1", port), kind)
            push.send(b"hello")
        except ConnectionError:
            # The collector may refuse.
            continue
    # A message with a length of a terabyte: the connection is closed, and no memory is allocated.
    huge = zmtp.Push(testbed.home.connect("127.0.0.1", port))
    huge.connection.sendall(bytes([zmtp.LONG]) + (1 << 40).to_bytes(8, "big"))
    check(zmtp.is_closed(huge.connection), "the collector waits for a message of a terabyte")
    check(collect.memory_peak() < 200 << 20, f"{collect.memory_peak() >> 20} MiB of memory")
    silent.close()
    check_undisturbed(testbed, collect, ping)


def test_raw_batches(testbed):
    """Batches encoded without our code: duplicates are dropped, gaps are counted exactly, late arrivals recovered."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, merge_window="10ms")
    push = zmtp.Push(testbed.home.connect("127.0.0.1", int(endpoint.rpartition(":")[2])))
    packets = frames.packets(40)
    first = batch.encode(packets[:10], sequence=0, sent_before=0)
    push.send(first)
    push.send(first)
    # Two batches with 15 packets are missing.
    push.send(batch.encode(packets[25:], sequence=3, sent_before=25, captured=47, dropped_relay=7, dropped_kernel=5))
    collect.wait_for_metric("packeteur_source_lost_packets_total", 15, source="raw", device="none")
    metrics = collect.metrics()
    expected = {
        "sent": 40,
        "received": 25,
        "written": 25,
        "duplicate": 10,
        "captured": 47,
        "seen": 52,
        "late": 0,
        "sent_before_connect": 0,
    }
    for what, count in expected.items():
        equal(metrics.sum(f"packeteur_source_{what}_packets_total"), count, f"packets {what}")
    # A batch that was counted as lost arrives after all.
    push.send(batch.encode(packets[10:18], sequence=1, sent_before=10))
    collect.wait_for_metric("packeteur_source_recovered_packets_total", 8)
    push.send(batch.encode(sequence=4, sent_before=40, flags=1, captured=47, dropped_relay=7, dropped_kernel=5))
    until(lambda: collect.metrics().one("packeteur_source_up") == 0, "the source has ended")
    collect.stop()
    written = testbed.packets(collect)
    equal(written, packets[:10] + packets[25:] + packets[10:18], "packets")
    equal(testbed.capture_file(collect).magic, pcap.NANOSECONDS, "magic number of the file")


def test_first_message_of_a_running_source(testbed):
    """A collector first hears from a source in the middle of its run: packets sent before are counted separately."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint)
    push = zmtp.Push(testbed.home.connect("127.0.0.1", int(endpoint.rpartition(":")[2])))
    push.send(batch.encode(frames.packets(5), sequence=100, sent_before=12_345, flags=1))
    collect.wait_for_metric("packeteur_source_sent_before_connect_packets_total", 12_345)
    metrics = collect.metrics()
    equal(metrics.sum("packeteur_source_sent_packets_total"), 12_350, "packets sent")
    equal(metrics.sum("packeteur_source_lost_packets_total"), 0, "packets lost")
    collect.stop()
