//! The sources that the collector knows: how many there may be, and which are forgotten.
//!
//! A source is known from its first batch until it has ended, or was silent, for [`FORGET_AFTER`]. There are at most
//! `MAX_SOURCES`. When there are as many, those that deliver nothing make room for new ones; those that are alive never do.
//! What one address can announce is limited, so that it cannot take all the places.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use merge::MonotonicTime;
use observe::OriginId;
use packet::SourceId;
use relay::Peer;

use super::rejections::Rejection;

/// After this time without a batch a source is forgotten: longer than most networks fail, and than Prometheus needs to
/// notice that a counter stopped.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// After this time without a batch, a source that has not ended makes room for a new one if there are `MAX_SOURCES`.
const IDLE: Duration = Duration::from_secs(60);

/// The same for a source that has never delivered a packet. Captures send heartbeats every second.
const IDLE_WITHOUT_PACKETS: Duration = Duration::from_secs(10);

/// How often sources are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often a full table is searched in vain.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// An address may have this part of all sources, and announce as many in an hour...
const SHARE: u32 = 2;

/// ... but at least this many: a small `MAX_SOURCES` is for a few hosts that are known.
const MIN_SHARE: u32 = 64;

/// The time in which an address that has used up its share gets it back.
const REFILL: Duration = Duration::from_secs(3600);

/// How many descriptions of a source are taken over at once, and how long it takes until there is another one. A capture
/// on `any` sends a new description whenever an interface appears, at most once a second.
const DESCRIPTIONS: u32 = 30;

/// See [`DESCRIPTIONS`].
const DESCRIPTION_INTERVAL: Duration = Duration::from_secs(1);

/// The most addresses to tell apart. Those beyond it share what one address may announce.
const MAX_PEERS: usize = 16_384;

/// The known sources.
#[derive(Debug)]
pub(super) struct Sources {
    max: u32,
    /// Indexed by [`SourceId`].
    known: Vec<Option<Known>>,
    peers: HashMap<Peer, Account>,
    next_check: MonotonicTime,
    next_search: MonotonicTime,
}

/// A known source.
#[derive(Clone, Copy, Debug)]
struct Known {
    observed: OriginId,
    /// In whose account it is.
    holder: Peer,
    last_active: MonotonicTime,
    has_packets: bool,
    ended: bool,
    /// Descriptions that are still taken over, at a time.
    descriptions: u32,
    described: MonotonicTime,
}

/// What an address has announced.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// Sources that are known.
    sources: u32,
    /// What it may still announce, as the time in which it would get that much back.
    credit: Duration,
    since: MonotonicTime,
}

