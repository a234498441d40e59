//! The series of the observer `streams`, as Prometheus reads them.
//!
//! The table is copied by chunks of about a thousand entries, and the lock is given back after each; text is made of the
//! copies. So a packet waits for a fraction of a millisecond at most, however many streams there are and however slow the
//! reader is.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use packet::Timestamp;

use super::stats::{Delay, Stats};
use super::totals::{BOUNDS, Histogram, Totals};
use super::verdict::Event;
use super::{Endpoint, Key, Streams};
use crate::slab::Slot;
use crate::{Exposition, Kind, Labels, Origins};

/// How many streams are copied while the lock is held.
const ROWS_AT_ONCE: usize = 512;

/// A stream that may be shown.
#[derive(Clone, Copy)]
struct Candidate {
    bytes: u64,
    slot: Slot,
    side: u8,
}

/// A stream that is shown.
struct Row {
    key: Key,
    side: u8,
    now: Timestamp,
    stats: Stats,
}

impl Row {
    /// Who sends, and to whom.
    const fn endpoints(&self) -> (&Endpoint, &Endpoint) {
        match self.side {
            0 => (&self.key.low, &self.key.high),
            _ => (&self.key.high, &self.key.low),
        }
    }
}

/// A value of a stream: a series, where there is one.
enum Value {
    Count(fn(&Stats) -> u64),
    Always(fn(&Row) -> f64),
    Sometimes(fn(&Stats) -> Option<f64>),
}

