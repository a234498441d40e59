//! A bounded hash table whose entries expire when they have been idle for too long.
//!
//! No operation delays the capture threads for long:
//!
//! - No sweep looks for idle entries. Entries with the same time limit form a list in the order of their last packets, so
//!   only its head has to be checked ([`idle_list`]).
//! - The hash index grows by a few buckets per new entry ([`buckets`]). That is why this is not `hashbrown::HashTable`, which
//!   moves all its slots in one insertion when it grows, or when removals have left too many tombstones. With 900 000 entries
//!   of 256 bytes such an insertion took 73 ms, because it reads the hash of each entry.
//! - Storage grows by chunks that never move ([`Slab`]).
//!
//! Time is packet time, and each origin has its own clock.

mod buckets;
mod idle_list;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use foldhash::fast::RandomState;
use packet::Timestamp;

use self::buckets::Buckets;
use self::idle_list::IdleList;
use crate::OriginId;
use crate::slab::{Slab, Slot};

/// A clock that goes back by more than this, in nanoseconds, was set: the table follows it. A smaller step back means
/// packets out of order.
const CLOCK_WAS_SET: u64 = 60_000_000_000;

/// A packet moves its entry to the young end of the list only when this much time has passed since the last move,
/// because the neighbours there are cache misses. So a list is in order to within a second, which is small compared
/// with the time limits.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);

/// Short limits use this fraction of the limit in place of [`MOVE_INTERVAL`].
const MOVE_FRACTION: u32 = 64;

/// How many entries at the old end of a list are candidates for the longest idle one.
const EVICTION_CANDIDATES: usize = 8;

/// The time limit that applies to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// For an entry that may still have packets.
    Active = 0,
    /// For an entry that has ended, such as a closed connection.
    Ended = 1,
}

/// The table.
#[derive(Debug)]
pub(crate) struct ExpiringTable<K, V> {
    entries: Slab<Entry<K, V>>,
    buckets: Buckets,
    /// Hashes the key of each packet: in 1 to 2 ns, where the hasher of `std` takes 9 to 14 ns.
    hasher: RandomState,
    /// By origin.
    clocks: Vec<Clock>,
    /// Idle nanoseconds after which an entry expires, by [`Limit`].
    limits: [u64; 2],
    /// [`MOVE_INTERVAL`] in nanoseconds, by [`Limit`].
    move_after: [u64; 2],
}

/// The packet time of an origin, and its entries by [`Limit`], longest idle first.
#[derive(Clone, Debug, Default)]
struct Clock {
    now: Timestamp,
    lists: [IdleList; 2],
}

/// An entry, with its links in a bucket and in a list.
#[derive(Debug)]
pub(crate) struct Entry<K, V> {
    hash: u32,
    next_in_bucket: Option<Slot>,
    older: Option<Slot>,
    younger: Option<Slot>,
    /// The origin's packet time at the entry's last packet.
    seen: Timestamp,
    /// When the entry was moved to the young end of its list.
    moved: Timestamp,
    origin: OriginId,
    limit: Limit,
    pub(crate) key: K,
    pub(crate) value: V,
}

impl<K, V> Entry<K, V> {
    /// Where its packets were captured.
    pub(crate) const fn origin(&self) -> OriginId {
        self.origin
    }
}

impl<K: Eq + Hash, V> ExpiringTable<K, V> {
    /// A table for about `capacity` entries; with more it works too, but gets slower. `limits` is how long an entry may
    /// be idle, by [`Limit`].
    pub(crate) fn new(capacity: usize, limits: [Duration; 2]) -> Self {
        Self {
            entries: Slab::new(),
            buckets: Buckets::new(capacity),
            hasher: RandomState::default(),
            clocks: Vec::new(),
            limits: limits.map(nanos),
            move_after: limits.map(|limit| nanos((limit / MOVE_FRACTION).min(MOVE_INTERVAL))),
        }
    }

    /// The number of entries, expired ones included until they are removed.
    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    fn hash(&self, key: &K) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn clock(&mut self, origin: OriginId) -> &mut Clock {
        if origin.index() >= self.clocks.len() {
            self.clocks.resize(origin.index() + 1, Clock::default());
        }
        &mut self.clocks[origin.index()]
    }

    /// The packet time of `origin`.
    pub(crate) fn now(&self, origin: OriginId) -> Timestamp {
        self.clocks.get(origin.index()).map_or(Timestamp::ZERO, |clock| clock.now)
    }

    /// Advances the packet time of `origin` to `time`, unless `time` is a little older.
    #[inline]
    pub(crate) fn tick(&mut self, origin: OriginId, time: Timestamp) {
        let clock = self.clock(origin);
        if time > clock.now || time.as_nanos().saturating_add(CLOCK_WAS_SET) < clock.now.as_nanos() {
            clock.now = time;
        }
    }

