"""Who reads the collector's output: slowly, or no more."""

import subprocess
import threading
import time

from harness import frames, pcap, traffic
from harness.ledger import Account, check_agreement, nothing_lost
from harness.outcome import check, equal

# How long a slow reader does not read.
PAUSE = 2.5


def large_file(scene):
    """More packets than all buffers between a file and a reader have room for: 150 MB."""
    packets = frames.packets(2500, 60_000)
    return packets, scene.write("in.pcap", pcap.encode(packets))


def test_slow_reader_of_a_file_loses_nothing(scene):
    """A file waits: when the reader reads at last, everything is there."""
    packets, path = large_file(scene)
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, exit_on_end="true", stdout=subprocess.PIPE)
    capture = scene.capture(relay_endpoint=endpoint, read_file=path, relay_buffer="1MiB")
    time.sleep(PAUSE)
    check(capture.process.poll() is None, "the capture did not wait for the reader")
    written = collect.stdout.read()
    capture.wait()
    collect.wait()
    equal(pcap.parse(written).packets, packets, "packets")
    account = Account(collect.last_metrics())
    account.check_sums()
    nothing_lost(account)


def test_slow_reader_of_a_device_loses_what_is_counted(scene):
    """A device does not wait: what RELAY_BUFFER has no room for is counted at the capture that lost it, and the
    collector knows of it."""
    keeper = traffic.sink(scene.home, "127.0.0.1")
    port = keeper.getsockname()[1]
    count = 2500
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, stdout=subprocess.PIPE)
    capture = scene.capture(
        filter=f"udp dst port {port}", relay_endpoint=endpoint, relay_buffer="1MiB", buffer_size="32MiB"
    )
    capture.ready().connected()
    traffic.burst(scene.home, "127.0.0.1", port, count, 60_000, rest=50, pause=0.03)
    capture.wait_for_metric("packeteur_device_received_packets_total", count)
    dropped = capture.metrics().sum("packeteur_relay_dropped_packets_total")
    check(dropped > 0, "nothing was lost: the test shows nothing")
    capture.process.terminate()
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
    equal(account.lost + account.unheard + account.late, 0, "packets lost on the way, or late")


def test_reader_gone(scene):
    """`| head -c`: the collector ends with exit code 0, and says why; what it could not write is counted."""
    _, path = large_file(scene)
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, stdout=subprocess.PIPE)
    capture = scene.capture(relay_endpoint=endpoint, read_file=path)
    equal(len(collect.stdout.read(1000)), 1000, "bytes read")
    collect.stdout.close()
    collect.wait()
    check(collect.log_lines("the reader of the output has gone"), "the log does not say why it ended")
    equal(collect.losses_in_log(), [], "errors in the log")
    account = Account(collect.last_metrics())
    account.check_sums(ended=False)
    closed = collect.last_metrics().sum("packeteur_source_skipped_packets_total", reason="closed")
    equal(account.skipped, closed, "packets skipped, of those for which there was no reader")
    check(account.skipped > 0, "nothing is counted as not written")
    # A file's packets do not grow old: its capture waits for the next collector, until it is told to stop.
    check(capture.process.poll() is None, "the capture ended although nobody took its packets")
    capture.stop()


def test_output_to_a_full_disk(scene):
    """A file that cannot be written is an error, with exit code 1."""
    path = scene.write("in.pcap", pcap.encode(frames.packets(40_000, 200)))
    endpoint = scene.endpoint()
    collect = scene.collect(collect_endpoint=endpoint, output="/dev/full")
    scene.capture(relay_endpoint=endpoint, read_file=path)
    collect.wait(code=1)
    check(collect.log_lines(r"ERROR.*OUTPUT: cannot write: No space left"), "the log does not say so")
