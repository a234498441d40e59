//! A connection in the table: the state of its analysis, where its counts are, and its progress.

use super::analysis::{Event, SegmentAnalysis};
use super::conversation::Conversation;
use super::segment::Segment;
use super::totals::Totals;
use crate::expiring_table::Limit;
use crate::slab::Slot;

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) conversation: Conversation,
    /// The counts of the direction from the low endpoint, and of the one from the high endpoint.
    pub(super) stats: [Option<Slot>; 2],
    /// Whether a SYN was captured.
    opened: bool,
    /// The directions with a FIN.
    finished: [bool; 2],
    /// Whether FIN or RST has ended it.
    pub(super) ended: bool,
}

impl Connection {
    /// A connection without segments.
    pub(super) const NEW: Self = Self {
        conversation: Conversation::NEW,
        stats: [None; 2],
        opened: false,
        finished: [false; 2],
        ended: false,
    };

    /// The time limit that applies to it.
    pub(super) const fn limit(&self) -> Limit {
        if self.ended { Limit::Ended } else { Limit::Active }
    }

    /// Tracks the connection's beginning and end, and counts them.
    #[inline]
    pub(super) fn track(
        &mut self,
        direction: usize,
        segment: &Segment,
        analysis: &SegmentAnalysis,
        totals: &mut Totals,
    ) {
        if !segment.is_plain() {
            self.track_state_change(direction, segment, analysis, totals);
        }
    }

    fn track_state_change(
        &mut self,
        direction: usize,
        segment: &Segment,
        analysis: &SegmentAnalysis,
        totals: &mut Totals,
    ) {
        if analysis.events.has(Event::PortReuse) {
            (self.opened, self.finished, self.ended) = (false, [false; 2], false);
        }
        if segment.syn() && !self.opened {
            self.opened = true;
            totals.opened += 1;
        }
        self.finished[direction] |= segment.fin();
        let all_finished = self.stats.iter().zip(self.finished).all(|(seen, fin)| seen.is_none() || fin);
        if self.ended {
            return;
        }
        if segment.rst() {
            self.ended = true;
            totals.reset += 1;
        } else if all_finished {
            self.ended = true;
            totals.finished += 1;
        }
    }
}
