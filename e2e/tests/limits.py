"""When it ends by itself: MAX_PACKETS, MAX_DURATION, EXIT_ON_END; and that standard output is nothing but the
stream."""

import time

from harness import frames, pcap, traffic
from harness.host import Host, join
from harness.ledger import Account
from harness.outcome import check, equal, until


def datagrams(scene):
    """An endless stream of datagrams, and the filter that selects them."""
    keeper = traffic.sink(scene.home, "127.0.0.1")
    port = keeper.getsockname()[1]
    return traffic.Stream(scene.home, "127.0.0.1", port), f"udp dst port {port}", keeper


def test_max_packets_of_a_capture(scene):
    """Exactly so many are relayed: of a device, of several together, of a file, of what passes the filter of a file.
    Then it ends, with exit code 0."""
    stream, expression, _keeper = datagrams(scene)
    join(scene.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    beside = traffic.Stream(scene.home, "10.8.0.2", 9)
    path = scene.write("in.pcap", pcap.encode(frames.packets(5000)))
    for name, settings in (
        ("device", {"filter": expression}),
        ("devices", {"device": "lo,near", "filter": f"{expression} or udp dst port 9"}),
        ("file", {"read_file": path}),
        ("filtered", {"read_file": path, "filter": "ip6"}),
    ):
        endpoint = scene.endpoint()
        collect = scene.collect(f"{name}-collect", collect_endpoint=endpoint, exit_on_end="true")
        capture = scene.capture(name, relay_endpoint=endpoint, max_packets="137", **settings)
        capture.wait()
        collect.wait()
        equal(len(scene.packets(collect)), 137, f"packets ({name})")
        equal(capture.last_metrics().sum("packeteur_relay_sent_packets_total"), 137, f"packets sent ({name})")
    stream.end()
    beside.end()


def test_max_packets_of_an_exporter(scene):
    """Exactly so many are measured."""
    stream, expression, _keeper = datagrams(scene)
    path = scene.write("in.pcap", pcap.encode(frames.packets(5000)))
    for name, settings in (("device", {"filter": expression}), ("file", {"read_file": path})):
        observe = scene.observe(name, max_packets="137", **settings)
        observe.wait()
        equal(observe.last_metrics().sum("packeteur_capture_total"), 137, f"packets ({name})")
        equal(observe.output(), b"", "standard output")
    stream.end()


def test_max_packets_of_a_collector(scene):
    """Exactly so many are written, also where the limit lies within a batch, in both formats; the rest is counted."""
    path = scene.write("in.pcap", pcap.encode(frames.packets(5000)))
    for output_format in ("pcap", "pcapng"):
        endpoint = scene.endpoint()
        collect = scene.collect(
            f"{output_format}-collect", collect_endpoint=endpoint, max_packets="1234", output_format=output_format
        )
        capture = scene.capture(f"{output_format}-capture", relay_endpoint=endpoint, read_file=path)
        collect.wait()
        equal(len(scene.packets(collect)), 1234, f"packets ({output_format})")
        metrics = collect.last_metrics()
        account = Account(metrics)
        account.check_sums(ended=False)
        equal(account.written, 1234, "packets written")
        limited = metrics.sum("packeteur_source_skipped_packets_total", reason="limit")
        equal(limited, account.received - 1234, "packets beyond the limit")
        capture.process.wait(15)


def test_max_duration(scene):
    """It ends after so long, with exit code 0, in every mode."""
    endpoint = scene.endpoint()
    began = time.monotonic()
    programs = [
        scene.collect(collect_endpoint=endpoint, max_duration="1500ms"),
        scene.observe(max_duration="1s"),
        scene.capture(max_duration="1s", filter="udp port 1", relay_endpoint=endpoint),
    ]
    for program in programs:
        program.wait(seconds=10)
        check(time.monotonic() - began >= 1, f"{program.name} ended too early")
    check(time.monotonic() - began < 8, "they took too long")


def test_exit_on_end(scene):
    """A collector that is told so ends when the last of all sources has; otherwise it stays."""
    endpoint = scene.endpoint()
    path = scene.write("in.pcap", pcap.encode(frames.packets(100)))
    stays = scene.collect("stays", collect_endpoint=endpoint)
    scene.capture("first", relay_endpoint=endpoint, read_file=path).wait()
    until(lambda: stays.metrics().values("packeteur_source_up") == [0], "the source has ended")
    stays.stop()

    goes = scene.collect("goes", collect_endpoint=endpoint, exit_on_end="true")
    live = scene.capture("live", filter="udp port 1", relay_endpoint=endpoint).ready()
    goes.wait_for_log("a source came origin=live")
    scene.capture("second", relay_endpoint=endpoint, read_file=path).wait()
    goes.wait_for_metric("packeteur_source_written_packets_total", 100, source="second")
    check(goes.process.poll() is None, "it ended before the last source had")
    live.stop()
    goes.wait()
    equal(len(scene.packets(goes)), 100, "packets")


def test_output_file(scene):
    """OUTPUT: a file holds the stream, and standard output nothing."""
    packets = frames.packets(100)
    path = scene.write("in.pcap", pcap.encode(packets))
    out = scene.path("out.pcap")
    _, collect = scene.relay_file(path, collector={"output": out})
    with open(out, "rb") as file:
        equal(pcap.parse(file.read()).packets, packets, "packets")
    equal(collect.output(), b"", "standard output")
    nowhere = scene.pcktr("nowhere", mode="collect", collect_endpoint=scene.endpoint(), output="/nowhere/out.pcap")
    nowhere.wait(code=1)
    check("OUTPUT: cannot write to `/nowhere/out.pcap`" in nowhere.log(), nowhere.log())


def test_standard_output_is_the_stream(scene):
    """To the last byte what comes out is a capture file, however much there is to log; the other modes write
    nothing."""
    packets = frames.packets(3000)
    path = scene.write("in.pcap", pcap.encode(packets))
    capture, collect = scene.relay_file(path, collector={"log": "trace"}, log="trace")
    check(collect.log_lines("DEBUG") and capture.log(), "nothing was logged")
    equal(collect.output(), pcap.encode(packets), "bytes of the stream")
    equal(capture.output(), b"", "standard output of the capture")
    empty = scene.collect("empty", collect_endpoint=scene.endpoint())
    empty.stop()
    equal(empty.output(), pcap.encode([]), "stream of a collector that heard of nobody")
