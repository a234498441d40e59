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
//! Headers come from anybody who reaches the collector. What an account takes is bounded, and no header makes its counters
//! useless: those of a batch that no capture could have sent are not recorded ([`Refusal`]).
//!
//! The crate is pure: time is an argument, and it does no I/O.

mod account;
mod clock_offset;
mod epoch;
mod gaps;
mod plausibility;
mod stats;

use std::collections::HashMap;

use batch::Header;
use packet::{Origin, SourceId, Timestamp};

use account::Account;
pub use gaps::LOSS_TIMEOUT;
pub use stats::{Counts, DiscardReason, SourceStats, WriteOutcome};

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
    /// The source has ended with this batch: none of its runs goes on.
    pub ended: bool,
}

/// Why a batch is not recorded. Its figures would spoil those of the source that it claims to be from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its source is not registered.
    Unregistered,
    /// Its counters are ahead of those of the batch before by more than any capture achieves.
    Implausible,
    /// It begins a run of a source that has begun too many in the last minute.
    TooManyRuns,
}

/// There is no room for another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerFull;

/// The accounts of all sources.
#[derive(Debug)]
pub struct Ledger {
    /// Indexed by [`SourceId`].
    accounts: Vec<Option<Account>>,
    /// The numbers of forgotten sources, to be used again.
    free: Vec<SourceId>,
    ids: HashMap<Origin, SourceId>,
    max_sources: u32,
    /// Whether there has been a source.
    begun: bool,
}

impl Ledger {
    /// Creates an empty ledger for at most `max_sources` sources at a time.
    #[must_use]
    pub fn new(max_sources: u32) -> Self {
        Self { accounts: Vec::new(), free: Vec::new(), ids: HashMap::new(), max_sources, begun: false }
    }

    /// The number of an origin that has an account.
    #[must_use]
    pub fn find(&self, origin: &Origin) -> Option<SourceId> {
        self.ids.get(origin).copied()
    }

    /// Whether there is no room for another account.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ids.len() >= self.max_sources as usize
    }

    /// Opens the account of an origin, unless it has one. Returns its number, and whether the account is new.
    ///
    /// The number is valid until the source is forgotten, so it should be looked up once per interface, not per batch.
    ///
    /// # Errors
    /// There are `max_sources` accounts already.
    pub fn register(&mut self, origin: &Origin) -> Result<(SourceId, bool), LedgerFull> {
        if let Some(&source) = self.ids.get(origin) {
            return Ok((source, false));
        }
        if self.is_full() {
            return Err(LedgerFull);
        }
        let source = self.free.pop().unwrap_or_else(|| {
            self.accounts.push(None);
            SourceId(self.accounts.len() as u32 - 1)
        });
        if let Some(account) = self.accounts.get_mut(source.0 as usize) {
            *account = Some(Account::new(origin.clone()));
        }
        self.ids.insert(origin.clone(), source);
        self.begun = true;
        Ok((source, true))
    }

    /// Closes the account of a source. Its number may be used again.
    pub fn forget(&mut self, source: SourceId) {
        if let Some(account) = self.accounts.get_mut(source.0 as usize).and_then(Option::take) {
            self.ids.remove(account.origin());
            self.free.push(source);
        }
    }

    /// How many sources have an account.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no account.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Records a batch of `bytes` that arrived from a registered source at `now`, by the collector's clock.
    ///
    /// # Errors
    /// The batch must be ignored: its counters are not those of a capture.
    pub fn record(
        &mut self,
        source: SourceId,
        header: &Header,
        bytes: u64,
        now: Timestamp,
    ) -> Result<Receipt, Refusal> {
        self.account_mut(source).ok_or(Refusal::Unregistered)?.record(header, bytes, now)
    }

    /// Records what became of packets of a source that left the merge.
    pub fn record_output(&mut self, source: SourceId, outcome: &WriteOutcome) {
        if let Some(account) = self.account_mut(source) {
            account.record_output(outcome);
        }
    }

    /// Records packets of a source that are ahead of the collector's clock.
    pub fn record_ahead(&mut self, source: SourceId, packets: u64) {
        if let Some(account) = self.account_mut(source) {
            account.record_ahead(packets);
        }
    }

    /// Counts as lost what has been missing for [`LOSS_TIMEOUT`]. Call it from time to time and before reading figures;
    /// at the very end, with [`Timestamp::MAX`].
    pub fn settle(&mut self, now: Timestamp) {
        for account in self.accounts.iter_mut().flatten() {
            account.settle(now);
        }
    }

    /// All sources and their figures, in the order of their numbers.
    pub fn sources(&self) -> impl Iterator<Item = (&Origin, SourceStats)> {
        self.accounts.iter().flatten().map(|account| (account.origin(), account.stats()))
    }

    /// The figures of one source.
    #[must_use]
    pub fn stats(&self, source: SourceId) -> Option<SourceStats> {
        self.account(source).map(Account::stats)
    }

    /// The origin of one source.
    #[must_use]
    pub fn origin(&self, source: SourceId) -> Option<&Origin> {
        self.account(source).map(Account::origin)
    }

    /// Whether there has been a source, all have ended, and no batch is missing that may still arrive.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        self.begun && self.accounts.iter().flatten().all(Account::has_ended)
    }

    fn account(&self, source: SourceId) -> Option<&Account> {
        self.accounts.get(source.0 as usize)?.as_ref()
    }

    fn account_mut(&mut self, source: SourceId) -> Option<&mut Account> {
        self.accounts.get_mut(source.0 as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests;
