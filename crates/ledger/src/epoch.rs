//! One epoch: a run of a source, as reconstructed from its batches.

use batch::{Dropped, Header};
use packet::Timestamp;

use crate::gaps::{Cause, Gap, Gaps};
use crate::{Counts, SourceStats};

/// One run of a source.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    /// When the run began, in nanoseconds since the Unix epoch. It identifies the run.
    pub(crate) number: u64,
    /// When its latest batch arrived.
    pub(crate) last_received: Timestamp,
    /// Whether a batch has said that the run ends with it.
    pub(crate) ended: bool,
    /// The watermark of the batch with the highest sequence number.
    pub(crate) watermark: Timestamp,
    /// The cause of a gap before the first batch.
    start_cause: Cause,
    /// One more than the highest sequence number received.
    next: u64,
    sent: u64,
    captured: u64,
    dropped: Dropped,
    gaps: Gaps,
}

impl Epoch {
    /// Creates an epoch without batches.
    pub(crate) fn new(number: u64, start_cause: Cause) -> Self {
        Self {
            number,
            last_received: Timestamp::ZERO,
            ended: false,
            watermark: Timestamp::ZERO,
            start_cause,
            next: 0,
            sent: 0,
            captured: 0,
            dropped: Dropped::default(),
            gaps: Gaps::default(),
        }
    }

    /// Records a batch in `stats`. Returns what went missing in transit before it, or `None` if it is a duplicate.
    pub(crate) fn record(
        &mut self,
        header: &Header,
        now: Timestamp,
        stats: &mut SourceStats,
    ) -> Option<Counts> {
        let sent = header.sent_before.saturating_add(header.packets.into());
        let mut missing = Counts::default();
        if header.sequence < self.next {
            if !self.gaps.fill(header.sequence, header.sent_before..sent, stats) {
                return None;
            }
        } else {
            if header.sequence > self.next {
                let cause = if self.next == 0 { self.start_cause } else { Cause::Transit };
                let gap = Gap {
                    batches: self.next..header.sequence,
                    packets: self.sent..header.sent_before.max(self.sent),
                    cause,
                    since: now,
                    settled: false,
                };
                if cause == Cause::Transit {
                    missing = gap.counts();
                }
                self.gaps.open(gap, stats);
            }
            self.next = header.sequence.saturating_add(1);
            self.watermark = header.watermark;
        }
        self.last_received = now;
        self.ended |= header.ends;
        raise(&mut self.sent, sent, &mut stats.sent);
        raise(&mut self.captured, header.captured, &mut stats.captured);
        raise(&mut self.dropped.kernel, header.dropped.kernel, &mut stats.dropped.kernel);
        raise(&mut self.dropped.interface, header.dropped.interface, &mut stats.dropped.interface);
        raise(&mut self.dropped.relay, header.dropped.relay, &mut stats.dropped.relay);
        Some(missing)
    }

    /// Counts what has been missing since `before` or longer.
    pub(crate) fn settle(&mut self, before: Timestamp, stats: &mut SourceStats) {
        self.gaps.settle(before, stats);
    }

    /// What may still arrive.
    pub(crate) fn missing(&self) -> Counts {
        self.gaps.missing()
    }
}

/// Raises a cumulative figure of the epoch to `reported`, and the sum over all epochs by the difference. A lower value
/// comes from an older batch and changes nothing.
fn raise(known: &mut u64, reported: u64, sum: &mut u64) {
    *sum = sum.saturating_add(reported.saturating_sub(*known));
    *known = reported.max(*known);
}
