"""Collectors that were made to do harm. A capture accepts nothing from them beyond the protocol."""

import contextlib
import socket
import threading
import time

from testkit import traffic, zmtp
from testkit.ledger import Account, check_agreement
from testkit.outcome import check, equal, until

MIB = 1 << 20

# What a capture may use: the program itself, BUFFER_SIZE and RELAY_BUFFER.
RING, BUFFER = 8 * MIB, 8 * MIB
MEMORY = 24 * MIB + RING + BUFFER


class HostileCollector(threading.Thread):
    """Listens at an endpoint. `attack` gets each connection; the port is free again after `stop`."""

    def __init__(self, testbed, endpoint, attack):
        super().__init__(daemon=True)
        self.attack, self.connections = attack, []
        self.ends = threading.Event()
        self.listener = testbed.home.open_socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", int(endpoint.rpartition(":")[2])))
        self.listener.listen()
        self.listener.settimeout(0.1)
        self.start()

    def run(self):
        while not self.ends.is_set():
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(5)
            self.connections.append(connection)
            with contextlib.suppress(OSError):
                self.attack(connection, self.ends)

    def stop(self):
        self.ends.set()
        self.join()
        for connection in (self.listener, *self.connections):
            connection.close()


def flood(data, most=256 * MIB):
    """An attack that sends this after the handshake, until the capture has had enough."""

    def attack(connection, ends):
        zmtp.accept_push(connection, data)
        sent = 0
        while sent < most and not ends.is_set():
            connection.sendall(data)
            sent += len(data)

    return attack


def say(data):
    """An attack that sends this instead of a handshake."""
    return lambda connection, _: connection.sendall(data)


def after_the_greeting(data):
    return say(zmtp.GREETING + data)