    /// The entry of `key`, which may have expired.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Option<Slot> {
        let mut next = self.buckets.first(self.hash(key));
        while let Some(slot) = next {
            let entry = self.entries.get(slot);
            if entry.key == *key {
                return Some(slot);
            }
            next = entry.next_in_bucket;
        }
        None
    }

    /// Adds an entry whose first packet is at the origin's current time. `key` must not be in the table.
    pub(crate) fn insert(&mut self, origin: OriginId, key: K, value: V) -> Slot {
        let hash = self.hash(&key);
        let seen = self.clock(origin).now;
        self.buckets.grow(&mut self.entries);
        let slot = self.entries.insert(Entry {
            hash,
            next_in_bucket: None,
            older: None,
            younger: None,
            seen,
            moved: seen,
            origin,
            limit: Limit::Active,
            key,
            value,
        });
        self.buckets.link(&mut self.entries, slot);
        self.link(slot);
        slot
    }

    /// Notes a packet of the entry at the origin's current time, and the limit that applies from now on.
    #[inline]
    pub(crate) fn touch(&mut self, slot: Slot, limit: Limit) {
        let entry = self.entries.get(slot);
        let now = self.now(entry.origin);
        let stays = entry.limit == limit
            && idle_nanos(now, entry.moved) <= self.move_after[limit as usize]
            && entry.moved <= now;
        if stays {
            self.entries.get_mut(slot).seen = now;
            return;
        }
        self.unlink(slot);
        let entry = self.entries.get_mut(slot);
        (entry.seen, entry.moved, entry.limit) = (now, now, limit);
        self.link(slot);
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, slot: Slot) -> V
    where
        V: Copy,
    {
        self.unlink(slot);
        self.buckets.unlink(&mut self.entries, slot);
        let value = self.entries.get(slot).value;
        self.entries.free(slot);
        value
    }

    /// Whether an entry has been idle for longer than its limit.
    #[inline]
    pub(crate) fn is_expired(&self, entry: &Entry<K, V>) -> bool {
        idle_nanos(self.now(entry.origin), entry.seen) > self.limits[entry.limit as usize]
    }

    /// An expired entry of `origin`. Checks at most two entries.
    #[inline]
    pub(crate) fn expired(&mut self, origin: OriginId) -> Option<Slot> {
        let clock = self.clocks.get(origin.index())?;
        let (now, lists) = (clock.now, clock.lists);
        for slot in lists.into_iter().filter_map(|list| list.oldest()) {
            let entry = self.entries.get(slot);
            if self.is_expired(entry) {
                return Some(slot);
            }
            if entry.moved > now {
                // The clock was set back. Left at the head, this entry would keep those behind it from expiring.
                let limit = entry.limit;
                self.touch(slot, limit);
            }
        }
        None
    }

    /// Any entry of `origin`. Without entries, the origin's clock is reset.
    pub(crate) fn any_of(&mut self, origin: OriginId) -> Option<Slot> {
        let clock = self.clocks.get_mut(origin.index())?;
        let any = clock.lists.into_iter().find_map(|list| list.oldest());
        if any.is_none() {
            *clock = Clock::default();
        }
        any
    }

    /// The entry that has been idle for longest by the clock of its own origin. Never `except`.
    pub(crate) fn longest_idle(&self, except: Option<Slot>) -> Option<Slot> {
        let lists = self.clocks.iter().flat_map(|clock| clock.lists.iter().map(|list| (clock.now, list)));
        let oldest = lists.flat_map(|(now, list)| {
            list.iter(&self.entries).take(EVICTION_CANDIDATES).map(move |slot| (now, slot))
        });
        let others = oldest.filter(|(_, slot)| Some(*slot) != except);
        let idle = others.map(|(now, slot)| (idle_nanos(now, self.entries.get(slot).seen), slot));
        idle.max_by_key(|(idle, _)| *idle).map(|(_, slot)| slot)
    }

    /// The entry of a slot that is in use.
    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> &Entry<K, V> {
        self.entries.get(slot)
    }

    /// The entry of a slot that is in use.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut Entry<K, V> {
        self.entries.get_mut(slot)
    }

    /// The entry of a slot that may have been freed.
    pub(crate) fn get_if_held(&self, slot: Slot) -> Option<&Entry<K, V>> {
        self.entries.holds(slot).then(|| self.entries.get(slot))
    }

    /// The number of chunks that [`ExpiringTable::chunk`] can read.
    pub(crate) const fn chunks(&self) -> usize {
        self.entries.chunks()
    }

    /// The entries of a chunk that have not expired: about a thousand.
    pub(crate) fn chunk(&self, number: usize) -> impl Iterator<Item = (Slot, &Entry<K, V>)> {
        self.entries.chunk(number).filter(|(_, entry)| !self.is_expired(entry))
    }

    /// Puts an entry at the young end of its list.
    fn link(&mut self, slot: Slot) {
        let entry = self.entries.get(slot);
        let (origin, limit) = (entry.origin, entry.limit);
        let mut list = self.clock(origin).lists[limit as usize];
        list.push(&mut self.entries, slot);
        self.clock(origin).lists[limit as usize] = list;
    }

    /// Takes an entry out of its list.
    fn unlink(&mut self, slot: Slot) {
        let entry = self.entries.get(slot);
        let (origin, limit) = (entry.origin, entry.limit);
        let mut list = self.clock(origin).lists[limit as usize];
        list.remove(&mut self.entries, slot);
        self.clock(origin).lists[limit as usize] = list;
    }
}

/// Nanoseconds from `seen` until `now`; 0 if the clock was set back in between.
#[inline]
const fn idle_nanos(now: Timestamp, seen: Timestamp) -> u64 {
    now.as_nanos().saturating_sub(seen.as_nanos())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
