//! A doubly linked list of entries, longest idle first.

use super::Entry;
use crate::slab::{Slab, Slot};

/// The ends of the list; the links are in the entries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdleList {
    oldest: Option<Slot>,
    youngest: Option<Slot>,
}

impl IdleList {
    /// The entry that has been in the list for longest.
    #[inline]
    pub(super) const fn oldest(&self) -> Option<Slot> {
        self.oldest
    }

    /// The entries, oldest first.
    pub(super) fn iter<K, V>(&self, entries: &Slab<Entry<K, V>>) -> impl Iterator<Item = Slot> {
        std::iter::successors(self.oldest, |&slot| entries.get(slot).younger)
    }

    /// Adds an entry at the young end.
    pub(super) fn push<K, V>(&mut self, entries: &mut Slab<Entry<K, V>>, slot: Slot) {
        let before = self.youngest.replace(slot);
        match before {
            Some(before) => entries.get_mut(before).younger = Some(slot),
            None => self.oldest = Some(slot),
        }
        let entry = entries.get_mut(slot);
        (entry.older, entry.younger) = (before, None);
    }

    /// Removes an entry of this list.
    pub(super) fn remove<K, V>(&mut self, entries: &mut Slab<Entry<K, V>>, slot: Slot) {
        let entry = entries.get(slot);
        let (older, younger) = (entry.older, entry.younger);
        match older {
            Some(older) => entries.get_mut(older).younger = younger,
            None => self.oldest = younger,
        }
        match younger {
            Some(younger) => entries.get_mut(younger).older = older,
            None => self.youngest = older,
        }
    }
}