/// A metric of a stream.
struct Family {
    name: &'static str,
    kind: Kind,
    value: Value,
    help: &'static str,
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
const FAMILIES: [Family; 24] = [
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
    gauge("tcp_window_size_bytes", |row| f64::from(row.stats.window), "Window of the last segment, scaled."),
    counter("tcp_bytes_transferred_total", |stats| stats.bytes, "Bytes of data, those sent again included."),
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
type Total = (&'static str, fn(&Totals) -> u64, &'static str);

/// All counters of an origin, by what they count.
const TOTALS: [Total; 23] = [
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

impl Streams {
    /// Writes all series. Takes the lock for short times only.
    pub fn expose(shared: &Mutex<Self>, origins: &Origins, out: &mut Exposition) {
        let (candidates, export) = Self::candidates(shared);
        let found = candidates.len();
        let shown = most_bytes_first(candidates, export);
        let not_exported = found - shown.len();
        let rows = Self::rows(shared, &shown);
        drop(shown);
        let (totals, untracked) = {
            let streams = lock(shared);
            (streams.totals.clone(), streams.in_flight.untracked())
        };
        write_totals(&totals, origins, out);
        single(
            out,
            "packeteur_tcp_segments_untracked_total",
            Kind::Counter,
            "Segments whose delay was not measured because too many were in flight.",
            untracked,
        );
        single(
            out,
            "tcp_streams_not_exported",
            Kind::Gauge,
            "Streams that this scrape left out, as there are more than it may show.",
            not_exported,
        );
        write_rows(&rows, origins, out);
    }

    /// All streams there are.
    fn candidates(shared: &Mutex<Self>) -> (Vec<Candidate>, usize) {
        let (chunks, len, export) = {
            let streams = lock(shared);
            (streams.table.chunks(), streams.len(), streams.config.export)
        };
        let mut candidates = Vec::with_capacity(len);
        for chunk in 0..chunks {
            let streams = lock(shared);
            for (slot, entry) in streams.table.chunk(chunk) {
                for (side, stats) in (0..).zip(entry.value.stats) {
                    let Some(stats) = stats else { continue };
                    candidates.push(Candidate { bytes: streams.stats.get(stats).bytes, slot, side });
                }
            }
        }
        (candidates, export)
    }

    /// What is known of them now. One that was forgotten meanwhile is left out.
    fn rows(shared: &Mutex<Self>, shown: &[Candidate]) -> Vec<Row> {
        let mut rows = Vec::with_capacity(shown.len());
        for some in shown.chunks(ROWS_AT_ONCE) {
            let streams = lock(shared);
            for candidate in some {
                let Some(entry) = streams.table.get_if_held(candidate.slot) else { continue };
                let Some(stats) = entry.value.stats[usize::from(candidate.side)] else { continue };
                rows.push(Row {
                    key: entry.key,
                    side: candidate.side,
                    now: streams.table.now(entry.origin()),
                    stats: *streams.stats.get(stats),
                });
            }
        }
        rows
    }
}

/// A lock that another thread's panic does not take from us: what lies behind it are counts.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many of them as may be shown, in the order of their slots, which is that of memory.
fn most_bytes_first(mut candidates: Vec<Candidate>, export: usize) -> Vec<Candidate> {
    if candidates.len() > export {
        if export > 0 {
            candidates.select_nth_unstable_by(export - 1, |a, b| b.bytes.cmp(&a.bytes));
        }
        candidates.truncate(export);
        candidates.shrink_to_fit();
        candidates.sort_unstable_by_key(|candidate| (candidate.slot, candidate.side));
    }
    candidates
}

fn single(out: &mut Exposition, name: &str, kind: Kind, help: &str, value: impl Display) {
    out.family(name, kind, help);
    out.sample(name, "", value);
}

/// What there is of each origin, also of one that has nothing yet: a series that comes late looks like a jump.
fn write_totals(totals: &[Totals], origins: &Origins, out: &mut Exposition) {
    let nothing = Totals::default();
    let all: Vec<(&str, &Totals)> = origins
        .iter()
        .map(|(id, _)| (origins.labels(id), totals.get(id.index()).unwrap_or(&nothing)))
        .collect();
    let mut gauge = |name: &str, help: &str, value: fn(&Totals) -> u64| {
        out.family(name, Kind::Gauge, help);
        for (labels, totals) in &all {
            out.sample(name, labels, value(totals));
        }
    };
    gauge("tcp_stream_count", "Streams without FIN and RST from their sender.", |totals| totals.active);
    gauge("packeteur_tcp_streams", "Streams that are remembered.", |totals| totals.streams);
    for (name, value, help) in TOTALS {
        out.family(name, Kind::Counter, help);
        for (labels, totals) in &all {
            out.sample(name, labels, value(totals));
        }
    }
    write_histograms(
        "packeteur_tcp_rtt_seconds",
        "Time from a segment to its acknowledgment.",
        &all,
        |t| &t.delays,
        out,
    );
    write_histograms(
        "packeteur_tcp_initial_rtt_seconds",
        "Time from the SYN to the ACK that ends the handshake.",
        &all,
        |t| &t.initial_rtts,
        out,
    );
}

fn write_histograms(
    name: &str,
    help: &str,
    all: &[(&str, &Totals)],
    of: fn(&Totals) -> &Histogram,
    out: &mut Exposition,
) {
    out.family(name, Kind::Histogram, help);
    let [buckets, sum, count] = ["bucket", "sum", "count"].map(|part| format!("{name}_{part}"));
    for (labels, totals) in all {
        let histogram = of(totals);
        let bounds = BOUNDS.iter().map(|&bound| Some(bound)).chain([None]);
        for (bound, times) in bounds.zip(histogram.cumulative()) {
            let comma = if labels.is_empty() { "" } else { "," };
            let labels = match bound {
                Some(nanos) => format!("{labels}{comma}le=\"{}\"", nanos as f64 / 1e9),
                None => format!("{labels}{comma}le=\"+Inf\""),
            };
            out.sample(&buckets, &labels, times);
        }
        out.sample(&sum, labels, histogram.seconds());
        out.sample(&count, labels, histogram.count());
    }
}

fn write_rows(rows: &[Row], origins: &Origins, out: &mut Exposition) {
    let labels = RowLabels::of(rows, origins);
    for family in &FAMILIES {
        out.family(family.name, family.kind, family.help);
        for (row, labels) in rows.iter().zip(labels.iter()) {
            match family.value {
                Value::Count(value) => out.sample(family.name, labels, value(&row.stats)),
                Value::Always(value) => out.sample(family.name, labels, value(row)),
                Value::Sometimes(value) => {
                    if let Some(value) = value(&row.stats) {
                        out.sample(family.name, labels, value);
                    }
                }
            }
        }
    }
}

/// The labels of all rows, one behind the other: written once, read by each family.
struct RowLabels {
    text: String,
    ends: Vec<usize>,
}

impl RowLabels {
    fn of(rows: &[Row], origins: &Origins) -> Self {
        let mut labels = Self { text: String::new(), ends: Vec::with_capacity(rows.len()) };
        for row in rows {
            labels.push(row, origins.labels(row.key.origin));
        }
        labels
    }

    fn push(&mut self, row: &Row, origin: &str) {
        let (from, to) = row.endpoints();
        let own = Labels::new()
            .with("src_ip", from.address)
            .with("src_port", from.port)
            .with("dst_ip", to.address)
            .with("dst_port", to.port)
            .with("state", row.stats.state.as_str());
        self.text.push_str(origin);
        if !origin.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(own.as_str());
        self.ends.push(self.text.len());
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut begin = 0;
        self.ends.iter().map(move |&end| {
            let labels = self.text.get(begin..end).unwrap_or_default();
            begin = end;
            labels
        })
    }
}
