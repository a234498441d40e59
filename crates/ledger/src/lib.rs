//! The ledger: what each source sent, what arrived, and what became of it, to the packet.
//!
//! The batches of a source are numbered and say how many packets were sent before them, so the packets in a gap are known
//! exactly. Losses at the source are cumulative per epoch (one run of the source): the highest value of an epoch counts,
//! and epochs add up. [`SourceStats`] documents the sums that hold.
//!
//! Batches may arrive out of order: those of a broken connection after those of the next one, those of a restarted
//! capture after those of its successor. The figures do not depend on the order, and counters never decrease: a missing
//! batch counts as lost only after [`LOSS_TIMEOUT`].
//!
//! The crate is pure: time is an argument, and it does no I/O.

mod account;
mod clock_offset;
mod epoch;
mod gaps;
mod stats;

use std::collections::HashMap;

use batch::Header;
use packet::{Origin, SourceId, Timestamp};

use account::Account;
pub use gaps::LOSS_TIMEOUT;
pub use stats::{Counts, DiscardReason, SourceStats, WriteOutcome};

/// The default number of sources that have an account of their own.
pub const MAX_SOURCES: u32 = 4096;

/// What the ledger found out about a batch.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The batch arrived before. Its packets must not be written again.
    pub duplicate: bool,
    /// It is the first batch of this epoch. For a source that is not new, this means that it was restarted.
    pub new_epoch: bool,
    /// What was sent between the batches received so far and this one, and has not arrived. Some of it may still arrive.
    pub missing: Counts,
    /// The batch shows that two captures share the source's name. Reported once per source.
    pub shared_name: bool,
}

/// The accounts of all sources.
#[derive(Debug)]
pub struct Ledger {
    /// Indexed by [`SourceId`]. The one at `max_sources` is shared by all sources beyond the limit.
    accounts: Vec<Account>,
    ids: HashMap<Origin, SourceId>,
    max_sources: u32,
}

impl Default for Ledger {
    /// A ledger for [`MAX_SOURCES`] sources.
    fn default() -> Self {
        Self::new(MAX_SOURCES)
    }
}

impl Ledger {
    /// Creates an empty ledger. The first `max_sources` sources get an account each. All others share one, named `other`,
    /// which only knows what was received and what became of that.
    #[must_use]
    pub fn new(max_sources: u32) -> Self {
        Self { accounts: Vec::new(), ids: HashMap::new(), max_sources }
    }

    /// Opens the account of an origin, unless it has one. Returns its number, and whether the account is new.
    ///
    /// The number stays valid as long as the ledger, so it should be looked up once per interface, not per batch.
    pub fn register(&mut self, origin: &Origin) -> (SourceId, bool) {
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
            let other = Origin { source: "other".into(), device: "".into(), listen_port: None };
            self.accounts.push(Account::new(other));
        }
        (source, new)
    }

    /// Records a batch of `bytes` that arrived from a registered source at `now`, by the collector's clock.
    pub fn record(&mut self, source: SourceId, header: &Header, bytes: u64, now: Timestamp) -> Receipt {
        let Some(account) = self.accounts.get_mut(source.0 as usize) else { return Receipt::default() };
        if source.0 == self.max_sources {
            account.record_received(header, bytes, now);
            return Receipt::default();
        }
        account.record(header, bytes, now)
    }

    /// Records what became of packets of a source that left the merge.
    pub fn record_output(&mut self, source: SourceId, outcome: &WriteOutcome) {
        if let Some(account) = self.accounts.get_mut(source.0 as usize) {
            account.record_output(outcome);
        }
    }

    /// Counts as lost what has been missing for [`LOSS_TIMEOUT`]. Call it from time to time and before reading figures;
    /// at the very end, with [`Timestamp::MAX`].
    pub fn settle(&mut self, now: Timestamp) {
        for account in &mut self.accounts {
            account.settle(now);
        }
    }

    /// All sources and their figures, in the order of their first appearance.
    pub fn sources(&self) -> impl Iterator<Item = (&Origin, SourceStats)> {
        self.accounts.iter().map(|account| (account.origin(), account.stats()))
    }

    /// The figures of one source.
    #[must_use]
    pub fn stats(&self, source: SourceId) -> Option<SourceStats> {
        self.accounts.get(source.0 as usize).map(Account::stats)
    }

    /// The origin of one source; for a source beyond the limit, that of the shared account.
    #[must_use]
    pub fn origin(&self, source: SourceId) -> Option<&Origin> {
        self.accounts.get(source.0 as usize).map(Account::origin)
    }

    /// Whether there has been a source, all have ended, and no batch is missing that may still arrive.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        !self.accounts.is_empty() && self.accounts.iter().all(Account::has_ended)
    }
}

#[cfg(test)]
mod tests;
