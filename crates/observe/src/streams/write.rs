//! The table of streams in a scrape.
//!
//! The table is copied by chunks of about a thousand entries, and the lock is released after each. The text is written
//! from the copies. So packets wait for a fraction of a millisecond at most, however many streams there are.

use metrics::Exposition;
use parking_lot::Mutex;

use super::Streams;
use super::families::{FAMILIES, Value};
use super::row::{Row, RowLabels};
use crate::Origins;
use crate::slab::Slot;

/// How many streams are copied while the lock is held.
const ROWS_PER_LOCK: usize = 512;

/// A stream that may be written.
#[derive(Clone, Copy)]
struct Candidate {
    bytes: u64,
    slot: Slot,
    direction: u8,
}

impl Streams {
    /// Writes the series of the streams with most bytes.
    pub fn write_table(shared: &Mutex<Self>, origins: &Origins, out: &mut Exposition) {
        let (candidates, export) = Self::candidates(shared);
        let rows = Self::rows(shared, with_most_bytes(candidates, export));
        let labels = RowLabels::of(&rows, origins);
        for family in &FAMILIES {
            let declared = family.declaration;
            out.family(declared.name, declared.kind, declared.help);
            for (row, labels) in rows.iter().zip(labels.iter()) {
                match family.value {
                    Value::Count(value) => out.sample(declared.name, labels, value(&row.stats)),
                    Value::Always(value) => out.sample(declared.name, labels, value(row)),
                    Value::Sometimes(value) => {
                        if let Some(value) = value(&row.stats) {
                            out.sample(declared.name, labels, value);
                        }
                    }
                }
            }
        }
    }

    /// All streams that have not expired, and how many of them may be written.
    fn candidates(shared: &Mutex<Self>) -> (Vec<Candidate>, usize) {
        let (chunks, len, export) = {
            let streams = shared.lock();
            (streams.table.chunks(), streams.len(), streams.config.export)
        };
        let mut candidates = Vec::with_capacity(len);
        for chunk in 0..chunks {
            let streams = shared.lock();
            for (slot, entry) in streams.table.chunk(chunk) {
                for (direction, stats) in (0..).zip(entry.value.stats) {
                    let Some(stats) = stats else { continue };
                    candidates.push(Candidate { bytes: streams.stats.get(stats).bytes(), slot, direction });
                }
            }
        }
        (candidates, export)
    }

    /// Copies of these streams. Those that have been removed since are left out.
    fn rows(shared: &Mutex<Self>, chosen: Vec<Candidate>) -> Vec<Row> {
        let mut rows = Vec::with_capacity(chosen.len());
        for some in chosen.chunks(ROWS_PER_LOCK) {
            let streams = shared.lock();
            for candidate in some {
                let Some(entry) = streams.table.get_if_held(candidate.slot) else { continue };
                let Some(stats) = entry.value.stats[usize::from(candidate.direction)] else { continue };
                rows.push(Row {
                    key: entry.key,
                    direction: candidate.direction,
                    now: streams.table.now(entry.origin()),
                    stats: *streams.stats.get(stats),
                });
            }
        }
        rows
    }
}

/// The `export` streams with most bytes, in slot order, which is the order of memory.
fn with_most_bytes(mut candidates: Vec<Candidate>, export: usize) -> Vec<Candidate> {
    if candidates.len() > export {
        if export > 0 {
            candidates.select_nth_unstable_by(export - 1, |a, b| b.bytes.cmp(&a.bytes));
        }
        candidates.truncate(export);
        candidates.shrink_to_fit();
        candidates.sort_unstable_by_key(|candidate| (candidate.slot, candidate.direction));
    }
    candidates
}
