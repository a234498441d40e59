//! Gaps: batches that have not arrived while later ones have.
//!
//! After a reconnect, batches in transit on the old connection may arrive after those of the new one. A missing batch is
//! therefore not lost yet: its gap stays open for a while, and a batch that falls into the gap closes or splits it. A gap
//! that has been counted as lost is remembered, to tell a recovered batch from a duplicate.

use std::ops::Range;
use std::time::Duration;

use packet::Timestamp;

use crate::{Counts, SourceStats};

/// How long a batch may be missing before it counts as lost: 2 s after a later one arrived.
pub const LOSS_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of gaps remembered per source. A reconnect makes one. 4096 sources can have 22 MiB of gaps.
pub(crate) const MAX_GAPS: usize = 64;

/// Why batches are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// They were sent before the collector's first contact with the source.
    SentBeforeConnect,
    /// They were lost in transit.
    Transit,
}

/// Consecutive batches, none of which has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Their sequence numbers.
    pub(crate) batches: Range<u64>,
    /// Their packets, numbered from the start of the epoch.
    pub(crate) packets: Range<u64>,
    pub(crate) cause: Cause,
    /// When the batch after them arrived.
    pub(crate) since: Timestamp,
    /// Whether they have been counted, as [`Cause`] says.
    pub(crate) settled: bool,
}

impl Gap {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            batches: self.batches.end.saturating_sub(self.batches.start),
            packets: self.packets.end.saturating_sub(self.packets.start),
        }
    }

    /// Counts the gap by its cause, once.
    fn settle(&mut self, stats: &mut SourceStats) {
        if !self.settled {
            self.settled = true;
            match self.cause {
                Cause::SentBeforeConnect => stats.sent_before_connect += self.counts(),
                Cause::Transit => stats.lost += self.counts(),
            }
        }
    }
}

/// The gaps of one epoch, in the order of their sequence numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    list: Vec<Gap>,
}

impl Gaps {
    /// Opens a gap after the latest batch.
    pub(crate) fn open(&mut self, gap: Gap, stats: &mut SourceStats) {
        self.list.push(gap);
        while self.list.len() > MAX_GAPS {
            self.forget_oldest(stats);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets the oldest gap: what is missing in it counts as lost, and is a duplicate if it arrives.
    pub(crate) fn forget_oldest(&mut self, stats: &mut SourceStats) {
        if !self.list.is_empty() {
            self.list.remove(0).settle(stats);
        }
    }

    /// Takes a batch that is older than the latest one out of its gap. Returns false if the batch is not missing, so
    /// that it must be a duplicate.
    pub(crate) fn fill(&mut self, number: u64, packets: Range<u64>, stats: &mut SourceStats) -> bool {
        let at = self.list.partition_point(|gap| gap.batches.end <= number);
        let Some(gap) = self.list.get(at).filter(|gap| gap.batches.contains(&number)).cloned() else {
            return false;
        };
        if gap.settled {
            stats.recovered += Counts { batches: 1, packets: packets.end.saturating_sub(packets.start) };
        }
        // The batch shows that the collector was connected by then, so what is missing after it was lost in transit.
        let cause = if gap.settled { gap.cause } else { Cause::Transit };
        let before = Gap {
            batches: gap.batches.start..number,
            packets: gap.packets.start..packets.start.clamp(gap.packets.start, gap.packets.end),
            ..gap
        };
        let after = Gap {
            batches: number.saturating_add(1)..gap.batches.end,
            packets: packets.end.clamp(gap.packets.start, gap.packets.end)..gap.packets.end,
            cause,
            ..gap
        };
        self.list.splice(at..=at, [before, after].into_iter().filter(|gap| !gap.batches.is_empty()));
        while self.list.len() > MAX_GAPS {
            self.forget_oldest(stats);
        }
        true
    }

    /// Counts what has been missing since `before` or longer.
    pub(crate) fn settle(&mut self, before: Timestamp, stats: &mut SourceStats) {
        for gap in self.list.iter_mut().filter(|gap| gap.since <= before) {
            gap.settle(stats);
        }
    }

    /// What may still arrive.
    pub(crate) fn missing(&self) -> Counts {
        let mut missing = Counts::default();
        for gap in self.list.iter().filter(|gap| !gap.settled) {
            missing += gap.counts();
        }
        missing
    }
}