# What a capture does not accept, and the line that it logs.
ATTACKS = {
    "messages": (flood(zmtp.frame(bytes(MIB))), "sent a frame of 1048576 bytes"),
    "small-messages": (flood(zmtp.frame(b"x") * 1000), "sent a message to a socket that only sends"),
    "multipart": (flood(zmtp.frame(bytes(MIB), zmtp.MORE)), "sent a message of several parts"),
    "huge-frame": (flood(zmtp.frame_header(1 << 40) + bytes(MIB)), "sent a frame of 1099511627776 bytes"),
    "huge-command": (flood(zmtp.frame_header(1 << 30, zmtp.COMMAND) + bytes(MIB)), "sent a frame of 1073741824 bytes"),
    "unknown-command": (flood(zmtp.command(b"\x1b[2JOBEY")), "sent an invalid or unexpected command"),
    "http": (say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is not a collector: it does not speak ZMTP 3"),
    "other-socket": (after_the_greeting(zmtp.ready(b"SUB")), "has a socket of type SUB instead of PULL"),
    "error": (
        after_the_greeting(zmtp.command(b"ERROR", b"\x09go\x1b[2Jaway")),
        r"refused the connection: go\?\[2Jaway",
    ),
    "curve": (say(zmtp.greeting(mechanism=b"CURVE")), "the collector requires keys: set KEY_FILE and COLLECTOR_KEY"),
}


def capture_of(testbed, name, endpoint):
    """A capture of a stream of datagrams. Returns it, the stream, and its port."""
    keeper = traffic.sink(testbed.home, "127.0.0.1")
    port = keeper.getsockname()[1]
    settings = {"relay_buffer": f"{BUFFER}", "buffer_size": f"{RING}", "filter": f"udp dst port {port}"}
    capture = testbed.capture(name, relay_endpoint=endpoint, **settings).ready()
    return capture, traffic.Stream(testbed.home, "127.0.0.1", port, pause=0.005), port, keeper


def test_what_a_capture_does_not_accept(testbed):
    """A collector that sends something else than its part of the protocol: the capture says what, once, keeps its
    packets, and sends them to the collector that takes over the address."""
    cases = []
    for name, (attack, expected) in ATTACKS.items():
        endpoint = testbed.endpoint()
        hostile = HostileCollector(testbed, endpoint, attack)
        cases.append((hostile, endpoint, expected, *capture_of(testbed, name, endpoint)))
    for hostile, endpoint, expected, capture, *_ in cases:
        capture.wait_for_log(f"WARN.*({expected}).*; queueing packets in RELAY_BUFFER and retrying")
        # At least another attempt.
        until(lambda: len(hostile.connections) >= 2, f"{capture.name} does not try again")
        hostile.stop()
        testbed.collect(f"{capture.name}-collect", collect_endpoint=endpoint)
    for _, _, _, capture, stream, port, _ in cases:
        collect = next(program for program in testbed.programs if program.name == f"{capture.name}-collect")
        capture.wait_for_log("connected to the collector.*$", 20)
        collect.wait_for_metric("packeteur_source_written_packets_total", 100)
        sent = stream.stop()
        capture.wait_for_metric("packeteur_device_received_packets_total", sent)
        memory = capture.memory_peak()
        check(0 < memory < MEMORY, f"{capture.name}: {memory // MIB} MiB of memory")
        capture.stop()
        collect.wait_for_metric("packeteur_source_written_packets_total", sent)
        collect.stop()
        equal(traffic.numbers(testbed.packets(collect), port), list(range(sent)), f"packets of {capture.name}")
        warnings = capture.log_lines("queueing packets in RELAY_BUFFER and retrying")
        equal(len(warnings), 1, f"warnings of {capture.name}")
        check("\x1b" not in capture.log(), f"{capture.name}: control characters in the log")


def read_all(connection, ends, received):
    """Reads until the end, and counts the bytes."""
    with contextlib.suppress(OSError):
        while not ends.is_set():
            data = connection.recv(1 << 16)
            if not data:
                return
            received.append(len(data))


def test_pings_without_end(testbed):
    """A collector that sends PING as fast as it can and reads everything: batches are sent all the same, memory does
    not grow, and the capture stops when it is told."""
    endpoint = testbed.endpoint()
    pings = zmtp.command(b"PING", bytes(2 + 16)) * 10_000
    received = []

    def attack(connection, ends):
        zmtp.accept_push(connection)
        threading.Thread(target=read_all, args=(connection, ends, received), daemon=True).start()
        while not ends.is_set():
            connection.sendall(pings)

    hostile = HostileCollector(testbed, endpoint, attack)
    capture, stream, _, _keeper = capture_of(testbed, "capture", endpoint)
    capture.wait_for_metric("packeteur_relay_sent_packets_total", 500)
    until(lambda: sum(received) > 500 * 200, lambda: f"{sum(received)} bytes arrived")
    check(capture.memory_peak() < MEMORY, f"{capture.memory_peak() // MIB} MiB of memory")
    stream.stop()
    begin = time.monotonic()
    capture.stop(seconds=9)
    took = time.monotonic() - begin
    check(took < 5, f"the capture stopped after {took:.1f} s")
    hostile.stop()


def test_a_collector_that_never_reads(testbed):
    """A collector that completes the handshake, and then reads nothing, or sends PING all the time and reads no
    answers: the capture's memory stays within RELAY_BUFFER, what it drops is counted, and it carries on with the
    collector that comes next."""
    pings = zmtp.command(b"PING", bytes(2 + 16)) * 10_000

    def silence(connection, _):
        zmtp.accept_push(connection)

    def ping(connection, ends):
        zmtp.accept_push(connection)
        while not ends.is_set():
            connection.sendall(pings)

    for name, attack in (("silence", silence), ("ping", ping)):
        endpoint = testbed.endpoint()
        hostile = HostileCollector(testbed, endpoint, attack)
        capture, stream, port, keeper = capture_of(testbed, name, endpoint)
        capture.connected()
        stream.stop()
        traffic.burst(testbed.home, "127.0.0.1", port, 1000, 30_000, rest=50, pause=0.02)
        check(
            capture.metrics().one("packeteur_relay_queued_bytes") <= BUFFER, "more bytes are queued than RELAY_BUFFER"
        )
        check(capture.memory_peak() < MEMORY, f"{name}: {capture.memory_peak() // MIB} MiB of memory")
        until(lambda: capture.metrics().sum("packeteur_relay_dropped_packets_total") > 0, "nothing had to be dropped")
        hostile.stop()
        collect = testbed.collect(f"{name}-collect", collect_endpoint=endpoint)
        collect.wait_for_metric("packeteur_source_received_packets_total", 100)
        capture.stop()
        figures = capture.last_metrics()
        sent = figures.sum("packeteur_relay_sent_packets_total")
        until(lambda: Account(collect.metrics(), source=name).sent == sent, "the account is not complete")
        collect.stop()
        account = Account(collect.last_metrics(), source=name)
        account.check_sums()
        check_agreement(account, figures)
        equal(account.lost + account.missing, 0, "packets lost")
        keeper.close()
