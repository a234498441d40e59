"""Connections that were made to do harm, to a collector without keys. Two honest sources keep their order and their
ledger meanwhile, and the collector its memory."""

import contextlib
import random
import select
import threading
import time

from e2e.tests.hostile_batches import Scene
from testkit import traffic, zmtp
from testkit.outcome import check, equal, until

MIB = 1 << 20

# crates/batch/src/layout.rs: the longest payload, and less than the longest message.
LONG_MESSAGE = 8 * MIB

# What all connections together may use: unfinished messages of 64 MiB, and a queue of 4 MiB. The last message may
# exceed each of them.
UNFINISHED = 64 * MIB + LONG_MESSAGE
QUEUE = 4 * MIB + LONG_MESSAGE
# The program itself, its buffers, and the honest sources' packets.
BASE = 24 * MIB

# The collector's threads together, as a share of one core, beside two honest sources and the test's own requests.
CPU = 0.3


def rejected(program, reason):
    return program.metrics().sum("packeteur_rejected_connections_total", reason=reason)


def wait_for_rejected(program, reason, count):
    until(lambda: rejected(program, reason) >= count, lambda: f"{reason}: {rejected(program, reason)}, not {count}")


def check_logged(program, reason, lines=1):
    """Checks that a reason is logged once for each peer, whatever the number of its connections."""
    logged = program.log_lines(f'connection closed: .*reason="{reason}"')
    equal(len(logged), lines, f"log lines about {reason}: {logged}")


def send_until_closed(connection, data, most):
    """Sends `data` again and again until the peer closes the connection or `most` bytes are sent. Returns the bytes."""
    sent = 0
    try:
        while sent < most:
            connection.sendall(data)
            sent += len(data)
    except ConnectionError:
        pass
    return sent


def is_closed(connection):
    """Whether the peer closes the connection, within the time of a handshake and more."""
    connection.settimeout(15)
    return zmtp.is_closed(connection)


def check_responsive(program):
    """Checks that metrics and health are there in a second."""
    for path in ("/metrics", "/-/healthy"):
        begin = time.monotonic()
        equal(program.get(path).status, 200, path)
        took = time.monotonic() - begin
        check(took < 1, f"{path} took {took:.2f} s")


def check_idle(program, seconds=1.0):
    """Checks that the program does not spin."""
    begin, cpu = time.monotonic(), program.cpu_so_far()
    time.sleep(seconds)
    used = (program.cpu_so_far() - cpu) / (time.monotonic() - begin)
    check(used < CPU, f"{used:.2f} of a core")


def test_endless_multipart_messages(testbed):
    """Messages without an end, of large parts and of empty ones: the first part ends the connection."""
    scene = Scene(testbed)
    for size in (0, 1, MIB, LONG_MESSAGE):
        attacker = scene.attacker()
        part = zmtp.frame(bytes(size), zmtp.MORE)
        sent = send_until_closed(attacker.connection, part * (4096 if size < 2 else 1), 256 * MIB)
        # What the kernel buffers on the way.
        check(sent < 32 * MIB, f"{sent} bytes of a multipart message were taken")
        check(is_closed(attacker.connection), "the connection is still open")
    equal(rejected(scene.collect, "multipart"), 4, "rejected connections")
    check_logged(scene.collect, "multipart")
    scene.go_on()
    scene.end(memory=BASE)


