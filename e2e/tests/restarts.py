"""Either side is killed, restarted, or away, while packets come: what is lost is known to the packet."""

import signal

from harness import traffic
from harness.ledger import Account, check_agreement, nothing_lost
from harness.outcome import check, equal, until

MIB = 1 << 20


def flow(scene, port, **settings):
    """A capture on `lo` of numbered datagrams to one port, and the datagrams, which begin when it captures."""
    capture = scene.capture(filter=f"udp dst port {port}", **settings).ready()
    return capture, traffic.Stream(scene.home, "127.0.0.1", port)


def port_of_traffic(scene):
    """A UDP port, and the socket that keeps it."""
    keeper = traffic.sink(scene.home, "127.0.0.1")
    return keeper.getsockname()[1], keeper


def check_numbers(got, sent, what):
    """Numbers of datagrams that rise, each there once."""
    check(all(a < b for a, b in zip(got, got[1:])), f"{what}: datagrams twice, or out of order")
    check(not got or got[-1] < sent, f"{what}: a datagram that was never sent")


def test_collector_killed_and_restarted(scene):
    """SIGKILL under traffic. What the second collector never saw is figures of its own (unheard, lost), and the
    sums are exact; nothing comes twice."""
    port, _keeper = port_of_traffic(scene)
    endpoint = scene.endpoint()
    first = scene.collect("first", collect_endpoint=endpoint)
    capture, stream = flow(scene, port, relay_endpoint=endpoint)
    first.wait_for_metric("packeteur_source_written_packets_total", 500)
    first.kill()
    capture.wait_for_log("lost the connection")
    second = scene.collect("second", collect_endpoint=endpoint)
    second.wait_for_metric("packeteur_source_written_packets_total", 500)
    sent = stream.end()
    capture.wait_for_metric("packeteur_device_received_packets_total", sent)
    capture.stop()
    figures = capture.last_metrics()
    equal(figures.sum("packeteur_device_received_packets_total"), sent, "packets seen, of those sent")
    until(
        lambda: (
            (m := second.metrics()).sum("packeteur_source_missing_packets") == 0
            and m.sum("packeteur_source_sent_packets_total") >= sent
        ),
        "the second collector knows the fate of all packets",
    )
    second.stop()

    account = Account(second.last_metrics(), source="capture")
    account.check_sums()
    check_agreement(account, figures)
    equal(account.captured, sent, "captured")
    check(account.unheard > 0, "nothing is said of what was sent before the second collector was there")
    before = traffic.numbers(scene.packets(first), port)
    after = traffic.numbers(scene.packets(second), port)
    check_numbers(before, sent, "the first collector's packets")
    check_numbers(after, sent, "the second collector's packets")
    equal(len(after), account.written, "packets in the second output")
    check(not set(before) & set(after), "packets came to both collectors")
    vanished = sent - len(before) - len(after)
    # What died with the first collector was under way: that is bounded by what ZeroMQ may hold.
    equal(account.unheard + account.lost - account.returned, len(before) + vanished, "unheard and lost")
    equal(figures.one("packeteur_relay_connections_total"), 2, "connections")
    equal(len(capture.log_lines("lost the connection")), 1, "times the log speaks of the lost connection")
    equal(len(capture.log_lines("connected to the collector")), 2, "times the log speaks of a connection")


def test_capture_killed_and_restarted(scene):
    """SIGKILL of the capture. The collector goes on, and books two runs of one source."""
    port, _keeper = port_of_traffic(scene)
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint)
    first, stream = flow(scene, port, relay_endpoint=endpoint, source_name="host")
    collect.wait_for_metric("packeteur_source_received_packets_total", 300)
    first.kill()
    received = collect.metrics().sum("packeteur_source_received_packets_total")
    second = scene.capture("second", filter=f"udp dst port {port}", relay_endpoint=endpoint, source_name="host")
    collect.wait_for_metric("packeteur_source_received_packets_total", received + 300)
    sent = stream.end()
    second.stop()
    collect.wait_for_metric("packeteur_source_written_packets_total", received + 300)
    until(lambda: collect.metrics().one("packeteur_source_up") == 0, "the source has ended")
    collect.stop()
    account = Account(collect.last_metrics(), source="host")
    # What the first run had captured, and not sent yet when it was killed, it may have spoken of, or not.
    account.check_sums(ended=False)
    check(account.captured - account.sent < 300, f"captured {account.captured}, and sent only {account.sent}")
    equal(account.runs, 2, "runs of the source")
    for what in ("lost", "unheard", "missing", "held", "skipped", "late", "duplicates"):
        equal(getattr(account, what), 0, f"packets {what}")
    got = traffic.numbers(scene.packets(collect), port)
    check_numbers(got, sent, "the collector's packets")
    equal(len(got), account.written, "packets in the output")
    gaps = [b - a for a, b in zip(got, got[1:]) if b - a > 1]
    equal(len(gaps), 1, f"only what came while no capture ran is missing; gaps: {gaps}")


