//! The metrics of the observer `streams`: names, values, and what they say.

use super::expose::Row;
use super::stats::{Delay, Stats};
use super::totals::Totals;
use super::verdict::Event;
use crate::Kind;

/// A value of a stream: a series, where there is one.
pub(super) enum Value {
    Count(fn(&Stats) -> u64),
    Always(fn(&Row) -> f64),
    Sometimes(fn(&Stats) -> Option<f64>),
}

/// A metric of a stream.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) value: Value,
    pub(super) help: &'static str,
}

const fn counter(name: &'static str, value: fn(&Stats) -> u64, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, value: Value::Count(value), help }
}

const fn gauge(name: &'static str, value: fn(&Row) -> f64, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, value: Value::Always(value), help }
}

const fn sometimes(name: &'static str, value: fn(&Stats) -> Option<f64>, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, value: Value::Sometimes(value), help }
}

fn delay(stats: &Stats, of: impl Fn(Delay) -> f64) -> Option<f64> {
    stats.delay().map(of)
}

fn events(stats: &Stats, event: Event) -> u64 {
    u64::from(stats.events(event))
}

/// All metrics of a stream. Those that the seed has keep its names, also where they say "variance" of what is no variance.
pub(super) const FAMILIES: [Family; 24] = [
    gauge(
        "tcp_stream_health_score",
        |row| row.stats.health(),
        "How well the stream does: 100 is perfect, 0 the worst.",
    ),
    gauge(
        "tcp_stream_uptime_seconds",
        |row| row.stats.uptime(row.now),
        "Seconds from the first segment to the last FIN or RST, or until now.",
    ),
    sometimes(
        "tcp_avg_delay_seconds",
        |stats| delay(stats, |d| d.mean),
        "Mean time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_min_delay_seconds",
        |stats| delay(stats, |d| d.shortest),
        "Shortest time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_max_delay_seconds",
        |stats| delay(stats, |d| d.longest),
        "Longest time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_jitter_seconds",
        |stats| delay(stats, |d| d.deviation),
        "Standard deviation of the time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_initial_rtt_seconds",
        Stats::initial_rtt,
        "Time from the SYN to the ACK that ends the handshake.",
    ),
    gauge("tcp_bitrate_bps", |row| row.stats.bitrate(), "Bits of data per second, as measured last."),
    gauge(
        "tcp_bitrate_variance",
        |row| row.stats.bitrate_variation(),
        "Coefficient of variation of the bitrates measured.",
    ),
    gauge("tcp_packet_rate_pps", |row| row.stats.segment_rate(row.now), "Segments per second of uptime."),
    gauge(
        "tcp_packet_size_variance",
        |row| row.stats.size_variation(),
        "Coefficient of variation of the bytes of data in segments that have some.",
    ),
    gauge(
        "tcp_interarrival_variance_seconds",
        |row| row.stats.gap_deviation(),
        "Standard deviation of the time between segments, pauses of 10 s and more left out.",
    ),
    gauge(
        "tcp_window_size_bytes",
        |row| f64::from(row.stats.window()),
        "Window of the last segment, scaled.",
    ),
    counter("tcp_bytes_transferred_total", Stats::bytes, "Bytes of data, those sent again included."),
    counter("tcp_retransmits_total", |stats| events(stats, Event::Retransmission), "Segments sent again."),
    counter(
        "tcp_fast_retransmits_total",
        |stats| events(stats, Event::FastRetransmission),
        "Segments sent again because of duplicate ACKs.",
    ),
    counter(
        "tcp_spurious_retransmits_total",
        |stats| events(stats, Event::SpuriousRetransmission),
        "Segments sent again that had been acknowledged already.",
    ),
    counter(
        "tcp_out_of_order_packets_total",
        |stats| events(stats, Event::OutOfOrder),
        "Segments that others sent later have overtaken.",
    ),
    counter(
        "tcp_duplicate_acks_total",
        |stats| events(stats, Event::DuplicateAck),
        "Segments that only repeat the last acknowledgment.",
    ),
    counter(
        "tcp_sequence_gaps_total",
        |stats| events(stats, Event::Gap),
        "Segments in front of which something is missing.",
    ),
    counter(
        "tcp_zero_window_events_total",
        |stats| events(stats, Event::ZeroWindow),
        "Segments that offer no window, SYN, FIN and RST left out.",
    ),
    counter(
        "tcp_window_full_total",
        |stats| events(stats, Event::WindowFull),
        "Segments that fill the window offered by the receiver.",
    ),
    counter(
        "tcp_keep_alives_total",
        |stats| events(stats, Event::KeepAlive),
        "Segments that only ask for a sign of life.",
    ),
    counter("tcp_resets_total", |stats| events(stats, Event::Reset), "Segments with RST."),
];

