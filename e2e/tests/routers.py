"""Anyone who reaches a TZSP port can send from any address: what made-up routers cost, and that others go on."""

import socket
import time

from testkit import frames
from testkit.ledger import Account, nothing_lost
from testkit.outcome import check, equal, until

# The TZSP header of MikroTik's sniffer: version 1, received packet, Ethernet; then the end tag.
TZSP = bytes.fromhex("0100000101")


def send_from(testbed, address, port, count=1):
    """Sends datagrams with a packet each from an address of the loopback network."""
    with testbed.home.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        router.bind((address, 0))
        for number in range(count):
            router.sendto(TZSP + frames.frame(number, 60), ("127.0.0.1", port))


def addresses(count):
    """Addresses of the loopback network."""
    return [f"127.1.{number // 250}.{1 + number % 250}" for number in range(count)]


def batches_per_second(capture, seconds=2):
    def sent():
        return capture.metrics().sum("packeteur_relay_sent_batches_total")

    before, began = sent(), time.monotonic()
    time.sleep(seconds)
    return (sent() - before) / (time.monotonic() - began)


def test_made_up_routers_fall_silent(testbed):
    """400 addresses send a datagram each: soon most of them cost nothing, at both ends. One that sends again is
    accounted for to the packet."""
    endpoint = testbed.endpoint()
    port = testbed.home.free_port()
    collect = testbed.collect(collect_endpoint=endpoint)
    capture = testbed.capture(tzsp_port=str(port), relay_endpoint=endpoint).ready().connected()
    for address in addresses(400):
        send_from(testbed, address, port)
    collect.wait_for_metric("packeteur_source_received_packets_total", 400)
    equal(capture.metrics().sum("packeteur_tzsp_routers"), 400, "routers")

    def ended():
        return 400 - collect.metrics().sum("packeteur_source_up", listen_port=str(port)) >= 250

    until(ended, "routers that were silent have ended")
    # 128 idle routers and the port itself, each 13.3 times a second.
    rate = batches_per_second(capture)
    check(rate < 2000, f"{rate:.0f} batches a second")
    # The first address was silent for longest.
    first = {"device": addresses(1)[0], "listen_port": str(port)}
    equal(collect.metrics().one("packeteur_source_up", **first), 0, "the first router is up")
    send_from(testbed, addresses(1)[0], port, count=5)
    collect.wait_for_metric("packeteur_source_received_packets_total", 6, **first)
    equal(collect.metrics().one("packeteur_source_up", **first), 1, "the first router is up")
    equal(collect.metrics().sum("packeteur_source_lost_packets_total"), 0, "packets lost")
    capture.stop()
    collect.stop()
    account = Account(collect.last_metrics(), **first)
    account.check_sums()
    nothing_lost(account)
    equal(account.written, 6, "packets of the first router")


def test_flood_of_made_up_routers(testbed):
    """More addresses than a capture remembers: their packets are relayed or counted, memory stays bounded, and a router
    that was there before loses nothing."""
    endpoint = testbed.endpoint()
    port = testbed.home.free_port()
    collect = testbed.collect(collect_endpoint=endpoint)
    capture = testbed.capture(tzsp_port=str(port), relay_endpoint=endpoint).ready().connected()
    send_from(testbed, "127.2.0.1", port, count=10)
    until(lambda: capture.metrics().sum("packeteur_tzsp_packets_total") == 10, "the honest router's packets")
    sent = 10
    for round_number in range(3):
        for address in addresses(3000):
            send_from(testbed, address.replace("127.1.", f"127.{10 + round_number}."), port)
        send_from(testbed, "127.2.0.1", port, count=10)
        sent += 3010
    until(lambda: capture.metrics().sum("packeteur_tzsp_packets_total") == sent, "all datagrams are received")
    metrics = capture.metrics()
    dropped = metrics.sum("packeteur_tzsp_untracked_packets_total")
    check(metrics.sum("packeteur_tzsp_routers") <= 4096, "more routers than a capture remembers")
    # The others were not tracked: how many depends on the time that the flood takes.
    forgotten = metrics.sum("packeteur_tzsp_forgotten_routers_total")
    check(forgotten > 0, "no routers were forgotten")
    check(forgotten + dropped >= 9000 - 4096, f"{forgotten} forgotten, {dropped} untracked")
    until(
        lambda: capture.metrics().sum("packeteur_relay_sent_packets_total") == sent - dropped,
        "packets are relayed or counted",
    )
    check(capture.memory_peak() < 64 << 20, f"{capture.memory_peak()} bytes of memory")
    honest = {"device": "127.2.0.1", "listen_port": str(port)}
    until(lambda: collect.metrics().sum("packeteur_source_received_packets_total", **honest) == 40, "honest packets")
    lines = len(capture.log_lines("new TZSP router"))
    check(lines < 100, f"{lines} log lines")
    capture.stop()
    collect.stop()
