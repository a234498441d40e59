"""What is no batch, on the collector's port: whoever finds it can send that. It is counted, and harms nobody."""

import socket

from harness import frames, message, pcap, zmtp
from harness.outcome import check, equal, until

# What is wrong with a message, by the reason under which it is to be counted.
WRONG = {
    "foreign": [b"hello", b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"PKTX" + bytes(200), bytes(300_000)],
    "truncated": [b"", b"P", b"PKTR", b"PKTR\x01", message.batch()[:103], message.batch(header_length=5000)],
    "version": [message.batch(version=2), message.batch(version=255), message.batch(version=0)],
    "length": [
        message.batch(header_length=50),
        message.batch(header_length=70_000),
        message.batch(payload_length=1 << 31),
        message.batch(frames.packets(3), payload_length=5),
        message.batch(frames.packets(3), packet_count=4),
        message.batch(frames.packets(3))[:-1],
    ],
    "compression": [
        message.batch(frames.packets(3), compression=9),
        message.batch(frames.packets(3), compression=1),
        message.batch(frames.packets(3), compression=2),
    ],
    "field": [
        message.batch(fields=b"\x01\0\xff\xffx"),
        message.batch(fields=b""),
        message.batch(fields=message.fields("name", "device") + b"\x03\0\x01\0\0"),
        message.batch(fields=b"\x01\0\x02\0\xff\xfe"),
    ],
    "record": [
        message.batch(payload=bytes(7), packet_count=1),
        message.batch(payload=b"\xff" * 64, packet_count=1),
        message.batch(payload=message.records(frames.packets(2))[:-3], packet_count=2),
    ],
}


def collector_with_a_capture(scene):
    """A collector, a capture that sends pings all the time, and a function that says how many have arrived."""
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint)
    scene.capture(filter="icmp", relay_endpoint=endpoint).ready().connected()
    ping = scene.start("ping", "ping", "-q", "-i", "0.02", "127.0.0.1")
    port = int(endpoint.rpartition(":")[2])
    return collect, ping, port


def counted(collect):
    metrics = collect.metrics()
    return {reason: metrics.sum("packeteur_foreign_messages_total", reason=reason) for reason in WRONG}


def unharmed(scene, collect, ping):
    """The capture's packets come as before, all of them, on its first connection."""
    before = collect.metrics().sum("packeteur_source_received_packets_total", source="capture")
    collect.wait_for_metric("packeteur_source_received_packets_total", before + 10, source="capture")
    capture = next(program for program in scene.programs if program.name == "capture")
    ping.kill()
    capture.stop()
    sent = capture.last_metrics().sum("packeteur_relay_sent_packets_total")
    collect.wait_for_metric("packeteur_source_written_packets_total", sent, source="capture")
    equal(capture.last_metrics().one("packeteur_relay_connections_total"), 1, "connections of the capture")
    collect.stop()
    metrics = collect.last_metrics()
    equal(metrics.sum("packeteur_source_lost_packets_total"), 0, "packets lost")
    packets = scene.packets(collect)
    check(all(packet.data[23] == 1 for packet in packets), "the output holds what no capture sent")


def test_messages_that_are_no_batches(scene):
    """Each is counted by its reason, on one connection, and the next one is taken all the same."""
    collect, ping, port = collector_with_a_capture(scene)
    push = zmtp.Push(scene.home.connect("127.0.0.1", port))
    for wrong in WRONG.values():
        for text in wrong:
            push.send(text)
    expected = {reason: len(wrong) for reason, wrong in WRONG.items()}
    until(lambda: counted(collect) == expected, lambda: f"counted: {counted(collect)}, sent: {expected}")
    # Parts of a message stand alone: neither is a batch.
    push.send(b"one", b"two", b"three")
    until(lambda: counted(collect)["foreign"] == expected["foreign"] + 3, "parts are counted")
    # After all that, a sound batch is welcome.
    push.send(message.batch(flags=1, source="by-hand"))
    collect.wait_for_metric("packeteur_source_received_batches_total", 1, source="by-hand")
    push.close()
    lines = collect.log_lines("ignored a message")
    check(1 <= len(lines) <= 3, f"{len(lines)} lines in the log")
    check("127.0.0.1" in lines[0], f"the log does not say whose message it was: {lines[0]}")
    unharmed(scene, collect, ping)


