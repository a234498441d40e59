"""MAX_PACKETS, MAX_DURATION and EXIT_ON_END; and the output: nothing but the capture stream."""

import time

from testkit import frames, pcap, traffic
from testkit.host import Host, join
from testkit.ledger import Account
from testkit.outcome import check, equal, until


def datagrams(testbed):
    """Starts a stream of datagrams. Returns the stream, the filter that selects it, and the socket that receives it."""
    keeper = traffic.sink(testbed.home, "127.0.0.1")
    port = keeper.getsockname()[1]
    return traffic.Stream(testbed.home, "127.0.0.1", port), f"udp dst port {port}", keeper


def test_max_packets_of_a_capture(testbed):
    """A capture relays exactly MAX_PACKETS packets, then exits with code 0: from one device, from several, from a file,
    and from a file with a filter."""
    stream, expression, _keeper = datagrams(testbed)
    join(testbed.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    other = traffic.Stream(testbed.home, "10.8.0.2", 9)
    path = testbed.write("in.pcap", pcap.encode(frames.packets(5000)))
    for name, settings in (
        ("device", {"filter": expression}),
        ("devices", {"device": "lo,near", "filter": f"{expression} or udp dst port 9"}),
        ("file", {"read_file": path}),
        ("filtered", {"read_file": path, "filter": "ip6"}),
    ):
        endpoint = testbed.endpoint()
        collect = testbed.collect(f"{name}-collect", collect_endpoint=endpoint, exit_on_end="true")
        capture = testbed.capture(name, relay_endpoint=endpoint, max_packets="137", **settings)
        capture.wait()
        collect.wait()
        equal(len(testbed.packets(collect)), 137, f"packets ({name})")
        equal(capture.last_metrics().sum("packeteur_relay_sent_packets_total"), 137, f"packets sent ({name})")
    stream.stop()
    other.stop()


def test_max_packets_of_an_exporter(testbed):
    """An exporter measures exactly MAX_PACKETS packets."""
    stream, expression, _keeper = datagrams(testbed)
    path = testbed.write("in.pcap", pcap.encode(frames.packets(5000)))
    for name, settings in (("device", {"filter": expression}), ("file", {"read_file": path})):
        observe = testbed.observe(name, max_packets="137", **settings)
        observe.wait()
        equal(observe.last_metrics().sum("packeteur_capture_total"), 137, f"packets ({name})")
        equal(observe.output(), b"", "standard output")
    stream.stop()


def test_max_packets_of_a_collector(testbed):
    """A collector writes exactly MAX_PACKETS packets in both formats, even within a batch. The rest is counted."""
    path = testbed.write("in.pcap", pcap.encode(frames.packets(5000)))
    for output_format in ("pcap", "pcapng"):
        endpoint = testbed.endpoint()
        collect = testbed.collect(
            f"{output_format}-collect", collect_endpoint=endpoint, max_packets="1234", output_format=output_format
        )
        capture = testbed.capture(f"{output_format}-capture", relay_endpoint=endpoint, read_file=path)
        collect.wait()
        equal(len(testbed.packets(collect)), 1234, f"packets ({output_format})")
        metrics = collect.last_metrics()
        account = Account(metrics)
        account.check_sums(ended=False)
        equal(account.written, 1234, "packets written")
        discarded = metrics.sum("packeteur_source_discarded_packets_total", reason="max_packets")
        equal(discarded, account.received - 1234, "packets beyond the limit")
        capture.wait(code=None, seconds=15)


def test_max_duration(testbed):
    """In every mode the program exits after MAX_DURATION, with code 0."""
    endpoint = testbed.endpoint()
    began = time.monotonic()
    programs = [
        testbed.collect(collect_endpoint=endpoint, max_duration="1500ms"),
        testbed.observe(max_duration="1s"),
        testbed.capture(max_duration="1s", filter="udp port 1", relay_endpoint=endpoint),
    ]
    for program in programs:
        program.wait(seconds=10)
        check(time.monotonic() - began >= 1, f"{program.name} exited too early")
    check(time.monotonic() - began < 8, "they exited too late")


def test_exit_on_end(testbed):
    """With EXIT_ON_END a collector exits when its last source has ended. Without it, it keeps running."""
    endpoint = testbed.endpoint()
    path = testbed.write("in.pcap", pcap.encode(frames.packets(100)))
    stays = testbed.collect("stays", collect_endpoint=endpoint)
    testbed.capture("first", relay_endpoint=endpoint, read_file=path).wait()
    until(lambda: stays.metrics().values("packeteur_source_up") == [0], "the source has not ended")
    stays.stop()

    goes = testbed.collect("goes", collect_endpoint=endpoint, exit_on_end="true")
    live = testbed.capture("live", filter="udp port 1", relay_endpoint=endpoint).ready()
    goes.wait_for_log("new source origin=live")
    testbed.capture("second", relay_endpoint=endpoint, read_file=path).wait()
    goes.wait_for_metric("packeteur_source_written_packets_total", 100, source="second")
    check(goes.is_running(), "it exited before its last source ended")
    live.stop()
    goes.wait()
    equal(len(testbed.packets(goes)), 100, "packets")


def test_output_file(testbed):
    """OUTPUT=FILE: the stream goes to the file, and nothing to standard output."""
    packets = frames.packets(100)
    path = testbed.write("in.pcap", pcap.encode(packets))
    out = testbed.path("out.pcap")
    _, collect = testbed.relay_file(path, collector={"output": out})
    with open(out, "rb") as file:
        equal(pcap.parse(file.read()).packets, packets, "packets")
    equal(collect.output(), b"", "standard output")
    nowhere = testbed.pcktr("nowhere", mode="collect", collect_endpoint=testbed.endpoint(), output="/nowhere/out.pcap")
    nowhere.wait(code=1)
    check("OUTPUT: cannot write to `/nowhere/out.pcap`" in nowhere.log(), nowhere.log())


def test_standard_output_is_the_stream(testbed):
    """A collector's standard output is exactly the capture file, whatever is logged. The other modes write nothing
    there."""
    packets = frames.packets(3000)
    path = testbed.write("in.pcap", pcap.encode(packets))
    capture, collect = testbed.relay_file(path, collector={"log": "trace"}, log="trace")
    check(collect.log_lines("DEBUG") and capture.log(), "nothing was logged")
    equal(collect.output(), pcap.encode(packets), "bytes of the stream")
    equal(capture.output(), b"", "standard output of the capture")
    empty = testbed.collect("empty", collect_endpoint=testbed.endpoint())
    empty.stop()
    equal(empty.output(), pcap.encode([]), "stream of a collector without sources")