def test_capture_stopped_delivers_all(scene):
    """SIGTERM in the middle of traffic: all that was captured arrives, exit code 0; SIGINT likewise."""
    port, _keeper = port_of_traffic(scene)
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint)
    for name, by in (("terminated", signal.SIGTERM), ("interrupted", signal.SIGINT)):
        capture = scene.capture(name, filter=f"udp dst port {port}", relay_endpoint=endpoint).ready()
        stream = traffic.Stream(scene.home, "127.0.0.1", port)
        collect.wait_for_metric("packeteur_source_received_packets_total", 200, source=name)
        capture.stop(by=by, seconds=5)
        stream.end()
        collect.wait_for_metric(
            "packeteur_source_written_packets_total",
            capture.last_metrics().sum("packeteur_relay_sent_packets_total"),
            source=name,
        )
    collect.stop()
    for name in ("terminated", "interrupted"):
        capture = next(program for program in scene.programs if program.name == name)
        account = Account(collect.last_metrics(), source=name)
        account.check_sums()
        nothing_lost(account)
        check_agreement(account, capture.last_metrics())


def test_capture_stopped_while_the_collector_is_away(scene):
    """It waits for a bounded time, says what is lost, counts it, and ends with exit code 0."""
    port, _keeper = port_of_traffic(scene)
    capture, stream = flow(scene, port, relay_endpoint=scene.endpoint())
    capture.wait_for_metric("packeteur_relay_waiting_packets", 100)
    sent = stream.end()
    capture.wait_for_metric("packeteur_device_received_packets_total", sent)
    capture.stop(seconds=9)
    equal(capture.last_metrics().sum("packeteur_relay_sent_packets_total"), 0, "packets sent")
    line = capture.losses_in_log()
    equal(len(line), 1, "lines about losses")
    check(f"packets={sent}" in line[0] and "lost" in line[0], f"the log does not say that {sent} are lost: {line[0]}")


def test_collector_away_for_a_while(scene):
    """RELAY_BUFFER bounds the memory; the oldest packets are shed, and counted; it finds the collector by itself;
    the log speaks of it once."""
    port, _keeper = port_of_traffic(scene)
    size, count = 60_000, 4000
    endpoint = scene.endpoint()
    capture = scene.capture(
        filter=f"udp dst port {port}", relay_endpoint=endpoint, relay_buffer="8MiB", buffer_size="32MiB"
    ).ready()
    traffic.burst(scene.home, "127.0.0.1", port, count, size, rest=100, pause=0.03)
    capture.wait_for_metric("packeteur_device_received_packets_total", count)
    metrics = capture.metrics()
    check(metrics.one("packeteur_relay_waiting_bytes") <= 8 * MIB, "more waits than RELAY_BUFFER")
    # 32 MiB for the program itself, RELAY_BUFFER, BUFFER_SIZE.
    limit = 32 * MIB + 8 * MIB + 32 * MIB
    check(capture.memory_peak() < limit, f"{capture.memory_peak() / MIB:.0f} MiB of memory, of {limit / MIB:.0f}")
    capture.wait_for_log("no collector there so far", 10)

    collect = scene.collect(collect_endpoint=endpoint)
    capture.connected()
    capture.stop()
    figures = capture.last_metrics()
    sent = figures.sum("packeteur_relay_sent_packets_total")
    collect.wait_for_metric("packeteur_source_written_packets_total", sent)
    collect.stop()
    account = Account(collect.last_metrics(), source="capture")
    account.check_sums()
    check_agreement(account, figures)
    equal(account.seen, count, "packets seen by the device")
    equal(account.lost + account.unheard, 0, "lost on the way")
    check(account.dropped["relay"] > count / 2, "hardly any were shed")
    got = traffic.numbers(scene.packets(collect), port)
    check_numbers(got, count, "the collector's packets")
    equal(len(got), sent, "packets in the output")
    equal(got[-1], count - 1, "the newest packet")
    equal(len(capture.log_lines("no collector there so far")), 1, "times the log says that there is no collector")
