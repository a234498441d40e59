//! The account of one source, over all its epochs.

use packet::{Origin, Timestamp};

use super::Heard;
use super::epoch::{Entry, Epoch};
use super::figures::{Figures, Tally};
use super::gaps::{Cause, PATIENCE};
use super::offset::ClockOffset;
use crate::SourceId;

/// The most epochs that are remembered of a source. A restart makes one, and only the last two ever speak. Were there
/// more captures than this of the same name, which is reported, those that are forgotten in turn would count anew.
const MAX_EPOCHS: usize = 16;

/// One source.
#[derive(Debug)]
pub(super) struct Account {
    origin: Origin,
    /// But for what [`Account::figures`] adds.
    figures: Figures,
    epochs: Vec<Epoch>,
    /// The epoch of the first batch that ever came, and of the last one.
    first: u64,
    last: u64,
    offset: ClockOffset,
}

impl Account {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            figures: Figures::default(),
            epochs: Vec::new(),
            first: 0,
            last: 0,
            offset: ClockOffset::default(),
        }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn figures_mut(&mut self) -> &mut Figures {
        &mut self.figures
    }

    /// The figures as they are now.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures { clock_offset: self.offset.estimate(), ..self.figures };
        for epoch in &self.epochs {
            figures.missing += epoch.missing();
        }
        if let Some(latest) = self.latest() {
            figures.watermark = latest.watermark;
            figures.ended = latest.ended;
        }
        figures
    }

    /// The run that began last.
    fn latest(&self) -> Option<&Epoch> {
        self.epochs.iter().max_by_key(|epoch| epoch.number)
    }

    /// Whether the latest run has ended, and nothing may still come.
    pub(super) fn has_ended(&self) -> bool {
        self.latest().is_some_and(|latest| latest.ended)
            && self.epochs.iter().all(|epoch| epoch.missing().is_zero())
    }

    /// A batch came of one of the sources that share this account: all that can be said is that it came.
    pub(super) fn record_received(&mut self, entry: &Entry, bytes: u64, now: Timestamp) {
        if self.figures.received.batches == 0 {
            self.figures.first_heard = now;
        }
        self.figures.last_heard = now;
        self.figures.received += Tally { batches: 1, packets: entry.packets.into() };
        self.figures.bytes = self.figures.bytes.saturating_add(bytes);
    }

    /// A batch came.
    pub(super) fn record(&mut self, source: SourceId, entry: &Entry, bytes: u64, now: Timestamp) -> Heard {
        let new_source = self.epochs.is_empty();
        if new_source {
            self.first = entry.epoch;
            self.last = entry.epoch;
        }
        let shared_name = self.is_spoken_over(entry);
        let (epoch, new_epoch) = self.epoch(entry.epoch);
        let Some(missing) = self.epochs[epoch].record(entry, now, &mut self.figures) else {
            self.figures.duplicates += Tally { batches: 1, packets: entry.packets.into() };
            let missing = Tally::default();
            return Heard { source, duplicate: true, new_source, new_epoch, missing, shared_name: false };
        };
        self.record_received(entry, bytes, now);
        self.offset.record(entry.sent_at, now);
        self.last = entry.epoch;
        self.figures.shared |= shared_name;
        Heard { source, duplicate: false, new_source, new_epoch, missing, shared_name }
    }

    /// Whether a batch shows for the first time that two captures use the source's name.
    ///
    /// That of an older run came behind that of a newer one, which happens when a capture is restarted: but it was sent
    /// after the newer one had begun, so that both ran at once.
    fn is_spoken_over(&self, entry: &Entry) -> bool {
        !self.figures.shared
            && entry.epoch < self.last
            && entry.sent_at > Timestamp::from_nanos(self.last)
            && self.epochs.iter().any(|epoch| epoch.number == entry.epoch)
    }

    /// The place of an epoch, known or new.
    fn epoch(&mut self, number: u64) -> (usize, bool) {
        if let Some(known) = self.epochs.iter().position(|epoch| epoch.number == number) {
            return (known, false);
        }
        if self.epochs.len() >= MAX_EPOCHS {
            let silent = (0..self.epochs.len()).min_by_key(|at| self.epochs[*at].heard).unwrap_or_default();
            let mut silent = self.epochs.swap_remove(silent);
            silent.settle(Timestamp::MAX, &mut self.figures);
        }
        // Of a run that began after the first contact, everything was sent to a collector that could have heard it.
        let beginning = if number <= self.first { Cause::Unheard } else { Cause::Transit };
        self.epochs.push(Epoch::new(number, beginning));
        self.figures.epochs += 1;
        (self.epochs.len() - 1, true)
    }

    /// Gives up what has been missing for too long.
    pub(super) fn settle(&mut self, now: Timestamp) {
        for epoch in &mut self.epochs {
            epoch.settle(now - PATIENCE, &mut self.figures);
        }
    }
}
