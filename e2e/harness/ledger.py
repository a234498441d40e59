"""The sums of the loss ledger: what a collector says of its sources, and what a capture says of itself."""

from .outcome import check, equal

PLACES = ("kernel", "interface", "relay")


class Account:
    """The figures of one source at the collector."""

    def __init__(self, metrics, **labels):
        def packets(what, **more):
            return metrics.sum(f"packeteur_source_{what}_packets_total", **labels, **more)

        self.captured, self.sent, self.received = packets("captured"), packets("sent"), packets("received")
        self.seen, self.written, self.late = packets("seen"), packets("written"), packets("late")
        self.lost, self.unheard, self.returned = packets("lost"), packets("unheard"), packets("returned")
        self.duplicates, self.skipped = packets("duplicate"), packets("skipped")
        self.dropped = {place: packets("dropped", place=place) for place in PLACES}
        self.missing = metrics.sum("packeteur_source_missing_packets", **labels)
        self.held = metrics.sum("packeteur_source_held_packets", **labels)
        self.runs = metrics.sum("packeteur_source_runs_total", **labels)

    def check_sums(self, ended=True):
        """The sums that crates/merge/src/ledger/figures.rs promises; some of them only once the source has ended."""
        came = self.received + self.lost + self.unheard + self.missing - self.returned
        equal(self.sent, came, f"sent = received + lost + unheard + missing - returned, of {vars(self)}")
        gone = self.written + self.skipped + self.held
        equal(self.received, gone, f"received = written + skipped + held, of {vars(self)}")
        equal(self.seen, self.captured + self.dropped["kernel"], f"seen = captured + dropped, of {vars(self)}")
        if ended:
            left = self.dropped["relay"] + self.sent
            equal(self.captured, left, f"captured = dropped by the relay + sent, of {vars(self)}")


def check_agreement(account, capture):
    """What the collector knows of a source in the end is what the capture's own metrics say."""
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
        equal(got, expected, f"{what}: the collector's figure, the capture's")


def nothing_lost(account):
    """All that was captured is in the output, in order."""
    check(account.captured > 0, "nothing was captured")
    for what in ("lost", "unheard", "missing", "held", "skipped", "late", "duplicates"):
        equal(getattr(account, what), 0, f"packets {what}")
    equal(account.dropped["kernel"] + account.dropped["relay"], 0, "packets dropped")
    equal(account.written, account.captured, "packets written, of those captured")
