//! Gaps: batches that have not come, while later ones have.
//!
//! After a reconnect, what was under way on the old connection may come behind what the new one brings. So a batch that
//! is missing is not lost yet: its gap stays open for a while, and a batch that falls into it fills it, or splits it in
//! two. A gap that is given up is remembered, to know what comes after all from what comes twice.

use std::ops::Range;
use std::time::Duration;

use packet::Timestamp;

use super::figures::{Figures, Tally};

/// How long a batch may come behind a later one before it is given up.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The most gaps that are remembered of an epoch. A reconnect makes one.
const MAX_GAPS: usize = 256;

/// How batches came to be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// They were sent before the collector heard of the source.
    Unheard,
    /// They were lost on their way.
    Transit,
}

/// Batches with consecutive numbers, none of which has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Their numbers.
    pub(super) batches: Range<u64>,
    /// Their packets, by their numbers in the epoch.
    pub(super) packets: Range<u64>,
    pub(super) cause: Cause,
    /// When the batch behind them came.
    pub(super) since: Timestamp,
    /// Whether they have been given up, and counted.
    pub(super) settled: bool,
}

impl Gap {
    pub(super) fn tally(&self) -> Tally {
        Tally {
            batches: self.batches.end.saturating_sub(self.batches.start),
            packets: self.packets.end.saturating_sub(self.packets.start),
        }
    }

    /// Counts it as what it is, once.
    fn settle(&mut self, figures: &mut Figures) {
        if !self.settled {
            self.settled = true;
            match self.cause {
                Cause::Unheard => figures.unheard += self.tally(),
                Cause::Transit => figures.lost += self.tally(),
            }
        }
    }
}

/// The gaps of one epoch, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    list: Vec<Gap>,
}

impl Gaps {
    /// A batch came with a higher number than all before, and not the next one.
    pub(super) fn open(&mut self, gap: Gap, figures: &mut Figures) {
        self.list.push(gap);
        self.bound(figures);
    }

    /// A batch came that is not the newest. Returns whether it was missing; if not, it came before.
    pub(super) fn fill(&mut self, number: u64, packets: Range<u64>, figures: &mut Figures) -> bool {
        let at = self.list.partition_point(|gap| gap.batches.end <= number);
        let Some(gap) = self.list.get(at).filter(|gap| gap.batches.contains(&number)).cloned() else {
            return false;
        };
        if gap.settled {
            figures.returned += Tally { batches: 1, packets: packets.end.saturating_sub(packets.start) };
        }
        // Once a batch of it has come, the collector has heard of the source: what is missing behind that is lost.
        let cause = if gap.settled { gap.cause } else { Cause::Transit };
        let before = Gap {
            batches: gap.batches.start..number,
            packets: gap.packets.start..packets.start.clamp(gap.packets.start, gap.packets.end),
            ..gap
        };
        let behind = Gap {
            batches: number.saturating_add(1)..gap.batches.end,
            packets: packets.end.clamp(gap.packets.start, gap.packets.end)..gap.packets.end,
            cause,
            ..gap
        };
        self.list.splice(at..=at, [before, behind].into_iter().filter(|gap| !gap.batches.is_empty()));
        self.bound(figures);
        true
    }

    /// Forgets the oldest gaps, if they are too many.
    fn bound(&mut self, figures: &mut Figures) {
        while self.list.len() > MAX_GAPS {
            self.list.remove(0).settle(figures);
        }
    }

    /// Gives up what has been missing since `before`, or longer.
    pub(super) fn settle(&mut self, before: Timestamp, figures: &mut Figures) {
        for gap in self.list.iter_mut().filter(|gap| gap.since <= before) {
            gap.settle(figures);
        }
    }

    /// What may still come.
    pub(super) fn missing(&self) -> Tally {
        let mut missing = Tally::default();
        for gap in self.list.iter().filter(|gap| !gap.settled) {
            missing += gap.tally();
        }
        missing
    }
}
