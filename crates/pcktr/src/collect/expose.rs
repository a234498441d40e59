//! The collector's metrics: the ledger of every source, and the collector itself.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use merge::ledger::{Figures, Skip};
use observe::{Exposition, Kind, Labels};
use packet::{Origin, Timestamp};

use super::Shared;

/// A source from which nothing has come for so long is not up.
const SILENCE: Duration = Duration::from_secs(2);

/// Writes all that a collector has to say.
pub(super) fn expose(shared: &Shared, out: &mut Exposition) {
    let now: Timestamp = SystemTime::now().into();
    let sources: Vec<Row> = {
        let mut ledger = shared.ledger();
        ledger.settle(now);
        ledger.sources().map(|(origin, figures)| Row::new(origin, figures)).collect()
    };
    expose_sources(&sources, now, out);
    shared.foreign.expose(out);
    let load = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
    let accepted = load(&shared.connections.accepted);
    let open = accepted.saturating_sub(load(&shared.connections.ended));
    for (name, kind, help, value) in [
        ("packeteur_collect_connections", Kind::Gauge, "Connections of captures.", open),
        ("packeteur_collect_connections_total", Kind::Counter, "Connections that came about.", accepted),
        (
            "packeteur_merge_waiting_packets",
            Kind::Gauge,
            "Packets that wait in the merge for older ones of slower sources.",
            load(&shared.waiting_packets),
        ),
        (
            "packeteur_merge_waiting_bytes",
            Kind::Gauge,
            "Bytes of the batches that wait in the merge.",
            load(&shared.waiting_bytes),
        ),
        (
            "capture_packets_processed_total",
            Kind::Counter,
            "Packets that were received and measured.",
            shared.observers.packets(),
        ),
        (
            "capture_dropped_packets_total",
            Kind::Counter,
            "Packets dropped by the kernels or the interfaces of all sources.",
            sources.iter().map(|row| row.figures.dropped.kernel + row.figures.dropped.interface).sum(),
        ),
    ] {
        out.family(name, kind, help);
        out.sample(name, "", value);
    }
    crate::observers::expose(&shared.observers, out);
}

struct Row {
    labels: Labels,
    figures: Figures,
}

impl Row {
    fn new(origin: &Origin, figures: Figures) -> Self {
        let mut labels = Labels::new().with("source", &origin.source).with("device", &origin.device);
        if let Some(port) = origin.listen_port {
            labels.push("listen_port", port);
        }
        Self { labels, figures }
    }
}

/// A counter of a source.
type Counter = (&'static str, &'static str, fn(&Figures) -> u64);

/// The counters of a source that have no labels of their own.
const COUNTERS: [Counter; 13] = [
    (
        "packeteur_source_seen_packets_total",
        "Packets that the source's device saw: those that were read, and those dropped by the kernel.",
        |f| f.captured + f.dropped.kernel,
    ),
    ("packeteur_source_captured_packets_total", "Packets that the source read from its device.", |f| {
        f.captured
    }),
    ("packeteur_source_sent_packets_total", "Packets that the source sent, as far as is known here.", |f| {
        f.sent
    }),
    ("packeteur_source_received_packets_total", "Packets that arrived.", |f| f.received.packets),
    ("packeteur_source_received_batches_total", "Batches that arrived, heartbeats included.", |f| {
        f.received.batches
    }),
    (
        "packeteur_source_received_bytes_total",
        "Bytes of the batches that arrived, compressed where they were.",
        |f| f.bytes,
    ),
    ("packeteur_source_written_packets_total", "Packets that are in the output.", |f| f.written),
    ("packeteur_source_lost_packets_total", "Packets that were sent and never arrived.", |f| f.lost.packets),
    ("packeteur_source_lost_batches_total", "Batches that were sent and never arrived.", |f| f.lost.batches),
    (
        "packeteur_source_unheard_packets_total",
        "Packets that were sent before this collector first heard of the source.",
        |f| f.unheard.packets,
    ),
    (
        "packeteur_source_returned_packets_total",
        "Packets that arrived after they had been counted as lost or unheard.",
        |f| f.returned.packets,
    ),
    (
        "packeteur_source_duplicate_packets_total",
        "Packets that arrived a second time, and were left out.",
        |f| f.duplicates.packets,
    ),
    (
        "packeteur_source_late_packets_total",
        "Packets that arrived too late for their place in the order, and are in the output behind it.",
        |f| f.late,
    ),
];

fn expose_sources(sources: &[Row], now: Timestamp, out: &mut Exposition) {
    for (name, help, value) in COUNTERS {
        out.family(name, Kind::Counter, help);
        for row in sources {
            out.sample(name, row.labels.as_str(), value(&row.figures));
        }
    }
    let name = "packeteur_source_dropped_packets_total";
    out.family(name, Kind::Counter, "Packets lost at the source, by place: kernel, interface, relay.");
    for Row { labels, figures } in sources {
        let dropped = figures.dropped;
        for (place, packets) in
            [("kernel", dropped.kernel), ("interface", dropped.interface), ("relay", dropped.relay)]
        {
            out.sample(name, labels.clone().with("place", place).as_str(), packets);
        }
    }
    let name = "packeteur_source_skipped_packets_total";
    out.family(name, Kind::Counter, "Packets that arrived and are not in the output, by reason.");
    for Row { labels, figures } in sources {
        for reason in Skip::ALL {
            let labels = labels.clone().with("reason", reason.reason());
            out.sample(name, labels.as_str(), figures.skipped(reason));
        }
    }
    let name = "packeteur_source_runs_total";
    out.family(name, Kind::Counter, "Runs of the source from which something arrived.");
    for Row { labels, figures } in sources {
        out.sample(name, labels.as_str(), figures.epochs);
    }
    let gauges: [Gauge; 5] = [
        (
            "packeteur_source_up",
            "Whether the source has spoken in the last two seconds, and has not ended.",
            |f, now| Some(f64::from(u8::from(f.is_alive(now, SILENCE)))),
        ),
        ("packeteur_source_held_packets", "Packets that arrived, and wait in the merge.", |f, _| {
            Some(f.held() as f64)
        }),
        ("packeteur_source_missing_packets", "Packets that are overdue; they may still arrive.", |f, _| {
            Some(f.missing.packets as f64)
        }),
        (
            "packeteur_source_lag_seconds",
            "How far the source's latest promise that nothing older will come is behind this machine's clock.",
            |f, now| f.lag_seconds(now),
        ),
        (
            "packeteur_source_clock_offset_seconds",
            "This machine's clock minus the source's: the smallest difference between sending and receiving in the last minute, the shortest time on the way included.",
            |f, _| f.clock_offset_seconds(),
        ),
    ];
    for (name, help, value) in gauges {
        out.family(name, Kind::Gauge, help);
        for Row { labels, figures } in sources {
            if let Some(value) = value(figures, now) {
                out.sample(name, labels.as_str(), value);
            }
        }
    }
}

/// A gauge of a source; it may have no value now.
type Gauge = (&'static str, &'static str, fn(&Figures, Timestamp) -> Option<f64>);
