//! The epoch: one run of a source, from the batches that came of it.

use packet::Timestamp;

use super::figures::{Dropped, Figures, Tally};
use super::gaps::{Cause, Gap, Gaps};

/// What the header of a batch says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// When this run of the source began, in nanoseconds since the Unix epoch: what tells its runs apart.
    pub epoch: u64,
    /// The batch's number in its epoch, from 0.
    pub sequence: u64,
    /// Packets sent in this epoch before this batch.
    pub sent_before: u64,
    /// Packets in this batch.
    pub packets: u32,
    /// Packets read from the device in this epoch so far.
    pub captured: u64,
    /// Packets lost at the source in this epoch so far.
    pub dropped: Dropped,
    /// When the batch was sent, by the source's clock.
    pub sent_at: Timestamp,
    /// No later batch of this epoch holds an older packet.
    pub watermark: Timestamp,
    /// Whether the source ends with this batch.
    pub ends: bool,
}

/// One run of a source.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    /// Its number, which is the time when it began.
    pub(super) number: u64,
    /// When something of it came last.
    pub(super) heard: Timestamp,
    /// Whether its last batch, or one that says so, has come.
    pub(super) ended: bool,
    /// The latest promise.
    pub(super) watermark: Timestamp,
    /// What a gap at its beginning means.
    beginning: Cause,
    /// One more than the highest number of a batch that came.
    next: u64,
    sent: u64,
    captured: u64,
    dropped: Dropped,
    gaps: Gaps,
}

impl Epoch {
    /// Of which nothing has come.
    pub(super) fn new(number: u64, beginning: Cause) -> Self {
        Self {
            number,
            heard: Timestamp::ZERO,
            ended: false,
            watermark: Timestamp::ZERO,
            beginning,
            next: 0,
            sent: 0,
            captured: 0,
            dropped: Dropped::default(),
            gaps: Gaps::default(),
        }
    }

    /// A batch came. Adds to `figures` what that changes, and returns what got missing in front of it on its way;
    /// `None` where it came before.
    pub(super) fn record(&mut self, entry: &Entry, now: Timestamp, figures: &mut Figures) -> Option<Tally> {
        let sent = entry.sent_before.saturating_add(entry.packets.into());
        let mut missing = Tally::default();
        if entry.sequence < self.next {
            if !self.gaps.fill(entry.sequence, entry.sent_before..sent, figures) {
                return None;
            }
        } else {
            if entry.sequence > self.next {
                let cause = if self.next == 0 { self.beginning } else { Cause::Transit };
                let gap = Gap {
                    batches: self.next..entry.sequence,
                    packets: self.sent..entry.sent_before.max(self.sent),
                    cause,
                    since: now,
                    settled: false,
                };
                if cause == Cause::Transit {
                    missing = gap.tally();
                }
                self.gaps.open(gap, figures);
            }
            self.next = entry.sequence.saturating_add(1);
            self.watermark = entry.watermark;
        }
        self.heard = now;
        self.ended |= entry.ends;
        grow(&mut self.sent, sent, &mut figures.sent);
        grow(&mut self.captured, entry.captured, &mut figures.captured);
        grow(&mut self.dropped.kernel, entry.dropped.kernel, &mut figures.dropped.kernel);
        grow(&mut self.dropped.interface, entry.dropped.interface, &mut figures.dropped.interface);
        grow(&mut self.dropped.relay, entry.dropped.relay, &mut figures.dropped.relay);
        Some(missing)
    }

    /// Gives up what has been missing since `before`, or longer.
    pub(super) fn settle(&mut self, before: Timestamp, figures: &mut Figures) {
        self.gaps.settle(before, figures);
    }

    /// What may still come.
    pub(super) fn missing(&self) -> Tally {
        self.gaps.missing()
    }
}

/// A number of the epoch has grown, or its batch is older than one that said more: the sum over all epochs grows with
/// it.
fn grow(known: &mut u64, said: u64, sum: &mut u64) {
    *sum = sum.saturating_add(said.saturating_sub(*known));
    *known = said.max(*known);
}
