//! The metrics of a collector and its sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ledger::{DiscardReason, SourceStats};
use metrics::{Declaration, LabelSet};
use packet::{Origin, Timestamp};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use relay::Connections;

use super::Shared;

/// Without a batch for this long, a source is not up.
const SILENCE: Duration = Duration::from_secs(2);

/// A metric of each source: its value at a time, if it has one then.
type SourceMetric = (Declaration, fn(&SourceStats, Timestamp) -> Option<f64>);

const SOURCE_METRICS: [SourceMetric; 21] = [
    (
        Declaration::counter(
            "packeteur_source_seen_packets_total",
            "Packets that the source's device saw: those read, and those dropped by the kernel.",
        ),
        |stats, _| Some(stats.captured as f64 + stats.dropped.kernel as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_captured_packets_total",
            "Packets that the source read from its device.",
        ),
        |stats, _| Some(stats.captured as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_sent_packets_total",
            "Packets that the source is known to have sent.",
        ),
        |stats, _| Some(stats.sent as f64),
    ),
    (Declaration::counter("packeteur_source_received_packets_total", "Packets received."), |stats, _| {
        Some(stats.received.packets as f64)
    }),
    (
        Declaration::counter(
            "packeteur_source_received_batches_total",
            "Batches received, heartbeats included.",
        ),
        |stats, _| Some(stats.received.batches as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_received_bytes_total",
            "Bytes of the batches received, compressed.",
        ),
        |stats, _| Some(stats.bytes as f64),
    ),
    (
        Declaration::counter("packeteur_source_written_packets_total", "Packets written to the output."),
        |stats, _| Some(stats.written as f64),
    ),
    (
        Declaration::counter("packeteur_source_lost_packets_total", "Packets sent and never received."),
        |stats, _| Some(stats.lost.packets as f64),
    ),
    (
        Declaration::counter("packeteur_source_lost_batches_total", "Batches sent and never received."),
        |stats, _| Some(stats.lost.batches as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_sent_before_connect_packets_total",
            "Packets sent before this collector's first contact with the source.",
        ),
        |stats, _| Some(stats.sent_before_connect.packets as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_recovered_packets_total",
            "Packets received after being counted as lost or as sent before the first contact.",
        ),
        |stats, _| Some(stats.recovered.packets as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_duplicate_packets_total",
            "Packets received more than once, and ignored.",
        ),
        |stats, _| Some(stats.duplicates.packets as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_late_packets_total",
            "Packets received too late for their place in the order. They are written after later ones.",
        ),
        |stats, _| Some(stats.late as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_ahead_packets_total",
            "Packets ahead of this host's clock by more than MERGE_WINDOW and a second. They are merged apart.",
        ),
        |stats, _| Some(stats.ahead as f64),
    ),
    (
        Declaration::counter("packeteur_source_runs_total", "Runs of the source that sent a batch."),
        |stats, _| Some(stats.epochs as f64),
    ),
    (
        Declaration::counter(
            "packeteur_source_overlapping_runs_total",
            "Runs of the source that went on at the same time as an earlier one: two captures share its name.",
        ),
        |stats, _| Some(stats.overlapping_runs as f64),
    ),
    (
        Declaration::gauge(
            "packeteur_source_up",
            "Whether the source has sent a batch in the last two seconds and has not ended.",
        ),
        |stats, now| Some(f64::from(u8::from(stats.is_up(now, SILENCE)))),
    ),
    (
        Declaration::gauge("packeteur_source_buffered_packets", "Packets received and waiting in the merge."),
        |stats, _| Some(stats.buffered() as f64),
    ),
    (
        Declaration::gauge(
            "packeteur_source_missing_packets",
            "Packets that are overdue and may still arrive.",
        ),
        |stats, _| Some(stats.missing.packets as f64),
    ),
    (
        Declaration::gauge(
            "packeteur_source_watermark_lag_seconds",
            "Now minus the source's watermark, the time up to which its packets are complete.",
        ),
        |stats, now| stats.watermark_lag_seconds(now),
    ),
    (
        Declaration::gauge(
            "packeteur_source_clock_offset_seconds",
            "This host's clock minus the source's, plus the shortest transit time of the last minute.",
        ),
        |stats, _| stats.clock_offset_seconds(),
    ),
];

