//! The metrics whose number does not depend on the number of streams: totals of each origin.

use metrics::{Declaration, LabelSet};
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use super::Streams;
use super::analysis::Event;
use super::totals::{Histogram, Totals};
use crate::Origins;

/// A counter or gauge of each origin.
type Total = (Declaration, fn(&Totals) -> u64);

/// A histogram of each origin.
type Histograms = (Declaration, fn(&Totals) -> &Histogram);

const UNTRACKED: Declaration = Declaration::counter(
    "packeteur_tcp_segments_untracked_total",
    "Segments without a delay sample, because too many were in flight.",
);

const NOT_EXPORTED: Declaration = Declaration::gauge(
    "tcp_streams_not_exported",
    "Streams left out of this scrape, because there are more than STREAMS_EXPORT.",
);

const HISTOGRAMS: [Histograms; 2] = [
    (
        Declaration::histogram("packeteur_tcp_rtt_seconds", "Time from a segment to its acknowledgment."),
        |totals| &totals.delays,
    ),
    (
        Declaration::histogram(
            "packeteur_tcp_initial_rtt_seconds",
            "Time from the SYN to the ACK that completes the handshake.",
        ),
        |totals| &totals.initial_rtts,
    ),
];

const TOTALS: [Total; 25] = [
    gauge("tcp_stream_count", |t| t.active, "Streams without FIN and RST from their sender."),
    gauge("packeteur_tcp_streams", |t| t.streams, "Streams in the table."),
    counter("packeteur_tcp_segments_total", |t| t.segments, "TCP segments."),
    counter(
        "packeteur_tcp_bytes_total",
        |t| t.bytes,
        "Bytes of data in TCP segments, retransmissions included.",
    ),
    counter("packeteur_tcp_connections_opened_total", |t| t.opened, "Connections with a SYN."),
    counter(
        "packeteur_tcp_connections_finished_total",
        |t| t.finished,
        "Connections that ended with a FIN in each captured direction.",
    ),
    counter("packeteur_tcp_connections_reset_total", |t| t.reset, "Connections that ended with a RST."),
    counter(
        "packeteur_tcp_connections_timed_out_total",
        |t| t.timed_out,
        "Connections removed because they were idle, without FIN or RST.",
    ),
    counter("packeteur_tcp_streams_evicted_total", |t| t.evicted, "Streams evicted to make room for others."),
    counter("packeteur_tcp_retransmits_total", |t| events(t, Event::Retransmission), "Retransmissions."),
    counter(
        "packeteur_tcp_fast_retransmits_total",
        |t| events(t, Event::FastRetransmission),
        "Retransmissions that duplicate ACKs asked for.",
    ),
    counter(
        "packeteur_tcp_spurious_retransmits_total",
        |t| events(t, Event::SpuriousRetransmission),
        "Retransmissions of data that had been acknowledged.",
    ),
    counter("packeteur_tcp_out_of_order_total", |t| events(t, Event::OutOfOrder), "Out-of-order segments."),
    counter("packeteur_tcp_duplicate_acks_total", |t| events(t, Event::DuplicateAck), "Duplicate ACKs."),
    counter(
        "packeteur_tcp_sequence_gaps_total",
        |t| events(t, Event::Gap),
        "Segments that follow missing sequence numbers.",
    ),
    counter(
        "packeteur_tcp_acked_unseen_segments_total",
        |t| events(t, Event::AckedUnseenSegment),
        "Segments that acknowledge data that was not captured.",
    ),
    counter(
        "packeteur_tcp_zero_windows_total",
        |t| events(t, Event::ZeroWindow),
        "Segments that advertise a window of 0, except SYN, FIN and RST.",
    ),
    counter("packeteur_tcp_window_updates_total", |t| events(t, Event::WindowUpdate), "Window updates."),
    counter(
        "packeteur_tcp_window_full_total",
        |t| events(t, Event::WindowFull),
        "Segments that fill the receiver's window.",
    ),
    counter(
        "packeteur_tcp_zero_window_probes_total",
        |t| events(t, Event::ZeroWindowProbe),
        "Zero-window probes.",
    ),
    counter(
        "packeteur_tcp_zero_window_probe_acks_total",
        |t| events(t, Event::ZeroWindowProbeAck),
        "Answers to zero-window probes with a window of 0.",
    ),
    counter("packeteur_tcp_keep_alives_total", |t| events(t, Event::KeepAlive), "Keep-alive segments."),
    counter(
        "packeteur_tcp_keep_alive_acks_total",
        |t| events(t, Event::KeepAliveAck),
        "Answers to keep-alive segments.",
    ),
    counter("packeteur_tcp_resets_total", |t| events(t, Event::Reset), "Segments with RST."),
    counter(
        "packeteur_tcp_ports_reused_total",
        |t| events(t, Event::PortReuse),
        "Connections on the addresses and ports of a known one.",
    ),
];

const fn counter(name: &'static str, value: fn(&Totals) -> u64, help: &'static str) -> Total {
    (Declaration::counter(name, help), value)
}

const fn gauge(name: &'static str, value: fn(&Totals) -> u64, help: &'static str) -> Total {
    (Declaration::gauge(name, help), value)
}

const fn events(totals: &Totals, event: Event) -> u64 {
    totals.events[event as usize]
}

/// All families that [`collect`] returns.
pub(super) fn declarations() -> Vec<Declaration> {
    let totals = TOTALS.iter().map(|(declaration, _)| *declaration);
    let histograms = HISTOGRAMS.iter().map(|(declaration, _)| *declaration);
    totals.chain(histograms).chain([UNTRACKED, NOT_EXPORTED]).collect()
}

/// The totals of each origin, also of one without TCP segments: a counter should start at 0.
pub(super) fn collect(shared: &Mutex<Streams>, origins: &Origins) -> Vec<MetricFamily> {
    let (totals, untracked) = {
        let streams = shared.lock();
        (streams.totals.clone(), streams.in_flight.untracked())
    };
    let none = Totals::default();
    let rows: Vec<(LabelSet, &Totals)> = origins
        .canonical_ids()
        .map(|id| (origins.label_set(id), totals.get(id.index()).unwrap_or(&none)))
        .collect();
    let values = TOTALS.iter().map(|(declaration, value)| {
        declaration.samples(rows.iter().map(|(labels, totals)| (labels.clone(), value(totals) as f64)))
    });
    let histograms = HISTOGRAMS.iter().map(|(declaration, histogram)| {
        declaration
            .histograms(rows.iter().map(|(labels, totals)| (labels.clone(), histogram(totals).as_metric())))
    });
    let others = [UNTRACKED.value(untracked as f64), NOT_EXPORTED.value(not_exported(shared) as f64)];
    values.chain(histograms).chain(others).collect()
}

/// How many streams a scrape leaves out.
fn not_exported(shared: &Mutex<Streams>) -> usize {
    let (chunks, len, export) = {
        let streams = shared.lock();
        (streams.table.chunks(), streams.len(), streams.config.export)
    };
    if len <= export {
        return 0;
    }
    // Expired streams are not exported either, but they are not left out.
    let streams_of = |chunk| {
        let streams = shared.lock();
        streams.table.chunk(chunk).map(|(_, entry)| entry.value.stats.iter().flatten().count()).sum::<usize>()
    };
    (0..chunks).map(streams_of).sum::<usize>().saturating_sub(export)
}
