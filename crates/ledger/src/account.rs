//! The account of one source, over all its epochs.

use batch::Header;
use packet::{Origin, Timestamp};

use crate::clock_offset::ClockOffset;
use crate::epoch::Epoch;
use crate::gaps::{Cause, LOSS_TIMEOUT};
use crate::{Counts, Receipt, SourceStats, WriteOutcome};

/// The number of epochs remembered per source. A restart makes one, and only the last two ever send. If more captures
/// than this shared a name, which is reported, epochs would be forgotten and their batches counted again.
const MAX_EPOCHS: usize = 16;

/// One source.
#[derive(Debug)]
pub(crate) struct Account {
    origin: Origin,
    /// Without the figures that [`Account::stats`] fills in.
    stats: SourceStats,
    epochs: Vec<Epoch>,
    /// The epochs of the first batch received and of the latest one.
    first: u64,
    last: u64,
    clock_offset: ClockOffset,
}

impl Account {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            stats: SourceStats::default(),
            epochs: Vec::new(),
            first: 0,
            last: 0,
            clock_offset: ClockOffset::default(),
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The figures as of now.
    pub(crate) fn stats(&self) -> SourceStats {
        let mut stats = SourceStats { clock_offset: self.clock_offset.estimate(), ..self.stats };
        for epoch in &self.epochs {
            stats.missing += epoch.missing();
        }
        if let Some(latest) = self.latest() {
            stats.watermark = latest.watermark;
            stats.ended = latest.ended;
        }
        stats
    }

    /// The epoch that began last.
    fn latest(&self) -> Option<&Epoch> {
        self.epochs.iter().max_by_key(|epoch| epoch.number)
    }

    /// Whether the latest epoch has ended and no batch is missing.
    pub(crate) fn has_ended(&self) -> bool {
        self.latest().is_some_and(|latest| latest.ended)
            && self.epochs.iter().all(|epoch| epoch.missing().is_zero())
    }

    /// Counts a batch as received. A shared account records nothing else.
    pub(crate) fn record_received(&mut self, header: &Header, bytes: u64, now: Timestamp) {
        self.stats.last_received = now;
        self.stats.received += one_batch(header);
        self.stats.bytes = self.stats.bytes.saturating_add(bytes);
    }

    /// Records a batch that arrived.
    pub(crate) fn record(&mut self, header: &Header, bytes: u64, now: Timestamp) -> Receipt {
        if self.epochs.is_empty() {
            self.first = header.epoch;
            self.last = header.epoch;
        }
        let shared_name = self.shows_shared_name(header);
        let (epoch, new_epoch) = self.epoch(header.epoch);
        let Some(missing) = self.epochs[epoch].record(header, now, &mut self.stats) else {
            self.stats.duplicates += one_batch(header);
            return Receipt { duplicate: true, new_epoch, ..Receipt::default() };
        };
        self.record_received(header, bytes, now);
        self.clock_offset.record(header.sent_at, now);
        self.last = header.epoch;
        self.stats.shared_name |= shared_name;
        Receipt { duplicate: false, new_epoch, missing, shared_name }
    }

    /// Records what became of packets that left the merge.
    pub(crate) fn record_output(&mut self, outcome: &WriteOutcome) {
        self.stats.written += outcome.written;
        self.stats.late += outcome.late;
        for (sum, packets) in self.stats.discarded.iter_mut().zip(outcome.discarded) {
            *sum += packets;
        }
    }

    /// Whether a batch shows, for the first time, that two captures share the source's name.
    ///
    /// After a restart, batches of the old epoch may arrive after those of the new one. But if one of them was sent after
    /// the new epoch began, both captures were running at once.
    fn shows_shared_name(&self, header: &Header) -> bool {
        !self.stats.shared_name
            && header.epoch < self.last
            && header.sent_at > Timestamp::from_nanos(self.last)
            && self.epochs.iter().any(|epoch| epoch.number == header.epoch)
    }

    /// The index of an epoch, and whether it is new.
    fn epoch(&mut self, number: u64) -> (usize, bool) {
        if let Some(known) = self.epochs.iter().position(|epoch| epoch.number == number) {
            return (known, false);
        }
        if self.epochs.len() >= MAX_EPOCHS {
            let oldest =
                (0..self.epochs.len()).min_by_key(|at| self.epochs[*at].last_received).unwrap_or_default();
            let mut oldest = self.epochs.swap_remove(oldest);
            oldest.settle(Timestamp::MAX, &mut self.stats);
        }
        // If the epoch began after the first contact, the collector was there to receive all of it.
        let start_cause = if number <= self.first { Cause::SentBeforeConnect } else { Cause::Transit };
        self.epochs.push(Epoch::new(number, start_cause));
        self.stats.epochs += 1;
        (self.epochs.len() - 1, true)
    }

    /// Counts batches that have been missing for [`LOSS_TIMEOUT`] as lost.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        for epoch in &mut self.epochs {
            epoch.settle(now - LOSS_TIMEOUT, &mut self.stats);
        }
    }
}

fn one_batch(header: &Header) -> Counts {
    Counts { batches: 1, packets: header.packets.into() }
}