impl Sources {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            known: Vec::new(),
            peers: HashMap::new(),
            next_check: MonotonicTime::ZERO,
            next_search: MonotonicTime::ZERO,
        }
    }

    fn share(&self) -> u32 {
        (self.max / SHARE).max(MIN_SHARE).min(self.max)
    }

    /// Takes a source or an interface from what a peer may announce.
    pub(super) fn take_credit(
        &mut self,
        peer: Peer,
        new_source: bool,
        now: MonotonicTime,
    ) -> Result<(), Rejection> {
        let share = self.share();
        let account = self.account(peer, now);
        let refilled = account.credit + now.since(account.since);
        let cost = REFILL / share;
        (account.credit, account.since) = (refilled.min(REFILL), now);
        if account.credit < cost || (new_source && account.sources >= share) {
            return Err(Rejection::MaxSourcesPerAddress);
        }
        account.credit -= cost;
        Ok(())
    }

    /// Gives back what [`take_credit`](Self::take_credit) has taken for a source.
    pub(super) fn return_credit(&mut self, peer: Peer) {
        let cost = REFILL / self.share();
        let holder = self.holder(peer);
        if let Some(account) = self.peers.get_mut(&holder) {
            account.credit = (account.credit + cost).min(REFILL);
        }
    }

    fn account(&mut self, peer: Peer, now: MonotonicTime) -> &mut Account {
        let new = Account { sources: 0, credit: REFILL, since: now };
        let holder = self.holder(peer);
        self.peers.entry(holder).or_insert(new)
    }

    /// Whose account a peer uses.
    fn holder(&self, peer: Peer) -> Peer {
        let has_room = self.peers.len() < MAX_PEERS || self.peers.contains_key(&peer);
        if has_room { peer } else { Peer::Other }
    }

    /// Adds a source that `peer` has announced.
    pub(super) fn add(&mut self, source: SourceId, peer: Peer, observed: OriginId, now: MonotonicTime) {
        let index = source.0 as usize;
        if index >= self.known.len() {
            self.known.resize(index + 1, None);
        }
        self.account(peer, now).sources += 1;
        let holder = self.holder(peer);
        self.known[index] = Some(Known {
            observed,
            holder,
            last_active: now,
            has_packets: false,
            ended: false,
            descriptions: DESCRIPTIONS,
            described: now,
        });
    }

    /// Whether a new description of a source is taken over. If not, returns the source's number at the observers.
    pub(super) fn take_description(&mut self, source: SourceId, now: MonotonicTime) -> Result<(), OriginId> {
        let Some(Some(known)) = self.known.get_mut(source.0 as usize) else { return Ok(()) };
        let refilled = now.since(known.described).as_nanos() / DESCRIPTION_INTERVAL.as_nanos();
        if refilled > 0 {
            known.descriptions = DESCRIPTIONS.min(known.descriptions.saturating_add(refilled as u32));
            known.described = now;
        }
        known.descriptions = known.descriptions.checked_sub(1).ok_or(known.observed)?;
        Ok(())
    }

    /// Notes a batch of a source.
    pub(super) fn note(&mut self, source: SourceId, has_packets: bool, ended: bool, now: MonotonicTime) {
        if let Some(known) = self.known.get_mut(source.0 as usize).and_then(Option::as_mut) {
            (known.last_active, known.ended) = (now, ended);
            known.has_packets |= has_packets;
        }
    }

    /// Removes a source. Returns its number at the observers.
    pub(super) fn remove(&mut self, source: SourceId) -> Option<OriginId> {
        let known = self.known.get_mut(source.0 as usize)?.take()?;
        if let Some(account) = self.peers.get_mut(&known.holder) {
            account.sources = account.sources.saturating_sub(1);
        }
        Some(known.observed)
    }

    /// The sources to forget, from time to time.
    pub(super) fn forgettable(&mut self, now: MonotonicTime) -> Vec<SourceId> {
        if now < self.next_check {
            return Vec::new();
        }
        self.next_check = now + CHECK_INTERVAL;
        let full = |account: &Account| account.credit + now.since(account.since) >= REFILL;
        self.peers.retain(|_, account| account.sources > 0 || !full(account));
        let idle = self.all().filter(|(_, known)| now.since(known.last_active) >= FORGET_AFTER);
        idle.map(|(source, _)| source).collect()
    }

    /// The sources that make room for new ones, because there are `MAX_SOURCES`: some of those that deliver nothing. First
    /// those that never have; of the same kind, those of the address that has announced most.
    pub(super) fn dispensable(&mut self, now: MonotonicTime) -> Vec<SourceId> {
        if now < self.next_search {
            return Vec::new();
        }
        let announced = |known: &Known| self.peers.get(&known.holder).map_or(0, |account| account.sources);
        let mut found: Vec<_> = self
            .all()
            .filter_map(|(source, known)| {
                let silent = now.since(known.last_active);
                let idle = if known.has_packets { IDLE } else { IDLE_WITHOUT_PACKETS };
                let order = (known.has_packets, !known.ended, Reverse(announced(known)), Reverse(silent));
                (known.ended || silent >= idle).then_some((order, source))
            })
            .collect();
        if found.is_empty() {
            self.next_search = now + SEARCH_INTERVAL;
        }
        found.sort_unstable();
        // Several at once, so that not every new source costs a search.
        found.truncate((self.max as usize / 16).max(1));
        found.into_iter().map(|(_, source)| source).collect()
    }

    fn all(&self) -> impl Iterator<Item = (SourceId, &Known)> {
        (0..).map(SourceId).zip(&self.known).filter_map(|(source, known)| Some((source, known.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> MonotonicTime {
        MonotonicTime::ZERO + Duration::from_secs(secs)
    }

    fn peer(number: u8) -> Peer {
        Peer::V4([192, 0, 2, number].into())
    }

    /// Adds sources of a peer, with these numbers.
    fn add(sources: &mut Sources, by: u8, numbers: std::ops::Range<u32>, at: u64) -> usize {
        let mut added = 0;
        for number in numbers {
            if sources.take_credit(peer(by), true, secs(at)).is_ok() {
                sources.add(SourceId(number), peer(by), OriginId(number), secs(at));
                added += 1;
            }
        }
        added
    }

    #[test]
    fn an_address_has_a_share_of_the_sources() {
        let mut sources = Sources::new(1000);
        assert_eq!(add(&mut sources, 1, 0..900, 0), 500);
        assert_eq!(add(&mut sources, 2, 900..910, 0), 10);
        // An hour later it may announce as many again, but not have more than its share.
        assert_eq!(add(&mut sources, 1, 500..900, 3600), 0);
        assert!(sources.take_credit(peer(1), false, secs(3600)).is_ok());
        for source in 0..300 {
            assert_eq!(sources.remove(SourceId(source)), Some(OriginId(source)));
        }
        assert_eq!(add(&mut sources, 1, 0..900, 3600), 300);
        assert_eq!(Sources::new(3).share(), 3);
        assert_eq!(Sources::new(100).share(), 64);
    }

    #[test]
    fn announcements_are_limited_over_time() {
        let mut sources = Sources::new(1000);
        let mut announced = 0;
        for number in 0..2000 {
            if sources.take_credit(peer(1), true, secs(number)).is_ok() {
                sources.add(SourceId(0), peer(1), OriginId(0), secs(number));
                sources.remove(SourceId(0));
                announced += 1;
            }
        }
        assert_eq!(announced, 500 + 500 * 2000 / 3600);
    }

    #[test]
    fn sources_are_forgotten_an_hour_after_their_last_batch() {
        let mut sources = Sources::new(1000);
        add(&mut sources, 1, 0..3, 0);
        sources.note(SourceId(1), false, false, secs(100));
        sources.note(SourceId(2), false, true, secs(200));
        assert_eq!(sources.forgettable(secs(3599)), []);
        assert_eq!(sources.forgettable(secs(3600)), [], "checked a second ago");
        assert_eq!(sources.forgettable(secs(3609)), [SourceId(0)]);
        sources.remove(SourceId(0));
        assert_eq!(sources.forgettable(secs(3800)), [SourceId(1), SourceId(2)]);
        sources.remove(SourceId(1));
        sources.remove(SourceId(2));
        sources.forgettable(secs(9000));
        assert_eq!((sources.peers.len(), sources.all().count()), (0, 0));
    }

    #[test]
    fn descriptions_of_a_source_are_limited() {
        let mut sources = Sources::new(1000);
        add(&mut sources, 1, 0..1, 0);
        let mut taken =
            |at| (0..100).filter(|_| sources.take_description(SourceId(0), secs(at)).is_ok()).count();
        assert_eq!([taken(0), taken(1), taken(4), taken(999)], [30, 1, 3, 30]);
        assert_eq!(sources.take_description(SourceId(0), secs(999)), Err(OriginId(0)));
    }

    #[test]
    fn sources_that_are_alive_never_make_room() {
        let mut sources = Sources::new(64);
        add(&mut sources, 1, 0..2, 0);
        add(&mut sources, 2, 2..6, 0);
        for source in 0..6 {
            sources.note(SourceId(source), source != 5, source == 4 || source == 0, secs(70));
        }
        sources.note(SourceId(2), true, false, secs(20));
        // It never delivered a packet; it has ended, of the address that has most; of another; it is silent.
        let order = [5, 4, 0, 2].map(SourceId);
        assert_eq!(sources.dispensable(secs(80)), order);
        sources.max = 32;
        assert_eq!(sources.dispensable(secs(80)), order[..2]);
        for source in 0..6 {
            sources.note(SourceId(source), true, false, secs(80));
        }
        assert_eq!(sources.dispensable(secs(139)), []);
        assert_eq!(sources.dispensable(secs(139)), []);
        assert_eq!(sources.dispensable(secs(140)).len(), 2);
    }
}
