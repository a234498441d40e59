"""The loss ledger: a collector's counters for one source, and the equations that must hold between them."""

from .outcome import check, equal

PLACES = ("kernel", "interface", "relay")


class Account:
    """The packet counters of one source at the collector."""

    def __init__(self, metrics, **labels):
        def packets(what, **more):
            return metrics.sum(f"packeteur_source_{what}_packets_total", **labels, **more)

        self.seen, self.captured, self.sent = packets("seen"), packets("captured"), packets("sent")
        self.received, self.written, self.late = packets("received"), packets("written"), packets("late")
        self.lost, self.recovered = packets("lost"), packets("recovered")
        self.sent_before_connect = packets("sent_before_connect")
        self.duplicates, self.discarded = packets("duplicate"), packets("discarded")
        self.dropped = {place: packets("dropped", place=place) for place in PLACES}
        self.missing = metrics.sum("packeteur_source_missing_packets", **labels)
        self.buffered = metrics.sum("packeteur_source_buffered_packets", **labels)
        self.runs = metrics.sum("packeteur_source_runs_total", **labels)

    def check_sums(self, ended=True):
        """Checks the equations of docs/metrics.md, section Ledger. The last one holds once the source has ended."""
        arrived = self.received + self.lost + self.sent_before_connect + self.missing - self.recovered
        equal(
            self.sent,
            arrived,
            f"sent = received + lost + sent before connect + missing - recovered, of {vars(self)}",
        )
        done = self.written + self.discarded + self.buffered
        equal(self.received, done, f"received = written + discarded + buffered, of {vars(self)}")
        equal(self.seen, self.captured + self.dropped["kernel"], f"seen = captured + dropped, of {vars(self)}")
        if ended:
            left = self.dropped["relay"] + self.sent
            equal(self.captured, left, f"captured = dropped by the relay + sent, of {vars(self)}")


def check_agreement(account, capture):
    """Checks that the collector's final counters for a source equal the capture's own metrics."""
    for what, got, expected in (
        ("sent", account.sent, capture.sum("packeteur_relay_sent_packets_total")),
        ("dropped by the relay", account.dropped["relay"], capture.sum("packeteur_relay_dropped_packets_total")),
        ("seen by the device", account.seen, capture.sum("packeteur_device_received_packets_total")),
        (
            "dropped by the kernel",
            account.dropped["kernel"],
            capture.sum("packeteur_device_dropped_packets_total", place="kernel"),
        ),
    ):
        equal(got, expected, f"{what}: collector's counter, capture's counter")


def nothing_lost(account):
    """Checks that every captured packet is in the output, in order."""
    check(account.captured > 0, "nothing was captured")
    for what in ("lost", "sent_before_connect", "missing", "buffered", "discarded", "late", "duplicates"):
        equal(getattr(account, what), 0, f"packets {what}")
    equal(account.dropped["kernel"] + account.dropped["relay"], 0, "packets dropped")
    equal(account.written, account.captured, "packets written, packets captured")