/// A metric of an origin.
pub(super) type Total = (&'static str, fn(&Totals) -> u64, &'static str);

/// All counters of an origin, by what they count.
pub(super) const TOTALS: [Total; 23] = [
    ("packeteur_tcp_segments_total", |t| t.segments, "TCP segments."),
    ("packeteur_tcp_bytes_total", |t| t.bytes, "Bytes of data in TCP segments, those sent again included."),
    ("packeteur_tcp_connections_opened_total", |t| t.opened, "Connections whose SYN was seen."),
    (
        "packeteur_tcp_connections_finished_total",
        |t| t.finished,
        "Connections that each side seen has ended by FIN.",
    ),
    ("packeteur_tcp_connections_reset_total", |t| t.reset, "Connections that a RST has ended."),
    (
        "packeteur_tcp_connections_timed_out_total",
        |t| t.timed_out,
        "Connections forgotten because they were silent, without an end.",
    ),
    ("packeteur_tcp_streams_evicted_total", |t| t.evicted, "Streams forgotten to make room for others."),
    ("packeteur_tcp_retransmits_total", |t| total(t, Event::Retransmission), "Segments sent again."),
    (
        "packeteur_tcp_fast_retransmits_total",
        |t| total(t, Event::FastRetransmission),
        "Segments sent again because of duplicate ACKs.",
    ),
    (
        "packeteur_tcp_spurious_retransmits_total",
        |t| total(t, Event::SpuriousRetransmission),
        "Segments sent again that had been acknowledged already.",
    ),
    (
        "packeteur_tcp_out_of_order_total",
        |t| total(t, Event::OutOfOrder),
        "Segments that others sent later have overtaken.",
    ),
    (
        "packeteur_tcp_duplicate_acks_total",
        |t| total(t, Event::DuplicateAck),
        "Segments that only repeat the last acknowledgment.",
    ),
    (
        "packeteur_tcp_gaps_total",
        |t| total(t, Event::Gap),
        "Segments in front of which something is missing.",
    ),
    (
        "packeteur_tcp_acks_of_unseen_total",
        |t| total(t, Event::AckOfUnseen),
        "Segments that acknowledge what was not seen.",
    ),
    (
        "packeteur_tcp_zero_windows_total",
        |t| total(t, Event::ZeroWindow),
        "Segments that offer no window, SYN, FIN and RST left out.",
    ),
    (
        "packeteur_tcp_window_updates_total",
        |t| total(t, Event::WindowUpdate),
        "Segments that only change the window.",
    ),
    (
        "packeteur_tcp_window_full_total",
        |t| total(t, Event::WindowFull),
        "Segments that fill the window offered by the receiver.",
    ),
    (
        "packeteur_tcp_zero_window_probes_total",
        |t| total(t, Event::ZeroWindowProbe),
        "Bytes sent into a window of zero.",
    ),
    (
        "packeteur_tcp_zero_window_probe_acks_total",
        |t| total(t, Event::ZeroWindowProbeAck),
        "Answers to them that leave the window closed.",
    ),
    (
        "packeteur_tcp_keep_alives_total",
        |t| total(t, Event::KeepAlive),
        "Segments that only ask for a sign of life.",
    ),
    ("packeteur_tcp_keep_alive_acks_total", |t| total(t, Event::KeepAliveAck), "Answers to them."),
    ("packeteur_tcp_resets_total", |t| total(t, Event::Reset), "Segments with RST."),
    (
        "packeteur_tcp_ports_reused_total",
        |t| total(t, Event::PortReuse),
        "Connections on addresses and ports of one that was still known.",
    ),
];

const fn total(totals: &Totals, event: Event) -> u64 {
    totals.events[event as usize]
}