def test_unfinished_messages(testbed):
    """40 messages of almost 8 MiB, each without its last byte, twice. The peer that has most of them loses some; a peer
    that is only slow loses nothing."""
    scene = Scene(testbed)
    slow = scene.attacker("127.0.0.3")
    message = bytes(MIB)
    slow.connection.sendall(zmtp.frame(message)[:-1])
    data = zmtp.frame(bytes(LONG_MESSAGE))[:-1]
    for turn in (1, 2):
        attackers = [scene.attacker() for _ in range(40)]
        for attacker in attackers:
            send_until_closed(attacker.connection, data, 1)
        wait_for_rejected(scene.collect, "memory", turn * (40 - UNFINISHED // LONG_MESSAGE))
        check_responsive(scene.collect)
        for attacker in attackers:
            attacker.close()
        # What they used is free again.
        until(lambda: scene.collect.metrics().one("packeteur_collector_connections") <= 3, "connections are open")
    check_logged(scene.collect, "memory")
    # It finishes its message, which is no batch: it is still connected.
    slow.connection.sendall(message[-1:])
    until(lambda: scene.rejected("magic") == 1, "the slow peer has lost its connection")
    scene.go_on()
    scene.end(memory=UNFINISHED + QUEUE + BASE)


def test_long_messages(testbed):
    """Eight connections send messages of 8 MiB that are no batches, as fast as they can: each is counted, and few are
    in memory at a time."""
    # This takes all processors, so honest packets may take their time too.
    scene = Scene(testbed, merge_window="2s")
    attackers = [scene.attacker() for _ in range(8)]
    message = bytes(LONG_MESSAGE)

    def send(attacker):
        for _ in range(20):
            attacker.send(message)

    threads = [threading.Thread(target=send, args=(attacker,), daemon=True) for attacker in attackers]
    for thread in threads:
        thread.start()
    check_responsive(scene.collect)
    for thread in threads:
        thread.join()
    until(lambda: scene.rejected("magic") == 160, lambda: f"{scene.rejected('magic')} messages counted")
    scene.end(memory=UNFINISHED + QUEUE + BASE)


def test_messages_that_arrive_slowly(testbed):
    """Announcements of 8 MiB cost little until the bytes are there; a byte now and then disturbs nobody."""
    scene = Scene(testbed)
    attackers = [scene.attacker() for _ in range(200)]
    before = scene.collect.memory()
    for attacker in attackers:
        attacker.connection.sendall(zmtp.frame_header(LONG_MESSAGE))
    for _ in range(20):
        for attacker in attackers:
            attacker.connection.sendall(b"x")
        time.sleep(0.05)
    grown = scene.collect.memory() - before
    check(grown < 16 * MIB, f"{grown // MIB} MiB for 200 announcements")
    check_responsive(scene.collect)
    equal(rejected(scene.collect, "memory"), 0, "connections that had to go")
    scene.end(memory=BASE + 16 * MIB)


def test_oversized_messages(testbed):
    """A length beyond that of the longest batch ends the connection before a byte of the message is read."""
    scene = Scene(testbed)
    lengths = (LONG_MESSAGE * 2, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
    for length in lengths:
        attacker = scene.attacker()
        attacker.connection.sendall(zmtp.frame_header(length))
        check(is_closed(attacker.connection), f"a message of {length} bytes is awaited")
    equal(rejected(scene.collect, "too_long"), len(lengths), "rejected connections")
    check_logged(scene.collect, "too_long")
    scene.end(memory=BASE)


def test_silent_connections_and_few_file_descriptors(testbed):
    """300 silent connections, with 64 file descriptors: the collector neither spins nor stops answering, and a capture
    that comes then gets in."""
    testbed.need("prlimit")
    scene = Scene(testbed, prefix=("prlimit", "--nofile=64:64"))
    silent = [scene.connect() for _ in range(300)]
    check_idle(scene.collect)
    check_responsive(scene.collect)
    wait_for_rejected(scene.collect, "max_connections", 200)
    check_newcomer(testbed, scene)
    check_responsive(scene.collect)
    check_logged(scene.collect, "max_connections")
    scene.collect.wait_for_log("WARN.*the limit of file descriptors .64. allows fewer connections than MAX_CONNECTIONS")
    for connection in silent:
        connection.close()
    scene.end(memory=BASE)


def test_no_file_descriptors_left(testbed):
    """Clients of the metrics and silent connections take all file descriptors: the collector does not spin, says once
    what is missing, and makes room for a capture."""
    testbed.need("prlimit")
    scene = Scene(testbed, prefix=("prlimit", "--nofile=48:48"))
    web = [testbed.home.connect("127.0.0.1", scene.collect.metrics_port()) for _ in range(40)]
    silent = [scene.connect() for _ in range(100)]
    scene.collect.wait_for_log("ERROR.*cannot accept connections: raise the limit of file descriptors")
    check_idle(scene.collect)
    check_newcomer(testbed, scene)
    check(rejected(scene.collect, "descriptors") >= 1, "it is not counted")
    equal(len(scene.collect.log_lines("raise the limit of file descriptors")), 1, "log lines")
    for connection in (*web, *silent):
        connection.close()
    scene.end(memory=BASE)


def check_newcomer(testbed, scene):
    """Checks that a capture that starts now delivers its packets."""
    name = "newcomer"
    keeper = traffic.sink(testbed.home, "127.0.0.1")
    port = keeper.getsockname()[1]
    endpoint = f"tcp://127.0.0.1:{scene.port}"
    capture = testbed.capture(name, relay_endpoint=endpoint, filter=f"udp dst port {port}").ready().connected()
    traffic.burst(testbed.home, "127.0.0.1", port, 100)
    scene.collect.wait_for_metric("packeteur_source_written_packets_total", 100, source=name)
    capture.stop()
    equal(capture.last_metrics().one("packeteur_relay_connections_total"), 1, "connections of the newcomer")


def test_more_connections_than_max_connections(testbed):
    """A flood of connections from one address, silent or after a handshake: a capture from another address gets in, and
    those that have sent batches stay."""
    scene = Scene(testbed, max_connections="20")
    stop = threading.Event()
    opened = []

    def flood(handshake):
        while not stop.is_set():
            connection = scene.connect()
            opened.append(connection)
            if handshake:
                # Nobody waits for the answer.
                connection.sendall(zmtp.GREETING + zmtp.ready(b"PUSH"))
            stop.wait(0.002)

    floods = [threading.Thread(target=flood, args=(handshake,), daemon=True) for handshake in (False, True)]
    for thread in floods:
        thread.start()
    wait_for_rejected(scene.collect, "max_connections", 100)
    check_newcomer(testbed, scene)
    check_responsive(scene.collect)
    check(scene.collect.metrics().one("packeteur_collector_connections") <= 20, "more than MAX_CONNECTIONS")
    stop.set()
    for thread in floods:
        thread.join()
    check_logged(scene.collect, "max_connections")
    for connection in opened:
        connection.close()
    scene.end(memory=BASE)


def test_handshakes_that_take_too_long(testbed):
    """Ten seconds are enough for a handshake: in silence, in the middle of the greeting, after it, and byte by byte."""
    scene = Scene(testbed)
    begin = time.monotonic()
    connections = [scene.connect() for _ in range(4)]
    connections[1].sendall(zmtp.GREETING[:20])
    connections[2].sendall(zmtp.GREETING)
    poll = select.poll()
    slow = iter(zmtp.GREETING)
    while rejected(scene.collect, "handshake_timeout") < 4:
        took = time.monotonic() - begin
        check(took < 15, f"connections are still open after {took:.0f} s")
        try:
            connections[3].send(bytes([next(slow)]))
        except ConnectionError:
            # It is closed.
            break
        poll.poll(250)
    wait_for_rejected(scene.collect, "handshake_timeout", 4)
    took = time.monotonic() - begin
    check(took > 9, f"connections were closed after {took:.1f} s")
    for connection in connections:
        check(is_closed(connection), "a connection is still open")
    check_logged(scene.collect, "handshake_timeout")
    scene.end(memory=BASE)


# The beginnings of other protocols.
GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    # RFC 8446, 4.1.2
    "TLS": bytes.fromhex("16030102000100 01fc0303") + bytes(512),
    "ZMTP 1": b"\x01\x00",
    "ZMTP 2": b"\xff" + bytes(8) + b"\x7f\x01\x08\x00\x00",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "random": random.Random(9).randbytes(10_000),
    "zeroes": bytes(10_000),
}


def test_garbage_from_one_peer_is_logged_once(testbed):
    """Other protocols, over and over: each connection is closed and counted, and there is one line in the log."""
    scene = Scene(testbed)
    for number in range(1000):
        name = list(GARBAGE)[number % len(GARBAGE)]
        connection = scene.connect()
        send_until_closed(connection, GARBAGE[name], 1)
        if number < len(GARBAGE):
            check(is_closed(connection), f"{name}: the connection is still open")
        connection.close()
    wait_for_rejected(scene.collect, "not_zmtp", 1000)
    equal(rejected(scene.collect, "not_zmtp"), 1000, "rejected connections")
    check_logged(scene.collect, "not_zmtp")
    scene.end(memory=BASE)


def test_one_log_line_per_peer_and_reason(testbed):
    """Two peers that violate the protocol in five ways, 100 times each. What they say reaches the log printable."""
    scene = Scene(testbed)
    lines = len(scene.collect.log().splitlines())
    ansi = b"\x1b[2J\r\nERROR"
    attacks = {
        "mechanism": lambda c: c.sendall(zmtp.greeting(mechanism=ansi)),
        "socket_type": lambda c: c.sendall(zmtp.GREETING + zmtp.ready(ansi)),
        "protocol": lambda c: c.sendall(zmtp.GREETING + zmtp.command(ansi)),
        "multipart": lambda c: c.sendall(zmtp.GREETING + zmtp.ready(b"PUSH") + zmtp.frame(ansi, zmtp.MORE)),
        "not_zmtp": lambda c: c.sendall(ansi),
    }
    addresses = ("127.0.0.2", "127.0.0.3")
    for _ in range(100):
        for address in addresses:
            for attack in attacks.values():
                connection = scene.connect(address)
                attack(connection)
                is_closed(connection)
                connection.close()
    for reason in attacks:
        equal(rejected(scene.collect, reason), 200, f"connections rejected for {reason}")
        check_logged(scene.collect, reason, lines=len(addresses))
    log = scene.collect.log()
    check("\x1b" not in log and "\r" not in log, "control characters in the log")
    equal(len(log.splitlines()) - lines, len(addresses) * len(attacks), "lines in the log")
    scene.end(memory=BASE)


def test_pings_without_end(testbed):
    """A peer that sends nothing but PING, and reads no answers, is closed or slowed down, and gets no memory."""
    scene = Scene(testbed)
    attackers = [scene.attacker() for _ in range(4)]
    pings = zmtp.command(b"PING", bytes(2 + 16)) * 10_000

    def flood(attacker):
        attacker.connection.settimeout(1)
        # If the collector stops reading, that is as good.
        with contextlib.suppress(TimeoutError):
            send_until_closed(attacker.connection, pings, 64 * MIB)

    floods = [threading.Thread(target=flood, args=(attacker,), daemon=True) for attacker in attackers]
    for thread in floods:
        thread.start()
    check_responsive(scene.collect)
    for thread in floods:
        thread.join()
    scene.go_on()
    scene.end(memory=BASE)
