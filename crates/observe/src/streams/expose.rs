//! The series of the observer `streams`, as Prometheus reads them.
//!
//! The table is copied by chunks of about a thousand entries, and the lock is given back after each; text is made of the
//! copies. So a packet waits for a fraction of a millisecond at most, however many streams there are and however slow the
//! reader is.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use packet::Timestamp;

use super::families::{FAMILIES, TOTALS, Value};
use super::stats::Stats;
use super::totals::{Histogram, Totals};
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
pub(super) struct Row {
    key: Key,
    side: u8,
    pub(super) now: Timestamp,
    pub(super) stats: Stats,
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
                    candidates.push(Candidate { bytes: streams.stats.get(stats).bytes(), slot, side });
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
        .filter(|(id, _)| origins.alike(*id) == *id)
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
        for (bound, times) in histogram.cumulative() {
            let comma = if labels.is_empty() { "" } else { "," };
            let labels = match bound {
                Some(seconds) => format!("{labels}{comma}le=\"{seconds}\""),
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
            .with("state", row.stats.state().as_str());
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
