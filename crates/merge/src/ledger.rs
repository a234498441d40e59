//! The ledger: what each source sent, what of that came, and what became of it. Exact, whatever comes in whatever
//! order.
//!
//! The batches of a source carry numbers, and say how much was sent before them, so that what is missing is known to
//! the packet. What a batch says of its source's own losses is cumulative: the highest figure of an epoch counts, and
//! epochs add up. The sums that hold stand at [`Figures`].
//!
//! Batches may overtake each other: those of a connection that broke come behind those of the next one, and those of a
//! capture that was restarted behind those of its successor. Nothing here depends on their order, and a counter never
//! takes back what it said: what is missing counts as lost only after [`PATIENCE`].

mod account;
mod epoch;
mod figures;
mod gaps;
mod offset;

use std::collections::HashMap;

use packet::{Origin, Timestamp};

use account::Account;
pub use epoch::Entry;
pub use figures::{Dropped, Figures, Skip, Tally};
pub use gaps::PATIENCE;

use crate::SourceId;

/// The default for how many sources have an account of their own.
pub const MAX_SOURCES: u32 = 4096;

/// What the ledger has to say about a batch.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The source's number, from now on.
    pub source: SourceId,
    /// Its packets came before, and must not go on.
    pub duplicate: bool,
    /// It is the first batch of its source.
    pub new_source: bool,
    /// It is the first batch of this run of its source.
    pub new_epoch: bool,
    /// What got missing in front of it on its way. Some of that may still come.
    pub missing: Tally,
    /// It shows that two captures use the source's name at the same time. Said once for each source.
    pub shared_name: bool,
}

/// The accounts of all sources.
#[derive(Debug)]
pub struct Ledger {
    /// By their [`SourceId`]. When all places are taken, one more is for all the sources that come then.
    accounts: Vec<Account>,
    ids: HashMap<Origin, SourceId>,
    max_sources: u32,
}

impl Default for Ledger {
    /// For up to [`MAX_SOURCES`].
    fn default() -> Self {
        Self::new(MAX_SOURCES)
    }
}

impl Ledger {
    /// Without a source. The first `max_sources` get an account each; all others share one, where only what was
    /// received and what became of that is known.
    #[must_use]
    pub fn new(max_sources: u32) -> Self {
        Self { accounts: Vec::new(), ids: HashMap::new(), max_sources }
    }

    /// A batch came: of `bytes`, at `now` by this machine's clock.
    pub fn record(&mut self, origin: &Origin, entry: &Entry, bytes: u64, now: Timestamp) -> Heard {
        let (source, new_source) = self.open(origin);
        let shared = source.0 == self.max_sources;
        let account = &mut self.accounts[source.0 as usize];
        if shared {
            account.record_received(entry, bytes, now);
            let missing = Tally::default();
            return Heard {
                source,
                duplicate: false,
                new_source,
                new_epoch: false,
                missing,
                shared_name: false,
            };
        }
        Heard { source, new_source, ..account.record(source, entry, bytes, now) }
    }

    /// The number of a source, and whether it is new.
    fn open(&mut self, origin: &Origin) -> (SourceId, bool) {
        if let Some(&source) = self.ids.get(origin) {
            return (source, false);
        }
        let source = SourceId(self.max_sources.min(self.accounts.len() as u32));
        if source.0 < self.max_sources {
            self.ids.insert(origin.clone(), source);
            self.accounts.push(Account::new(origin.clone()));
            return (source, true);
        }
        let new = self.accounts.len() as u32 == self.max_sources;
        if new {
            self.accounts.push(Account::new(Origin {
                source: "other".into(),
                device: "".into(),
                listen_port: None,
            }));
        }
        (source, new)
    }

    /// Packets of a source went into the output.
    pub fn written(&mut self, source: SourceId, packets: u64) {
        if let Some(figures) = self.figures_mut(source) {
            figures.written += packets;
        }
    }

    /// Packets of a source left the merge too late to be in order.
    pub fn late(&mut self, source: SourceId, packets: u64) {
        if let Some(figures) = self.figures_mut(source) {
            figures.late += packets;
        }
    }

    /// Packets of a source could not go into the output.
    pub fn skipped(&mut self, source: SourceId, reason: Skip, packets: u64) {
        if let Some(figures) = self.figures_mut(source) {
            figures.skipped[reason as usize] += packets;
        }
    }

    fn figures_mut(&mut self, source: SourceId) -> Option<&mut Figures> {
        self.accounts.get_mut(source.0 as usize).map(Account::figures_mut)
    }

    /// Gives up what has been missing for [`PATIENCE`]. To be called now and then, and before figures are shown; at the
    /// very end, with [`Timestamp::MAX`].
    pub fn settle(&mut self, now: Timestamp) {
        for account in &mut self.accounts {
            account.settle(now);
        }
    }

    /// Every source and its figures, in the order in which they appeared.
    pub fn sources(&self) -> impl Iterator<Item = (&Origin, Figures)> {
        self.accounts.iter().map(|account| (account.origin(), account.figures()))
    }

    /// The figures of one source.
    #[must_use]
    pub fn figures(&self, source: SourceId) -> Option<Figures> {
        self.accounts.get(source.0 as usize).map(Account::figures)
    }

    /// Where the packets of a source come from.
    #[must_use]
    pub fn origin(&self, source: SourceId) -> Option<&Origin> {
        self.accounts.get(source.0 as usize).map(Account::origin)
    }

    /// Whether there have been sources, all have ended, and nothing of them may still come.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        !self.accounts.is_empty() && self.accounts.iter().all(Account::has_ended)
    }
}

#[cfg(test)]
mod tests;