const DROPPED: Declaration = Declaration::counter(
    "packeteur_source_dropped_packets_total",
    "Packets dropped at the source, by place: kernel, interface, relay.",
);

const DISCARDED: Declaration = Declaration::counter(
    "packeteur_source_discarded_packets_total",
    "Packets received and not written, by reason: link_type, max_packets, output_closed.",
);

const REJECTED_BATCHES: Declaration =
    Declaration::counter("packeteur_rejected_batches_total", "Messages that were not accepted, by reason.");

const REJECTED_CONNECTIONS: Declaration = Declaration::counter(
    "packeteur_rejected_connections_total",
    "Connections that the collector refused or ended, by reason.",
);

/// A metric of the collector.
type CollectorMetric = (Declaration, fn(&Snapshot) -> f64);

const COLLECTOR_METRICS: [CollectorMetric; 6] = [
    (Declaration::gauge("packeteur_collector_connections", "Open connections of captures."), |snapshot| {
        snapshot.connections as f64
    }),
    (
        Declaration::counter("packeteur_collector_connections_total", "Connections of captures accepted."),
        |snapshot| snapshot.accepted as f64,
    ),
    (
        Declaration::gauge(
            "packeteur_merge_buffered_packets",
            "Packets in the merge, waiting for older ones of slower sources.",
        ),
        |snapshot| snapshot.merge_packets as f64,
    ),
    (
        Declaration::gauge("packeteur_merge_buffered_bytes", "Bytes of the batches in the merge."),
        |snapshot| snapshot.merge_bytes as f64,
    ),
    (
        Declaration::counter("capture_packets_processed_total", "Packets that were received and measured."),
        |snapshot| snapshot.observed as f64,
    ),
    (
        Declaration::counter(
            "capture_dropped_packets_total",
            "Packets dropped by the kernels or the interfaces of all sources.",
        ),
        |snapshot| {
            let dropped = |(_, stats): &(LabelSet, SourceStats)| {
                stats.dropped.kernel as f64 + stats.dropped.interface as f64
            };
            snapshot.sources.iter().map(dropped).sum()
        },
    ),
];

