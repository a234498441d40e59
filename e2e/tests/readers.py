"""Readers of the collector's output that are slow or go away, and a full disk."""

import signal
import subprocess
import threading
import time

from testkit import frames, pcap, traffic
from testkit.ledger import Account, check_agreement, nothing_lost
from testkit.outcome import check, equal

# Seconds for which a slow reader does not read.
PAUSE = 2.5


def large_file(testbed):
    """A file that exceeds all buffers between capture and reader: 150 MB."""
    packets = frames.packets(2500, 60_000)
    return packets, testbed.write("in.pcap", pcap.encode(packets))


def test_slow_reader_of_a_file_loses_nothing(testbed):
    """Reading a file waits for a slow reader: nothing is lost."""
    packets, path = large_file(testbed)
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, exit_on_end="true", stdout=subprocess.PIPE)
    capture = testbed.capture(relay_endpoint=endpoint, read_file=path, relay_buffer="1MiB")
    time.sleep(PAUSE)
    check(capture.is_running(), "the capture did not wait for the reader")
    written = collect.stdout.read()
    capture.wait()
    collect.wait()
    equal(pcap.parse(written).packets, packets, "packets")
    account = Account(collect.last_metrics())
    account.check_sums()
    nothing_lost(account)


def test_slow_reader_of_a_device_causes_counted_drops(testbed):
    """A device does not wait: when RELAY_BUFFER is full, packets are dropped and counted, at the capture and at the
    collector."""
    keeper = traffic.sink(testbed.home, "127.0.0.1")
    port = keeper.getsockname()[1]
    count = 2500
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, stdout=subprocess.PIPE)
    capture = testbed.capture(
        filter=f"udp dst port {port}", relay_endpoint=endpoint, relay_buffer="1MiB", buffer_size="32MiB"
    )
    capture.ready().connected()
    traffic.burst(testbed.home, "127.0.0.1", port, count, 60_000, rest=50, pause=0.03)
    capture.wait_for_metric("packeteur_device_received_packets_total", count)
    dropped = capture.metrics().sum("packeteur_relay_dropped_packets_total")
    check(dropped > 0, "nothing was dropped: not a meaningful test")
    capture.send_signal(signal.SIGTERM)
    reader = threading.Thread(target=collect.stdout.read, daemon=True)
    reader.start()
    capture.wait()
    figures = capture.last_metrics()
    collect.wait_for_metric("packeteur_source_written_packets_total", figures.sum("packeteur_relay_sent_packets_total"))
    collect.stop()
    reader.join()
    account = Account(collect.last_metrics(), source="capture")
    account.check_sums()
    check_agreement(account, figures)
    equal(account.seen, count, "packets seen")
    equal(account.lost + account.sent_before_connect + account.late, 0, "packets lost in transit, or late")


def test_reader_goes_away(testbed):
    """`| head -c`: the collector exits with code 0 and logs why. Packets that it could not write are counted."""
    _, path = large_file(testbed)
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, stdout=subprocess.PIPE)
    capture = testbed.capture(relay_endpoint=endpoint, read_file=path)
    equal(len(collect.stdout.read(1000)), 1000, "bytes read")
    collect.stdout.close()
    collect.wait()
    check(collect.log_lines("the output's reader has gone: exiting"), "the log does not say why it exited")
    equal(collect.losses_in_log(), [], "errors in the log")
    account = Account(collect.last_metrics())
    account.check_sums(ended=False)
    closed = collect.last_metrics().sum("packeteur_source_discarded_packets_total", reason="output_closed")
    equal(account.discarded, closed, "packets discarded, packets discarded because the reader went away")
    check(account.discarded > 0, "no packet is counted as discarded")
    # The capture of a file waits for the next collector until it is stopped.
    check(capture.is_running(), "the capture exited before its packets were received")
    capture.stop()


def test_output_to_a_full_disk(testbed):
    """A write error: exit code 1."""
    path = testbed.write("in.pcap", pcap.encode(frames.packets(40_000, 200)))
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint, output="/dev/full")
    testbed.capture(relay_endpoint=endpoint, read_file=path)
    collect.wait(code=1)
    check(collect.log_lines(r"ERROR.*OUTPUT: cannot write: No space left"), "the log does not report it")
