//! The metrics of each stream.

use metrics::Declaration;

use super::analysis::Event;
use super::row::Row;
use super::stats::{Delay, Stats};

/// How a metric reads its value from a stream.
pub(super) enum Value {
    Count(fn(&Stats) -> u64),
    Always(fn(&Row) -> f64),
    /// There is no series without a value.
    Sometimes(fn(&Stats) -> Option<f64>),
}

/// A metric of each stream.
pub(super) struct Family {
    pub(super) declaration: Declaration,
    pub(super) value: Value,
}

const fn counter(name: &'static str, value: fn(&Stats) -> u64, help: &'static str) -> Family {
    Family { declaration: Declaration::counter(name, help), value: Value::Count(value) }
}

const fn gauge(name: &'static str, value: fn(&Row) -> f64, help: &'static str) -> Family {
    Family { declaration: Declaration::gauge(name, help), value: Value::Always(value) }
}

const fn sometimes(name: &'static str, value: fn(&Stats) -> Option<f64>, help: &'static str) -> Family {
    Family { declaration: Declaration::gauge(name, help), value: Value::Sometimes(value) }
}

fn delay(stats: &Stats, of: impl Fn(Delay) -> f64) -> Option<f64> {
    stats.delay().map(of)
}

fn events(stats: &Stats, event: Event) -> u64 {
    u64::from(stats.events(event))
}

/// The metrics of each stream. Names that tcp-stream-exporter has too are kept, even `…_variance` for values that are not
/// variances.
pub(super) const FAMILIES: [Family; 24] = [
    gauge(
        "tcp_stream_health_score",
        |row| row.stats.health(),
        "Health of the stream, from 100 (perfect) to 0.",
    ),
    gauge(
        "tcp_stream_uptime_seconds",
        |row| row.stats.uptime(row.now),
        "Seconds from the first segment to the last FIN or RST, or until now if the stream is active.",
    ),
    sometimes(
        "tcp_avg_delay_seconds",
        |stats| delay(stats, |d| d.mean),
        "Mean time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_min_delay_seconds",
        |stats| delay(stats, |d| d.min),
        "Minimum time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_max_delay_seconds",
        |stats| delay(stats, |d| d.max),
        "Maximum time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_jitter_seconds",
        |stats| delay(stats, |d| d.deviation),
        "Standard deviation of the time from a segment to its acknowledgment.",
    ),
    sometimes(
        "tcp_initial_rtt_seconds",
        Stats::initial_rtt,
        "Time from the SYN to the ACK that completes the handshake.",
    ),
    gauge(
        "tcp_bitrate_bps",
        |row| row.stats.bitrate(),
        "Bits of data per second in the last measured interval.",
    ),
    gauge(
        "tcp_bitrate_variance",
        |row| row.stats.bitrate_variation(),
        "Coefficient of variation of the measured bitrates.",
    ),
    gauge("tcp_packet_rate_pps", |row| row.stats.segment_rate(row.now), "Segments per second of uptime."),
    gauge(
        "tcp_packet_size_variance",
        |row| row.stats.size_variation(),
        "Coefficient of variation of the data length of segments with data.",
    ),
    gauge(
        "tcp_interarrival_variance_seconds",
        |row| row.stats.interarrival_deviation(),
        "Standard deviation of the time between segments, without pauses of 10 s or more.",
    ),
    gauge(
        "tcp_window_size_bytes",
        |row| f64::from(row.stats.window()),
        "Window advertised by the last segment, scaled.",
    ),
    counter("tcp_bytes_transferred_total", Stats::bytes, "Bytes of data, retransmissions included."),
    counter("tcp_retransmits_total", |stats| events(stats, Event::Retransmission), "Retransmissions."),
    counter(
        "tcp_fast_retransmits_total",
        |stats| events(stats, Event::FastRetransmission),
        "Retransmissions that duplicate ACKs asked for.",
    ),
    counter(
        "tcp_spurious_retransmits_total",
        |stats| events(stats, Event::SpuriousRetransmission),
        "Retransmissions of data that had been acknowledged.",
    ),
    counter(
        "tcp_out_of_order_packets_total",
        |stats| events(stats, Event::OutOfOrder),
        "Out-of-order segments.",
    ),
    counter("tcp_duplicate_acks_total", |stats| events(stats, Event::DuplicateAck), "Duplicate ACKs."),
    counter(
        "tcp_sequence_gaps_total",
        |stats| events(stats, Event::Gap),
        "Segments that follow missing sequence numbers.",
    ),
    counter(
        "tcp_zero_window_events_total",
        |stats| events(stats, Event::ZeroWindow),
        "Segments that advertise a window of 0, except SYN, FIN and RST.",
    ),
    counter(
        "tcp_window_full_total",
        |stats| events(stats, Event::WindowFull),
        "Segments that fill the receiver's window.",
    ),
    counter("tcp_keep_alives_total", |stats| events(stats, Event::KeepAlive), "Keep-alive segments."),
    counter("tcp_resets_total", |stats| events(stats, Event::Reset), "Segments with RST."),
];
