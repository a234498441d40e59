"""Captures on several hosts at once, compared with tcpdump on the same devices."""

import socket
import threading
import time

from testkit import pcap, traffic
from testkit.ledger import Account, check_agreement, nothing_lost
from testkit.outcome import check, equal, until


def talk(hosts, connections):
    """Every host sends to every other: ping, datagrams, fragments, and TCP segments of up to 64 KiB."""
    for index, host in enumerate(hosts):
        for number, other in enumerate(hosts, 1):
            if number == index + 1:
                continue
            address = f"10.9.0.{number}"
            host.run("ping", "-q", "-c", "3", "-i", "0.01", "-s", str(200 * number), address)
            with traffic.sink(other, address, 4000 + index):
                for size in (8, 100, 1472, 9000):
                    traffic.burst(host, address, 4000 + index, 40, size)
            if connections:
                echo(host, other, address)


def echo(host, other, address):
    """Sends data on a TCP connection, and receives it back. With the offloads of veth devices, the captured segments
    have up to 64 KiB."""
    with other.open_socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with host.connect(address, listener.getsockname()[1]) as connection:
            for size in (1, 100, 1448, 1449, 9000, 65536, 300_000):
                sent = bytes(size)
                sender = threading.Thread(target=connection.sendall, args=(sent,))
                sender.start()
                left = size
                while left:
                    left -= len(connection.recv(1 << 16))
                sender.join()
        thread.join()


def in_order(packets):
    times = [packet.time for packet in packets]
    return all(a <= b for a, b in zip(times, times[1:]))


def beside_tcpdump(testbed, connections, output_format):
    """Captures on three hosts while they send, with tcpdump on each of them. Returns the hosts, the collector, the
    packets that the collector wrote, and those of each tcpdump."""
    hosts = testbed.lan("one", "two", "three")
    clock = traffic.share_timestamps(testbed.home)
    endpoint = testbed.endpoint("10.9.0.100")
    # The relay uses the same devices. A capture excludes its own connection.
    expression = f"not tcp port {endpoint.rpartition(':')[2]}"
    dumps = [testbed.tcpdump(f"tcpdump-{host.name}", "eth0", host, expression) for host in hosts]
    collect = testbed.collect(collect_endpoint=endpoint, output_format=output_format)
    captures = [testbed.capture(host.name, host, device="eth0", relay_endpoint=endpoint) for host in hosts]
    for capture in captures:
        capture.ready().connected()
    begin = time.time_ns()
    talk(hosts, connections)
    end = time.time_ns()
    # When these later packets are in the files, everything before has been written.
    for number, host in enumerate(hosts, 1):
        host.run("ping", "-q", "-c", "2", "-i", "0.01", f"10.9.0.{number % 3 + 1}")

    def within(packets):
        return [packet for packet in packets if begin <= packet.time <= end]

    seen = []
    for tcpdump, path in dumps:

        def everything(path=path):
            with open(path, "rb") as file:
                packets = pcap.parse(file.read()).packets
            return packets if packets and packets[-1].time > end else None

        seen.append(within(until(everything, f"{tcpdump.name} has not written all packets")))
        tcpdump.stop()
    for capture in captures:
        capture.stop()
    collect.wait_for_metric(
        "packeteur_source_written_packets_total",
        sum(capture.last_metrics().sum("packeteur_relay_sent_packets_total") for capture in captures),
    )
    collect.stop()
    clock.close()

    metrics = collect.last_metrics()
    for capture in captures:
        account = Account(metrics, source=capture.name, device="eth0")
        account.check_sums()
        nothing_lost(account)
        check_agreement(account, capture.last_metrics())
        equal(capture.losses_in_log(), [], f"errors in the log of {capture.name}")
    written = testbed.packets(collect)
    check(in_order(written), "the packets are not in order")
    return hosts, collect, within(written), seen


def test_three_talking_hosts_match_tcpdump(testbed):
    """The collector writes what tcpdump captured on the three devices: the same bytes and timestamps, in order, and
    without the relay's own packets."""
    _, _, written, seen = beside_tcpdump(testbed, connections=False, output_format="pcap")
    everything = [packet for packets in seen for packet in packets]
    check(len(everything) > 3000, f"only {len(everything)} packets: too few for a meaningful test")
    # Packets of the same nanosecond may be in any order.
    equal(sorted(written), sorted(everything), "packets of the collector, packets of tcpdump")


def test_three_connected_hosts_match_tcpdump(testbed):
    """The same with TCP and large segments, host by host.

    The timestamp of an outgoing TCP segment is its departure time (`skb->tstamp_type`), so each capture socket takes a
    timestamp of its own. The two captures of a segment may differ by the time between them."""
    hosts, collect, written, seen = beside_tcpdump(testbed, connections=True, output_format="pcapng")
    names = [interface.name for interface in testbed.capture_file(collect).interfaces]
    check(max(len(packet.data) for packets in seen for packet in packets) > 32_000, "no large segments")
    for host, dumped in zip(hosts, seen):
        interface = names.index(f"{host.name}/eth0")
        got = [packet._replace(interface=0) for packet in written if packet.interface == interface]
        what = f"of collector and tcpdump on {host.name}"
        # A device may deliver packets microseconds out of order, and tcpdump does not sort them.
        others = [sorted(p for p in packets if not is_tcp(p)) for packets in (got, dumped)]
        equal(*others, f"packets {what}")
        # Two segments at nearly the same time may be captured in either order.
        segments = [sorted(filter(is_tcp, packets), key=lambda p: (p.data, p.time)) for packets in (got, dumped)]
        equal([p.data for p in segments[0]], [p.data for p in segments[1]], f"segments {what}")
        apart = max(abs(a.time - b.time) for a, b in zip(*segments))
        check(apart < 10_000_000, f"timestamps of segments differ by up to {apart} ns")


def is_tcp(packet):
    return packet.data[12:14] == b"\x08\0" and packet.data[23] == 6


def test_several_devices_of_one_host(testbed):
    """`DEVICE=a,b` makes two sources, merged in order."""
    testbed.lan("one")
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, output_format="pcapng", exit_on_end="true")
    capture = testbed.capture(device="switch, port1", filter="icmp", relay_endpoint=endpoint).ready().connected()
    testbed.home.run("ping", "-q", "-c", "5", "-i", "0.05", "10.9.0.1")
    collect.wait_for_metric("packeteur_source_received_packets_total", 20)
    capture.stop()
    collect.wait()
    file = testbed.capture_file(collect)
    check(in_order(file.packets), "the packets are not in order")
    counts = {
        interface.name: sum(packet.interface == number for packet in file.packets)
        for number, interface in enumerate(file.interfaces)
    }
    equal(counts, {"capture/switch": 10, "capture/port1": 10}, "packets of each device")
    metrics = collect.last_metrics()
    for device in ("switch", "port1"):
        account = Account(metrics, source="capture", device=device)
        account.check_sums()
        nothing_lost(account)
