//! The hash index of the table: chained buckets, added a few at a time.
//!
//! This is linear hashing (Litwin, VLDB 1980). A new bucket takes its entries from one other bucket, so growing costs
//! the same with each insertion and never moves the whole index. An entry links to the next one of its bucket.

use super::Entry;
use crate::slab::{Slab, Slot};

/// Buckets of an empty table: a power of two.
const MIN_BUCKETS: u32 = 1 << 10;

/// The most buckets, however many entries there may be.
const MAX_BUCKETS: usize = 1 << 30;

/// Four bytes per bucket are little compared with an entry, and short chains save cache misses.
pub(super) const BUCKETS_PER_ENTRY: usize = 4;

/// The buckets.
#[derive(Debug)]
pub(super) struct Buckets {
    /// The first entry of each bucket. Its length follows the number of entries, so that a small table fits into few
    /// cache lines. Its capacity is that of the full table from the start, which reserves address space but no memory.
    firsts: Vec<Option<Slot>>,
    /// A power of two above the number of buckets, less one.
    mask: u32,
}

impl Buckets {
    /// Buckets for about `capacity` entries.
    pub(super) fn new(capacity: usize) -> Self {
        let most = capacity.saturating_mul(BUCKETS_PER_ENTRY).clamp(MIN_BUCKETS as usize, MAX_BUCKETS);
        let mut firsts = Vec::with_capacity(most);
        firsts.resize(MIN_BUCKETS as usize, None);
        Self { firsts, mask: 2 * MIN_BUCKETS - 1 }
    }

    #[inline]
    fn index(&self, hash: u32) -> usize {
        let index = (hash & self.mask) as usize;
        // Until a bucket has been added, its entries are in the bucket at half the range.
        if index < self.firsts.len() { index } else { (hash & (self.mask >> 1)) as usize }
    }

    /// The first entry of the bucket for `hash`.
    #[inline]
    pub(super) fn first(&self, hash: u32) -> Option<Slot> {
        self.firsts[self.index(hash)]
    }

    /// Adds the buckets that one more entry calls for.
    pub(super) fn grow<K, V>(&mut self, entries: &mut Slab<Entry<K, V>>) {
        let wanted = (entries.len() + 1).saturating_mul(BUCKETS_PER_ENTRY).min(self.firsts.capacity());
        while self.firsts.len() < wanted {
            self.add_bucket(entries);
        }
    }

    fn add_bucket<K, V>(&mut self, entries: &mut Slab<Entry<K, V>>) {
        let added = self.firsts.len() as u32;
        let mut next = self.firsts[(added & (self.mask >> 1)) as usize].take();
        self.firsts.push(None);
        if added == self.mask {
            self.mask = 2 * self.mask + 1;
        }
        while let Some(slot) = next {
            next = entries.get(slot).next_in_bucket;
            self.link(entries, slot);
        }
    }

    /// Puts an entry at the beginning of its bucket.
    pub(super) fn link<K, V>(&mut self, entries: &mut Slab<Entry<K, V>>, slot: Slot) {
        let entry = entries.get_mut(slot);
        let index = self.index(entry.hash);
        entry.next_in_bucket = self.firsts[index].replace(slot);
    }

    /// Takes an entry out of its bucket.
    pub(super) fn unlink<K, V>(&mut self, entries: &mut Slab<Entry<K, V>>, slot: Slot) {
        let entry = entries.get(slot);
        let (index, next) = (self.index(entry.hash), entry.next_in_bucket);
        if self.firsts[index] == Some(slot) {
            self.firsts[index] = next;
            return;
        }
        let mut at = self.firsts[index];
        while let Some(before) = at {
            let entry = entries.get_mut(before);
            at = entry.next_in_bucket;
            if at == Some(slot) {
                entry.next_in_bucket = next;
                return;
            }
        }
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.firsts.len()
    }

    #[cfg(test)]
    pub(super) fn are_empty(&self) -> bool {
        self.firsts.iter().all(Option::is_none)
    }
}