def test_garbage_on_the_port(scene):
    """What is not even ZeroMQ: raw bytes, HTTP, silence, half a greeting, a foreign socket type, a frame without
    end."""
    collect, ping, port = collector_with_a_capture(scene)
    http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for text in (b"\0" * 100, http, bytes(range(256)) * 40, zmtp.GREETING[:30], b"\xff"):
        with scene.home.connect("127.0.0.1", port) as connection:
            connection.sendall(text)
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                # The collector has hung up already.
                continue
            hung_up(connection)
    silent = scene.home.connect("127.0.0.1", port)
    for kind in (b"REQ", b"SUB", b"NONSENSE"):
        try:
            push = zmtp.Push(scene.home.connect("127.0.0.1", port), kind)
            push.send(b"hello")
        except ConnectionError:
            # As is its right.
            continue
    # A message that claims a terabyte: its connection is cut, and no memory is taken for it.
    huge = zmtp.Push(scene.home.connect("127.0.0.1", port))
    huge.connection.sendall(bytes([zmtp.LONG]) + (1 << 40).to_bytes(8, "big"))
    check(hung_up(huge.connection), "a message of a terabyte is waited for")
    check(collect.memory_peak() < 200 << 20, f"{collect.memory_peak() >> 20} MiB of memory")
    silent.close()
    unharmed(scene, collect, ping)


def hung_up(connection):
    """Whether the other side ends a connection, after whatever it says."""
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_batches_by_hand(scene):
    """The layout of a batch is what its table says; twice the same is once; a gap is known to the packet."""
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, merge_window="10ms")
    push = zmtp.Push(scene.home.connect("127.0.0.1", int(endpoint.rpartition(":")[2])))
    packets = frames.packets(40)
    first = message.batch(packets[:10], sequence=0, sent_before=0)
    push.send(first)
    push.send(first)
    # Two batches with 15 packets are missing here.
    push.send(message.batch(packets[25:], sequence=3, sent_before=25, captured=47, dropped_relay=7, dropped_kernel=5))
    collect.wait_for_metric("packeteur_source_lost_packets_total", 15, source="by-hand", device="none")
    metrics = collect.metrics()
    expected = {
        "sent": 40,
        "received": 25,
        "written": 25,
        "duplicate": 10,
        "captured": 47,
        "seen": 52,
        "late": 0,
        "unheard": 0,
    }
    for what, count in expected.items():
        equal(metrics.sum(f"packeteur_source_{what}_packets_total"), count, f"packets {what}")
    # What had been given up comes after all.
    push.send(message.batch(packets[10:18], sequence=1, sent_before=10))
    collect.wait_for_metric("packeteur_source_returned_packets_total", 8)
    push.send(message.batch(sequence=4, sent_before=40, flags=1, captured=47, dropped_relay=7, dropped_kernel=5))
    until(lambda: collect.metrics().one("packeteur_source_up") == 0, "the source has ended")
    collect.stop()
    written = scene.packets(collect)
    equal(written, packets[:10] + packets[25:] + packets[10:18], "packets")
    equal(scene.capture_file(collect).magic, pcap.NANOSECONDS, "kind of file")


def test_newest_first_contact(scene):
    """A collector that hears of a source in the middle of its run: what was sent before is a figure of its own."""
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint)
    push = zmtp.Push(scene.home.connect("127.0.0.1", int(endpoint.rpartition(":")[2])))
    push.send(message.batch(frames.packets(5), sequence=100, sent_before=12_345, flags=1))
    collect.wait_for_metric("packeteur_source_unheard_packets_total", 12_345)
    metrics = collect.metrics()
    equal(metrics.sum("packeteur_source_sent_packets_total"), 12_350, "packets sent")
    equal(metrics.sum("packeteur_source_lost_packets_total"), 0, "packets lost")
    collect.stop()
