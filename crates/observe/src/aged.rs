//! A table of bounded size whose entries are forgotten when they have been silent for long enough.
//!
//! Three things could stop the packets, and none of them is here. There is no sweep: entries of the same age limit form a
//! list in the order of their last packets, so that only its head needs a look. There is no hash table that grows at once,
//! nor the rehash that gets rid of tombstones: with an entry come a few buckets, which take what is theirs from other ones
//! (linear hashing; Litwin, VLDB 1980), and an entry names the next one of its bucket. And storage grows by chunks.
//!
//! Time is that of the packets, and a clock of its own for each origin.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use foldhash::fast::RandomState;
use packet::Timestamp;

use crate::OriginId;
use crate::slab::{Slab, Slot};

/// A clock that goes back by more than this was set, or was wrong before: it is believed. Less than that is packets out of
/// order. In nanoseconds.
const CLOCK_WAS_SET: u64 = 60_000_000_000;

/// An entry moves to the young end of its list when it has been silent for this long since it moved there last, and not with
/// each packet: its neighbours there are anywhere in memory. So lists are in order to within a second; age limits are much
/// longer. Where they are not, it is a part of them, by [`PARTS`].
const MOVES_AFTER: Duration = Duration::from_secs(1);

/// See [`MOVES_AFTER`].
const PARTS: u32 = 64;

/// How many of the oldest entries of a list are looked at for the one that was silent for longest.
const LOOKED_AT: usize = 8;

/// Buckets of an empty table: a power of two.
const FEWEST_BUCKETS: u32 = 1 << 10;

/// Buckets for each entry. Four bytes are cheap beside what an entry takes, and beside the wait for another one's memory.
const BUCKETS_PER_ENTRY: usize = 4;

/// Which of the table's age limits rules an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// The limit of what goes on.
    Living = 0,
    /// The limit of what has come to its end.
    Ended = 1,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Aged<K, V> {
    entries: Slab<Entry<K, V>>,
    /// The first entry of each bucket. There are a few for each of the entries that there were at once, so that few entries do
    /// with few cache lines. The room for all that there may ever be is reserved, which is an address range and no memory.
    buckets: Vec<Option<Slot>>,
    /// The power of two above the number of buckets, less one.
    mask: u32,
    hasher: RandomState,
    /// By origin.
    clocks: Vec<Clock>,
    /// By [`Age`], in nanoseconds.
    limits: [u64; 2],
    /// How far a list may be out of order, by [`Age`], in nanoseconds.
    slack: [u64; 2],
}

