//! What became of the packets that left the merge.

use std::num::NonZeroU64;

use ledger::{DiscardReason, WriteOutcome};
use merge::PacketRun;
use packet::SourceId;
use sink::InterfaceId;

/// Packets of one interface of the output; without one, the output cannot hold them.
pub(super) type Run<'a> = PacketRun<'a, Option<InterfaceId>>;

/// What became of the packets of each source since the ledger was told, and how many may still be written.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// `None` for no limit.
    remaining: Option<u64>,
    /// Indexed by source.
    by_source: Vec<Option<WriteOutcome>>,
    /// The sources that have an outcome.
    sources: Vec<SourceId>,
}

impl Outcomes {
    pub(super) fn new(max_packets: Option<NonZeroU64>) -> Self {
        Self { remaining: max_packets.map(NonZeroU64::get), by_source: Vec::new(), sources: Vec::new() }
    }

    /// Whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.remaining == Some(0)
    }

    /// How many packets of a run the limit admits.
    pub(super) fn admitted(&self, run: &Run<'_>) -> u64 {
        let packets = u64::from(run.packets);
        self.remaining.map_or(packets, |remaining| remaining.min(packets))
    }

    /// Counts a run of which `written` packets were written, and the rest exceeds the limit.
    pub(super) fn written(&mut self, run: &Run<'_>, written: u64) {
        let outcome = self.of(run);
        outcome.written += written;
        outcome.discard(DiscardReason::MaxPackets, u64::from(run.packets).saturating_sub(written));
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(written);
        }
    }

    /// Counts a run that is not written.
    pub(super) fn discarded(&mut self, run: &Run<'_>, reason: DiscardReason) {
        self.of(run).discard(reason, run.packets.into());
    }

    /// The outcome of a run's source, with the run's late packets counted.
    fn of(&mut self, run: &Run<'_>) -> &mut WriteOutcome {
        let index = run.source.0 as usize;
        if index >= self.by_source.len() {
            self.by_source.resize(index + 1, None);
        }
        let outcome = self.by_source[index].get_or_insert_with(|| {
            self.sources.push(run.source);
            WriteOutcome::default()
        });
        outcome.late += u64::from(run.late);
        outcome
    }

    /// The outcomes since the last call.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (SourceId, WriteOutcome)> {
        let by_source = &mut self.by_source;
        self.sources
            .drain(..)
            .filter_map(|source| Some((source, by_source.get_mut(source.0 as usize)?.take()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(source: u32, packets: u32, late: u32) -> Run<'static> {
        PacketRun { source: SourceId(source), tag: Some(InterfaceId(0)), bytes: &[], packets, late }
    }

    fn outcome(written: u64, late: u64, discarded: [u64; 3]) -> WriteOutcome {
        WriteOutcome { written, late, discarded }
    }

    #[test]
    fn outcomes_are_counted_per_source_and_taken_once() {
        let mut outcomes = Outcomes::new(None);
        assert_eq!(outcomes.admitted(&run(7, 3, 1)), 3);
        outcomes.written(&run(7, 3, 1), 3);
        outcomes.written(&run(2, 3, 0), 3);
        outcomes.written(&run(7, 3, 2), 3);
        outcomes.discarded(&run(2, 3, 1), DiscardReason::LinkType);
        let taken: Vec<_> = outcomes.take().collect();
        assert_eq!(taken, [(SourceId(7), outcome(6, 3, [0, 0, 0])), (SourceId(2), outcome(3, 1, [3, 0, 0]))]);
        assert_eq!(outcomes.take().count(), 0);
        assert!(!outcomes.is_full());
    }

    #[test]
    fn the_limit_cuts_a_run() {
        let mut outcomes = Outcomes::new(NonZeroU64::new(5));
        for (admitted, full) in [(3, false), (2, true), (0, true)] {
            let run = run(0, 3, 0);
            assert_eq!(outcomes.admitted(&run), admitted);
            outcomes.written(&run, admitted);
            assert_eq!(outcomes.is_full(), full);
        }
        assert_eq!(outcomes.take().collect::<Vec<_>>(), [(SourceId(0), outcome(5, 0, [0, 4, 0]))]);
    }
}
