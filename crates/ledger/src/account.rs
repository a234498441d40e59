//! The account of one source, over all its epochs.

use std::time::Duration;

use batch::Header;
use packet::{Origin, Timestamp};

use crate::clock_offset::ClockOffset;
use crate::epoch::{Epoch, State};
use crate::gaps::{Cause, LOSS_TIMEOUT, MAX_GAPS};
use crate::plausibility::Limit;
use crate::{Counts, Receipt, Refusal, SourceStats, WriteOutcome};

/// The number of epochs remembered per source. A restart makes one, and only the last two ever send. If more captures
/// than this shared a name, which is reported, epochs would be forgotten and their batches counted again.
const MAX_EPOCHS: usize = 16;

/// The number of epochs that a source may begin in [`EPOCH_PERIOD`]: a capture that fails at once is restarted every few
/// seconds.
const MAX_NEW_EPOCHS: u32 = 16;

const EPOCH_PERIOD: Duration = Duration::from_secs(60);

/// One source.
#[derive(Debug)]
pub(crate) struct Account {
    origin: Origin,
    /// Without the figures that [`Account::stats`] fills in.
    stats: SourceStats,
    epochs: Vec<Epoch>,
    /// The epoch of the first batch received, and when it arrived.
    first: u64,
    since: Timestamp,
    /// Epochs that began since a time.
    new_epochs: u32,
    new_epochs_since: Timestamp,
    clock_offset: ClockOffset,
}