/// All figures at one time.
struct Snapshot {
    now: Timestamp,
    sources: Vec<(LabelSet, SourceStats)>,
    rejected_batches: Vec<(&'static str, u64)>,
    accepted: u64,
    connections: u64,
    rejected_connections: Vec<(&'static str, u64)>,
    merge_packets: u64,
    merge_bytes: u64,
    observed: u64,
}

/// A collector of these metrics, for a [`prometheus::Registry`].
pub(super) fn collector(
    shared: Arc<Shared>,
    connections: Arc<Connections>,
) -> prometheus::Result<Box<dyn Collector>> {
    let declared = SOURCE_METRICS
        .map(|(declared, _)| declared)
        .into_iter()
        .chain([DROPPED, DISCARDED, REJECTED_BATCHES, REJECTED_CONNECTIONS])
        .chain(COLLECTOR_METRICS.map(|(declared, _)| declared));
    metrics::collector(declared, move || families(&snapshot(&shared, &connections, SystemTime::now().into())))
}

fn snapshot(shared: &Shared, connections: &Connections, now: Timestamp) -> Snapshot {
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let sources = {
        let mut ledger = shared.ledger.lock();
        ledger.settle(now);
        ledger.sources().map(|(origin, stats)| (labels(origin), stats)).collect()
    };
    Snapshot {
        now,
        sources,
        rejected_batches: shared.rejections.counts().collect(),
        accepted: connections.accepted(),
        connections: connections.current(),
        rejected_connections: connections.rejections.counts().collect(),
        merge_packets: load(&shared.merge_packets),
        merge_bytes: load(&shared.merge_bytes),
        observed: shared.observers.packets(),
    }
}

fn labels(origin: &Origin) -> LabelSet {
    let labels = LabelSet::new().with("source", &origin.source).with("device", &origin.device);
    match origin.listen_port {
        Some(port) => labels.with("listen_port", port),
        None => labels,
    }
}

fn families(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    let sources = &snapshot.sources;
    for (declared, value) in SOURCE_METRICS {
        families.push(declared.samples(
            sources.iter().filter_map(|(labels, stats)| Some((labels.clone(), value(stats, snapshot.now)?))),
        ));
    }
    families.push(DROPPED.samples(sources.iter().flat_map(|(labels, stats)| {
        let dropped = stats.dropped;
        [("kernel", dropped.kernel), ("interface", dropped.interface), ("relay", dropped.relay)]
            .map(|(place, packets)| (labels.clone().with("place", place), packets as f64))
    })));
    families.push(DISCARDED.samples(sources.iter().flat_map(|(labels, stats)| {
        DiscardReason::ALL
            .map(|reason| (labels.clone().with("reason", reason.as_str()), stats.discarded(reason) as f64))
    })));
    families.push(REJECTED_BATCHES.samples(by_reason(&snapshot.rejected_batches)));
    families.push(REJECTED_CONNECTIONS.samples(by_reason(&snapshot.rejected_connections)));
    families.extend(COLLECTOR_METRICS.iter().map(|(declared, value)| declared.value(value(snapshot))));
    families
}

/// A sample for each reason.
fn by_reason(counts: &[(&'static str, u64)]) -> impl Iterator<Item = (LabelSet, f64)> {
    counts.iter().map(|(reason, count)| (LabelSet::new().with("reason", reason), *count as f64))
}

#[cfg(test)]
mod tests {
    use batch::Dropped;
    use ledger::Counts;
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn every_figure_is_exported() {
        let counts = |batches, packets| Counts { batches, packets };
        let stats = SourceStats {
            epochs: 2,
            received: counts(20, 1000),
            bytes: 50_000,
            duplicates: counts(1, 11),
            sent: 1100,
            captured: 1200,
            dropped: Dropped { kernel: 13, interface: 14, relay: 15 },
            sent_before_connect: counts(2, 16),
            lost: counts(3, 17),
            recovered: counts(4, 18),
            missing: counts(5, 19),
            written: 900,
            late: 21,
            discarded: [22, 23, 24],
            watermark: Timestamp::from_parts(97, 500_000_000),
            clock_offset: Some(-250_000_000),
            last_received: Timestamp::from_parts(99, 0),
            ended: false,
            overlapping_runs: 26,
            ahead: 25,
        };
        let origin = Origin { source: "höst".into(), device: "192.0.2.1".into(), listen_port: Some(37008) };
        let idle = Origin { source: "idle".into(), device: "eth0".into(), listen_port: None };
        let snapshot = Snapshot {
            now: Timestamp::from_parts(100, 0),
            sources: vec![(labels(&origin), stats), (labels(&idle), SourceStats::default())],
            rejected_batches: vec![("magic", 31), ("version", 32)],
            accepted: 41,
            connections: 40,
            rejected_connections: vec![("mechanism", 2)],
            merge_packets: 42,
            merge_bytes: 43,
            observed: 44,
        };
        let text = TextEncoder::new().encode_to_string(&families(&snapshot)).unwrap();
        insta::assert_snapshot!(text, @r##"
        # HELP packeteur_source_seen_packets_total Packets that the source's device saw: those read, and those dropped by the kernel.
        # TYPE packeteur_source_seen_packets_total counter
        packeteur_source_seen_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 1213
        packeteur_source_seen_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_captured_packets_total Packets that the source read from its device.
        # TYPE packeteur_source_captured_packets_total counter
        packeteur_source_captured_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 1200
        packeteur_source_captured_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_sent_packets_total Packets that the source is known to have sent.
        # TYPE packeteur_source_sent_packets_total counter
        packeteur_source_sent_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 1100
        packeteur_source_sent_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_received_packets_total Packets received.
        # TYPE packeteur_source_received_packets_total counter
        packeteur_source_received_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 1000
        packeteur_source_received_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_received_batches_total Batches received, heartbeats included.
        # TYPE packeteur_source_received_batches_total counter
        packeteur_source_received_batches_total{source="höst",device="192.0.2.1",listen_port="37008"} 20
        packeteur_source_received_batches_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_received_bytes_total Bytes of the batches received, compressed.
        # TYPE packeteur_source_received_bytes_total counter
        packeteur_source_received_bytes_total{source="höst",device="192.0.2.1",listen_port="37008"} 50000
        packeteur_source_received_bytes_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_written_packets_total Packets written to the output.
        # TYPE packeteur_source_written_packets_total counter
        packeteur_source_written_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 900
        packeteur_source_written_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_lost_packets_total Packets sent and never received.
        # TYPE packeteur_source_lost_packets_total counter
        packeteur_source_lost_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 17
        packeteur_source_lost_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_lost_batches_total Batches sent and never received.
        # TYPE packeteur_source_lost_batches_total counter
        packeteur_source_lost_batches_total{source="höst",device="192.0.2.1",listen_port="37008"} 3
        packeteur_source_lost_batches_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_sent_before_connect_packets_total Packets sent before this collector's first contact with the source.
        # TYPE packeteur_source_sent_before_connect_packets_total counter
        packeteur_source_sent_before_connect_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 16
        packeteur_source_sent_before_connect_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_recovered_packets_total Packets received after being counted as lost or as sent before the first contact.
        # TYPE packeteur_source_recovered_packets_total counter
        packeteur_source_recovered_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 18
        packeteur_source_recovered_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_duplicate_packets_total Packets received more than once, and ignored.
        # TYPE packeteur_source_duplicate_packets_total counter
        packeteur_source_duplicate_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 11
        packeteur_source_duplicate_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_late_packets_total Packets received too late for their place in the order. They are written after later ones.
        # TYPE packeteur_source_late_packets_total counter
        packeteur_source_late_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 21
        packeteur_source_late_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_ahead_packets_total Packets ahead of this host's clock by more than MERGE_WINDOW and a second. They are merged apart.
        # TYPE packeteur_source_ahead_packets_total counter
        packeteur_source_ahead_packets_total{source="höst",device="192.0.2.1",listen_port="37008"} 25
        packeteur_source_ahead_packets_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_runs_total Runs of the source that sent a batch.
        # TYPE packeteur_source_runs_total counter
        packeteur_source_runs_total{source="höst",device="192.0.2.1",listen_port="37008"} 2
        packeteur_source_runs_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_overlapping_runs_total Runs of the source that went on at the same time as an earlier one: two captures share its name.
        # TYPE packeteur_source_overlapping_runs_total counter
        packeteur_source_overlapping_runs_total{source="höst",device="192.0.2.1",listen_port="37008"} 26
        packeteur_source_overlapping_runs_total{source="idle",device="eth0"} 0
        # HELP packeteur_source_up Whether the source has sent a batch in the last two seconds and has not ended.
        # TYPE packeteur_source_up gauge
        packeteur_source_up{source="höst",device="192.0.2.1",listen_port="37008"} 1
        packeteur_source_up{source="idle",device="eth0"} 0
        # HELP packeteur_source_buffered_packets Packets received and waiting in the merge.
        # TYPE packeteur_source_buffered_packets gauge
        packeteur_source_buffered_packets{source="höst",device="192.0.2.1",listen_port="37008"} 31
        packeteur_source_buffered_packets{source="idle",device="eth0"} 0
        # HELP packeteur_source_missing_packets Packets that are overdue and may still arrive.
        # TYPE packeteur_source_missing_packets gauge
        packeteur_source_missing_packets{source="höst",device="192.0.2.1",listen_port="37008"} 19
        packeteur_source_missing_packets{source="idle",device="eth0"} 0
        # HELP packeteur_source_watermark_lag_seconds Now minus the source's watermark, the time up to which its packets are complete.
        # TYPE packeteur_source_watermark_lag_seconds gauge
        packeteur_source_watermark_lag_seconds{source="höst",device="192.0.2.1",listen_port="37008"} 2.5
        # HELP packeteur_source_clock_offset_seconds This host's clock minus the source's, plus the shortest transit time of the last minute.
        # TYPE packeteur_source_clock_offset_seconds gauge
        packeteur_source_clock_offset_seconds{source="höst",device="192.0.2.1",listen_port="37008"} -0.25
        # HELP packeteur_source_dropped_packets_total Packets dropped at the source, by place: kernel, interface, relay.
        # TYPE packeteur_source_dropped_packets_total counter
        packeteur_source_dropped_packets_total{source="höst",device="192.0.2.1",listen_port="37008",place="kernel"} 13
        packeteur_source_dropped_packets_total{source="höst",device="192.0.2.1",listen_port="37008",place="interface"} 14
        packeteur_source_dropped_packets_total{source="höst",device="192.0.2.1",listen_port="37008",place="relay"} 15
        packeteur_source_dropped_packets_total{source="idle",device="eth0",place="kernel"} 0
        packeteur_source_dropped_packets_total{source="idle",device="eth0",place="interface"} 0
        packeteur_source_dropped_packets_total{source="idle",device="eth0",place="relay"} 0
        # HELP packeteur_source_discarded_packets_total Packets received and not written, by reason: link_type, max_packets, output_closed.
        # TYPE packeteur_source_discarded_packets_total counter
        packeteur_source_discarded_packets_total{source="höst",device="192.0.2.1",listen_port="37008",reason="link_type"} 22
        packeteur_source_discarded_packets_total{source="höst",device="192.0.2.1",listen_port="37008",reason="max_packets"} 23
        packeteur_source_discarded_packets_total{source="höst",device="192.0.2.1",listen_port="37008",reason="output_closed"} 24
        packeteur_source_discarded_packets_total{source="idle",device="eth0",reason="link_type"} 0
        packeteur_source_discarded_packets_total{source="idle",device="eth0",reason="max_packets"} 0
        packeteur_source_discarded_packets_total{source="idle",device="eth0",reason="output_closed"} 0
        # HELP packeteur_rejected_batches_total Messages that were not accepted, by reason.
        # TYPE packeteur_rejected_batches_total counter
        packeteur_rejected_batches_total{reason="magic"} 31
        packeteur_rejected_batches_total{reason="version"} 32
        # HELP packeteur_rejected_connections_total Connections that the collector refused or ended, by reason.
        # TYPE packeteur_rejected_connections_total counter
        packeteur_rejected_connections_total{reason="mechanism"} 2
        # HELP packeteur_collector_connections Open connections of captures.
        # TYPE packeteur_collector_connections gauge
        packeteur_collector_connections 40
        # HELP packeteur_collector_connections_total Connections of captures accepted.
        # TYPE packeteur_collector_connections_total counter
        packeteur_collector_connections_total 41
        # HELP packeteur_merge_buffered_packets Packets in the merge, waiting for older ones of slower sources.
        # TYPE packeteur_merge_buffered_packets gauge
        packeteur_merge_buffered_packets 42
        # HELP packeteur_merge_buffered_bytes Bytes of the batches in the merge.
        # TYPE packeteur_merge_buffered_bytes gauge
        packeteur_merge_buffered_bytes 43
        # HELP capture_packets_processed_total Packets that were received and measured.
        # TYPE capture_packets_processed_total counter
        capture_packets_processed_total 44
        # HELP capture_dropped_packets_total Packets dropped by the kernels or the interfaces of all sources.
        # TYPE capture_dropped_packets_total counter
        capture_dropped_packets_total 27
        "##);
    }

    #[test]
    fn a_registry_accepts_the_collector() {
        let registry = prometheus::Registry::new();
        let observers = observe::Observers::new(observe::ObserversConfig::default());
        let collector = collector(Shared::new(observers, 1), Arc::default()).unwrap();
        registry.register(collector).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("\npacketeur_rejected_batches_total{reason=\"magic\"} 0\n"), "{text}");
    }
}