/// What a packet time has come to, and who was silent since when, oldest first.
#[derive(Clone, Debug, Default)]
struct Clock {
    now: Timestamp,
    lists: [List; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct List {
    oldest: Option<Slot>,
    youngest: Option<Slot>,
}

/// An entry, with its places in a bucket and in a list.
#[derive(Debug)]
pub(crate) struct Entry<K, V> {
    hash: u32,
    next_in_bucket: Option<Slot>,
    older: Option<Slot>,
    younger: Option<Slot>,
    /// When its last packet came, by the clock of its origin.
    seen: Timestamp,
    /// When it moved to the young end of its list.
    moved: Timestamp,
    origin: OriginId,
    age: Age,
    /// What it is found by.
    pub(crate) key: K,
    /// What is known of it.
    pub(crate) value: V,
}

impl<K, V> Entry<K, V> {
    /// Where its packets were seen.
    pub(crate) const fn origin(&self) -> OriginId {
        self.origin
    }
}

impl<K: Eq + Hash, V> Aged<K, V> {
    /// A table of at most about `capacity` entries: more than that work too, only slower. `limits` by [`Age`].
    pub(crate) fn new(capacity: usize, limits: [Duration; 2]) -> Self {
        let most = capacity.saturating_mul(BUCKETS_PER_ENTRY).clamp(FEWEST_BUCKETS as usize, 1 << 30);
        let mut buckets = Vec::with_capacity(most);
        buckets.resize(FEWEST_BUCKETS as usize, None);
        Self {
            entries: Slab::new(),
            buckets,
            mask: 2 * FEWEST_BUCKETS - 1,
            hasher: RandomState::default(),
            clocks: Vec::new(),
            limits: limits.map(nanos),
            slack: limits.map(|limit| nanos((limit / PARTS).min(MOVES_AFTER))),
        }
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    fn hash(&self, key: &K) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    #[inline]
    fn bucket(&self, hash: u32) -> usize {
        let bucket = (hash & self.mask) as usize;
        // A bucket that is not there yet is still part of the one half as far.
        if bucket < self.buckets.len() { bucket } else { (hash & (self.mask >> 1)) as usize }
    }

    /// Adds a bucket, which takes its entries from the one that stood in for it.
    fn add_bucket(&mut self) {
        let added = self.buckets.len() as u32;
        let mut next = self.buckets[(added & (self.mask >> 1)) as usize].take();
        self.buckets.push(None);
        if added == self.mask {
            self.mask = 2 * self.mask + 1;
        }
        while let Some(slot) = next {
            let bucket = self.bucket(self.entries.get(slot).hash);
            let first = self.buckets[bucket].replace(slot);
            next = std::mem::replace(&mut self.entries.get_mut(slot).next_in_bucket, first);
        }
    }

    fn clock(&mut self, origin: OriginId) -> &mut Clock {
        if origin.index() >= self.clocks.len() {
            self.clocks.resize(origin.index() + 1, Clock::default());
        }
        &mut self.clocks[origin.index()]
    }

    /// What the packets' time of `origin` has come to.
    pub(crate) fn now(&self, origin: OriginId) -> Timestamp {
        self.clocks.get(origin.index()).map_or(Timestamp::ZERO, |clock| clock.now)
    }

    /// The packets' time of `origin` has come to `time`.
    #[inline]
    pub(crate) fn tick(&mut self, origin: OriginId, time: Timestamp) {
        let clock = self.clock(origin);
        if time > clock.now || time.as_nanos().saturating_add(CLOCK_WAS_SET) < clock.now.as_nanos() {
            clock.now = time;
        }
    }

    /// The entry of `key`.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Option<Slot> {
        let mut next = self.buckets[self.bucket(self.hash(key))];
        while let Some(slot) = next {
            let entry = self.entries.get(slot);
            if entry.key == *key {
                return Some(slot);
            }
            next = entry.next_in_bucket;
        }
        None
    }

    /// Adds an entry, which must not be there yet, as one whose packet comes just now.
    pub(crate) fn insert(&mut self, origin: OriginId, key: K, value: V) -> Slot {
        let hash = self.hash(&key);
        let wanted = (self.entries.len() + 1).saturating_mul(BUCKETS_PER_ENTRY).min(self.buckets.capacity());
        while self.buckets.len() < wanted {
            self.add_bucket();
        }
        let bucket = self.bucket(hash);
        let seen = self.clock(origin).now;
        let slot = self.entries.insert(Entry {
            hash,
            next_in_bucket: self.buckets[bucket],
            older: None,
            younger: None,
            seen,
            moved: seen,
            origin,
            age: Age::Living,
            key,
            value,
        });
        self.buckets[bucket] = Some(slot);
        self.link(slot);
        slot
    }

    /// The entry has a packet just now, and from now on that age limit.
    #[inline]
    pub(crate) fn touch(&mut self, slot: Slot, age: Age) {
        let entry = self.entries.get(slot);
        let now = self.now(entry.origin);
        let stays =
            entry.age == age && silence(now, entry.moved) <= self.slack[age as usize] && entry.moved <= now;
        if stays {
            self.entries.get_mut(slot).seen = now;
            return;
        }
        self.unlink(slot);
        let entry = self.entries.get_mut(slot);
        (entry.seen, entry.moved, entry.age) = (now, now, age);
        self.link(slot);
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, slot: Slot) -> V
    where
        V: Copy,
    {
        self.unlink(slot);
        let entry = self.entries.get(slot);
        let (bucket, next, value) = (self.bucket(entry.hash), entry.next_in_bucket, entry.value);
        let mut at = self.buckets[bucket];
        if at == Some(slot) {
            self.buckets[bucket] = next;
        } else {
            while let Some(before) = at {
                let entry = self.entries.get_mut(before);
                at = entry.next_in_bucket;
                if at == Some(slot) {
                    entry.next_in_bucket = next;
                    break;
                }
            }
        }
        self.entries.free(slot);
        value
    }

    /// Whether an entry has been silent for longer than it may.
    #[inline]
    pub(crate) fn is_expired(&self, entry: &Entry<K, V>) -> bool {
        silence(self.now(entry.origin), entry.seen) > self.limits[entry.age as usize]
    }

    /// An entry of `origin` that has been silent for longer than it may. Looks at two entries, whatever there is.
    #[inline]
    pub(crate) fn expired(&mut self, origin: OriginId) -> Option<Slot> {
        let clock = self.clocks.get(origin.index())?;
        let (now, lists) = (clock.now, clock.lists);
        for slot in lists.into_iter().filter_map(|list| list.oldest) {
            let entry = self.entries.get(slot);
            if self.is_expired(entry) {
                return Some(slot);
            }
            if entry.moved > now {
                // The clock was set back, and all that lies behind this entry would wait for it.
                let age = entry.age;
                self.touch(slot, age);
            }
        }
        None
    }

    /// The entry that has been silent for longest, each by its origin's clock. Never `youngest`, which has a packet just now.
    pub(crate) fn silent_longest(&self, youngest: Option<Slot>) -> Option<Slot> {
        let lists = self.clocks.iter().flat_map(|clock| clock.lists.iter().map(|list| (clock.now, list)));
        let oldest = lists.flat_map(|(now, list)| self.oldest_of(list).map(move |slot| (now, slot)));
        let others = oldest.filter(|(_, slot)| Some(*slot) != youngest);
        let silences = others.map(|(now, slot)| (silence(now, self.entries.get(slot).seen), slot));
        silences.max_by_key(|(silence, _)| *silence).map(|(_, slot)| slot)
    }

    /// The first few entries of a list.
    fn oldest_of(&self, list: &List) -> impl Iterator<Item = Slot> {
        std::iter::successors(list.oldest, |&slot| self.entries.get(slot).younger).take(LOOKED_AT)
    }

    /// An entry by its slot.
    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> &Entry<K, V> {
        self.entries.get(slot)
    }

    /// An entry by its slot.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut Entry<K, V> {
        self.entries.get_mut(slot)
    }

    /// The entry that `slot` holds, if it still holds one.
    pub(crate) fn get_if_held(&self, slot: Slot) -> Option<&Entry<K, V>> {
        self.entries.holds(slot).then(|| self.entries.get(slot))
    }

    /// How many chunks there are.
    pub(crate) const fn chunks(&self) -> usize {
        self.entries.chunks()
    }

    /// The entries of a chunk that are not expired: about a thousand.
    pub(crate) fn chunk(&self, number: usize) -> impl Iterator<Item = (Slot, &Entry<K, V>)> {
        self.entries.chunk(number).filter(|(_, entry)| !self.is_expired(entry))
    }

    /// Puts an entry at the young end of its list.
    fn link(&mut self, slot: Slot) {
        let entry = self.entries.get(slot);
        let (origin, age) = (entry.origin, entry.age);
        let list = &mut self.clock(origin).lists[age as usize];
        let before = list.youngest.replace(slot);
        if before.is_none() {
            list.oldest = Some(slot);
        }
        if let Some(before) = before {
            self.entries.get_mut(before).younger = Some(slot);
        }
        let entry = self.entries.get_mut(slot);
        entry.older = before;
        entry.younger = None;
    }

    /// Takes an entry out of its list.
    fn unlink(&mut self, slot: Slot) {
        let entry = self.entries.get(slot);
        let (origin, age, older, younger) = (entry.origin, entry.age, entry.older, entry.younger);
        if let Some(older) = older {
            self.entries.get_mut(older).younger = younger;
        }
        if let Some(younger) = younger {
            self.entries.get_mut(younger).older = older;
        }
        let list = &mut self.clock(origin).lists[age as usize];
        if older.is_none() {
            list.oldest = younger;
        }
        if younger.is_none() {
            list.youngest = older;
        }
    }
}

/// Nanoseconds from `seen` until `now`; none where the clock was set back meanwhile.
#[inline]
const fn silence(now: Timestamp, seen: Timestamp) -> u64 {
    now.as_nanos().saturating_sub(seen.as_nanos())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const HERE: OriginId = OriginId(0);
    const THERE: OriginId = OriginId(3);

    fn seconds(secs: u32) -> Timestamp {
        Timestamp::from_parts(1_000 + secs, 0)
    }

    fn table() -> Aged<u32, u32> {
        Aged::new(16, [Duration::from_secs(10), Duration::from_secs(2)])
    }

    fn find(table: &Aged<u32, u32>, key: u32) -> Option<Slot> {
        table.find(&key)
    }

    fn insert(table: &mut Aged<u32, u32>, origin: OriginId, key: u32) -> Slot {
        table.insert(origin, key, key)
    }

    /// Takes out all that expired, and says what that was.
    fn expire(table: &mut Aged<u32, u32>, origin: OriginId) -> Vec<u32> {
        std::iter::from_fn(|| table.expired(origin).map(|slot| table.remove(slot))).collect()
    }

    #[test]
    fn who_is_silent_is_forgotten_by_the_clock_of_its_origin() {
        let mut table = table();
        for (origin, key) in [(HERE, 1), (HERE, 2), (THERE, 3)] {
            table.tick(origin, seconds(key));
            insert(&mut table, origin, key);
        }
        let ended = find(&table, 2).unwrap();
        table.touch(ended, Age::Ended);
        table.tick(HERE, seconds(4));
        assert_eq!(expire(&mut table, HERE), []);
        table.tick(HERE, seconds(5));
        assert_eq!(expire(&mut table, HERE), [2]);
        table.tick(HERE, seconds(100));
        assert_eq!((expire(&mut table, HERE), expire(&mut table, THERE)), (vec![1], vec![]));
        assert_eq!((find(&table, 1), find(&table, 3).is_some(), table.len()), (None, true, 1));
    }

    #[test]
    fn who_was_silent_longest_makes_room() {
        let mut table = table();
        for (origin, key, at) in [(HERE, 1, 3), (HERE, 2, 5), (THERE, 3, 50)] {
            table.tick(origin, seconds(at));
            insert(&mut table, origin, key);
        }
        table.tick(HERE, seconds(8));
        let first = find(&table, 1).unwrap();
        table.touch(first, Age::Living);
        table.tick(THERE, seconds(52));
        assert_eq!(table.silent_longest(None), find(&table, 2));
        table.tick(THERE, seconds(54));
        assert_eq!(table.silent_longest(None), find(&table, 3));
        let second = find(&table, 2);
        assert_eq!(table.silent_longest(find(&table, 3)), second);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nobody_up() {
        let mut table = table();
        table.tick(HERE, seconds(10_000));
        insert(&mut table, HERE, 1);
        for (at, key) in [(0, 2), (1, 3)] {
            table.tick(HERE, seconds(at));
            insert(&mut table, HERE, key);
        }
        assert_eq!(expire(&mut table, HERE), []);
        table.tick(HERE, seconds(20));
        assert_eq!(expire(&mut table, HERE), [2, 3, 1]);
    }

    /// Enough keys for several rounds of buckets, and then none of them.
    #[test]
    fn buckets_grow_with_the_entries() {
        let mut table: Aged<u32, u32> = Aged::new(5_000, [Duration::from_secs(10); 2]);
        for key in 0..10_000 {
            insert(&mut table, HERE, key);
            assert_eq!(table.buckets.len(), (4 * (key as usize + 1)).clamp(1_024, 20_000));
        }
        assert!((0..10_000).all(|key| find(&table, key).is_some_and(|slot| table.get(slot).value == key)));
        for key in 0..10_000 {
            let slot = find(&table, key).unwrap();
            assert_eq!(table.remove(slot), key);
        }
        assert!(table.buckets.iter().all(Option::is_none));
    }

    proptest! {
        #[test]
        fn it_finds_what_it_has(steps in prop::collection::vec((0u32..40, any::<bool>(), 0u32..4), 0..400)) {
            let (mut table, mut model) = (table(), HashMap::new());
            let mut at = 0;
            for (key, ends, later) in steps {
                at += later;
                table.tick(HERE, seconds(at));
                for gone in expire(&mut table, HERE) {
                    let (seen, limit) = model.remove(&gone).unwrap();
                    prop_assert!(at - seen > limit);
                }
                let slot = find(&table, key).unwrap_or_else(|| insert(&mut table, HERE, key));
                prop_assert_eq!(table.get(slot).value, key);
                table.touch(slot, if ends { Age::Ended } else { Age::Living });
                model.insert(key, (at, if ends { 2 } else { 10 }));
                prop_assert_eq!(table.len(), model.len());
                prop_assert!(model.values().all(|(seen, limit)| at - seen <= *limit));
                prop_assert!(model.keys().all(|key| find(&table, *key).is_some()));
            }
        }
    }
}