impl Account {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            stats: SourceStats::default(),
            epochs: Vec::new(),
            first: 0,
            since: Timestamp::ZERO,
            new_epochs: 0,
            new_epochs_since: Timestamp::ZERO,
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
        stats.ended = self.is_over();
        // A watermark of the run that goes on, if there is one.
        let latest =
            self.epochs.iter().max_by_key(|epoch| (epoch.state == State::Running, epoch.last_received));
        stats.watermark = latest.map(|epoch| epoch.watermark).unwrap_or_default();
        stats
    }

    /// Whether there has been a run, and none goes on. Which of several began last cannot be told from their numbers: the
    /// clock may have been set back between them.
    fn is_over(&self) -> bool {
        !self.epochs.is_empty() && self.epochs.iter().all(|epoch| epoch.state != State::Running)
    }

    /// Whether all runs are over and no batch is missing.
    pub(crate) fn has_ended(&self) -> bool {
        self.is_over() && self.epochs.iter().all(|epoch| epoch.missing().is_zero())
    }

    /// Records a batch that arrived.
    pub(crate) fn record(&mut self, header: &Header, bytes: u64, now: Timestamp) -> Result<Receipt, Refusal> {
        let known = self.epochs.iter().position(|epoch| epoch.number == header.epoch);
        let index = match known {
            Some(index) if !self.epochs[index].is_plausible(header, now) => return Err(Refusal::Implausible),
            Some(index) => index,
            None => self.begin_epoch(header, now)?,
        };
        let new_epoch = known.is_none();
        let shared_name = !new_epoch && self.shows_shared_name(index, header, now);
        let Some(missing) = self.epochs[index].record(header, now, &mut self.stats) else {
            self.stats.duplicates += one_batch(header);
            return Ok(Receipt { duplicate: true, new_epoch, ..Receipt::default() });
        };
        self.stats.last_received = now;
        self.stats.received += one_batch(header);
        self.stats.bytes = self.stats.bytes.saturating_add(bytes);
        self.clock_offset.record(header.sent_at, now);
        self.bound_gaps();
        Ok(Receipt { duplicate: false, new_epoch, missing, shared_name, ended: self.is_over() })
    }

    pub(crate) fn record_ahead(&mut self, packets: u64) {
        self.stats.ahead = self.stats.ahead.saturating_add(packets);
    }

    /// Records what became of packets that left the merge.
    pub(crate) fn record_output(&mut self, outcome: &WriteOutcome) {
        self.stats.written += outcome.written;
        self.stats.late += outcome.late;
        for (sum, packets) in self.stats.discarded.iter_mut().zip(outcome.discarded) {
            *sum += packets;
        }
    }

    /// Whether a batch shows, for the first time, that two captures share the source's name; counts the runs that overlap.
    ///
    /// After a restart, batches of the old epoch may arrive after those of the new one. But if one of them was sent after
    /// the new epoch began, and arrives later than batches in transit do, both captures were running at once.
    fn shows_shared_name(&mut self, index: usize, header: &Header, now: Timestamp) -> bool {
        let Some(epoch) = self.epochs.get(index) else { return false };
        if !epoch.is_next(header) {
            return false;
        }
        let number = epoch.number;
        let before = self.stats.overlapping_runs;
        for later in self.epochs.iter_mut().filter(|later| later.number > number && !later.overlaps) {
            let settled = now >= later.first_received + LOSS_TIMEOUT;
            // By the capture's clock; an epoch that claims to begin in the future began when it was heard of.
            let later_began = later.first_received.min(Timestamp::from_nanos(later.number));
            if settled && header.sent_at > later_began {
                later.overlaps = true;
                self.stats.overlapping_runs += 1;
            }
        }
        before == 0 && self.stats.overlapping_runs > 0
    }

    /// Begins the epoch of a batch. Returns its index.
    fn begin_epoch(&mut self, header: &Header, now: Timestamp) -> Result<usize, Refusal> {
        let is_first = self.stats.epochs == 0;
        if is_first {
            (self.first, self.since) = (header.epoch, now);
        }
        if now < self.new_epochs_since || now.since(self.new_epochs_since) >= EPOCH_PERIOD {
            (self.new_epochs, self.new_epochs_since) = (0, now);
        }
        if self.new_epochs >= MAX_NEW_EPOCHS {
            return Err(Refusal::TooManyRuns);
        }
        self.new_epochs += 1;
        if self.epochs.len() >= MAX_EPOCHS {
            // One that has ended; else the one with the shortest history, which is the easiest to make up.
            let forgettable =
                |epoch: &Epoch| (epoch.state == State::Running, epoch.batches, epoch.last_received);
            let forgotten = (0..self.epochs.len()).min_by_key(|at| forgettable(&self.epochs[*at]));
            let mut forgotten = self.epochs.swap_remove(forgotten.unwrap_or_default());
            forgotten.settle(Timestamp::MAX, &mut self.stats);
        }
        // If the epoch began after the first contact, the collector was there to receive all of it.
        let cause = if header.epoch <= self.first { Cause::SentBeforeConnect } else { Cause::Transit };
        let limit = if is_first { Limit::FIRST_RUN } else { Limit::within(now.since(self.since)) };
        self.epochs.push(Epoch::new(header, cause, limit, now));
        self.stats.epochs += 1;
        Ok(self.epochs.len() - 1)
    }

    /// Forgets gaps beyond [`MAX_GAPS`], those of the epoch that was not heard for longest first.
    fn bound_gaps(&mut self) {
        let mut gaps: usize = self.epochs.iter().map(Epoch::gaps).sum();
        while gaps > MAX_GAPS {
            let with_gaps = self.epochs.iter_mut().filter(|epoch| epoch.gaps() > 0);
            let Some(oldest) = with_gaps.min_by_key(|epoch| epoch.last_received) else { return };
            oldest.forget_gap(&mut self.stats);
            gaps -= 1;
        }
    }

    /// Counts batches that have been missing for [`LOSS_TIMEOUT`] as lost, and notices runs that have been replaced by others.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        for epoch in &mut self.epochs {
            epoch.settle(now - LOSS_TIMEOUT, &mut self.stats);
        }
        for index in 0..self.epochs.len() {
            if self.is_superseded(index, now) {
                self.epochs[index].state = State::Superseded;
            }
        }
    }

    /// Whether a run is silent, and another one has taken its place. The other one began later, and is heard or has ended; or
    /// it is heard for so much longer that its batches are not those of a killed capture in transit: then it began later, too,
    /// and the clock was set back between them.
    fn is_superseded(&self, index: usize, now: Timestamp) -> bool {
        let Some(Epoch { number, last_received: last, state: State::Running, .. }) = self.epochs.get(index)
        else {
            return false;
        };
        let is_successor = |other: &Epoch| {
            let heard = other.last_received > *last;
            let ended = other.state == State::Ended && other.last_received + LOSS_TIMEOUT > *last;
            let began_later = other.number > *number;
            (began_later && (heard || ended)) || other.last_received > *last + LOSS_TIMEOUT
        };
        now.since(*last) >= LOSS_TIMEOUT && self.epochs.iter().any(is_successor)
    }
}

fn one_batch(header: &Header) -> Counts {
    Counts { batches: 1, packets: header.packets.into() }
}
