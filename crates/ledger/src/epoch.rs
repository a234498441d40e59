//! One epoch: a run of a source, as reconstructed from its batches.

use batch::{Dropped, Header};
use packet::Timestamp;

use crate::gaps::{Cause, Gap, Gaps};
use crate::plausibility::{Limit, counters};
use crate::{Counts, SourceStats};

/// One run of a source.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    /// When the run began, in nanoseconds since the Unix epoch. It identifies the run.
    pub(crate) number: u64,
    /// When its first batch arrived, and its latest one.
    pub(crate) first_received: Timestamp,
    pub(crate) last_received: Timestamp,
    /// How many batches have arrived.
    pub(crate) batches: u64,
    /// Whether another run of the source was found to go on at the same time.
    pub(crate) overlaps: bool,
    pub(crate) state: State,
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

/// Whether more batches of a run are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// They are.
    Running,
    /// It is silent, and another run of the source has been heard since: the capture was killed and restarted.
    Superseded,
    /// A batch has said that the run ends with it.
    Ended,
}

impl Epoch {
    /// Creates an epoch before its first batch, which has this header and arrives at `now`. Counters that exceed `limit` are
    /// not believed: they count from here.
    pub(crate) fn new(header: &Header, start_cause: Cause, limit: Limit, now: Timestamp) -> Self {
        let believed = |counter: u64| if limit.allows(0, counter) { 0 } else { counter };
        let [sequence, sent, captured, kernel, interface, relay] = counters(header).map(believed);
        // The numbers of batches and of packets belong together.
        let known = sequence > 0 || sent > 0;
        Self {
            number: header.epoch,
            first_received: now,
            last_received: now,
            batches: 0,
            overlaps: false,
            state: State::Running,
            watermark: Timestamp::ZERO,
            start_cause,
            next: if known { header.sequence } else { 0 },
            sent: if known { header.sent_before } else { 0 },
            captured,
            dropped: Dropped { kernel, interface, relay },
            gaps: Gaps::default(),
        }
    }

    /// Whether a batch may belong to this run, judging by its counters.
    pub(crate) fn is_plausible(&self, header: &Header, now: Timestamp) -> bool {
        let Dropped { kernel, interface, relay } = self.dropped;
        let known = [self.next, self.sent, self.captured, kernel, interface, relay];
        Limit::within(now.since(self.last_received)).allows_all(known, header)
    }

    /// Whether a batch is later than all batches received.
    pub(crate) fn is_next(&self, header: &Header) -> bool {
        header.sequence >= self.next
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
            // The counters of a run only grow. If they have shrunk, another capture claimed to be this one: they count from
            // here.
            self.sent = self.sent.min(header.sent_before);
            self.captured = self.captured.min(header.captured);
            self.dropped.kernel = self.dropped.kernel.min(header.dropped.kernel);
            self.dropped.interface = self.dropped.interface.min(header.dropped.interface);
            self.dropped.relay = self.dropped.relay.min(header.dropped.relay);
            if header.sequence > self.next {
                let cause = if self.next == 0 { self.start_cause } else { Cause::Transit };
                let gap = Gap {
                    batches: self.next..header.sequence,
                    packets: self.sent..header.sent_before,
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
        self.batches += 1;
        self.state = match self.state {
            _ if header.ends => State::Ended,
            State::Superseded => State::Running,
            state => state,
        };
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

    /// How many gaps it remembers.
    pub(crate) fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// Forgets its oldest gap.
    pub(crate) fn forget_gap(&mut self, stats: &mut SourceStats) {
        self.gaps.forget_oldest(stats);
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
