//! Storage for many values of one type, addressed by slot number.
//!
//! A `Vec` that grows copies all its values, which at half a gigabyte takes a tenth of a second. A slab grows by
//! chunks, and values never move. Freed slots are reused, the last one first.

use std::num::NonZeroU32;

/// Slots per chunk. With entries of about 200 bytes a chunk is 200 KiB, which takes microseconds to allocate.
const CHUNK: usize = 1024;

/// The link of a slot that holds a value.
const TAKEN: u32 = u32::MAX;
/// The end of the free list.
const NONE: u32 = u32::MAX - 1;

/// A slot number. Both this and `Option<Slot>` are four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(NonZeroU32);

impl Slot {
    fn new(index: usize) -> Option<Self> {
        let number = u32::try_from(index + 1).ok().filter(|&number| number < NONE)?;
        NonZeroU32::new(number).map(Self)
    }

    #[inline]
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The values.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// Index of the slot that was freed last, or [`NONE`].
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    values: Vec<T>,
    /// For each slot [`TAKEN`], or the index of the slot that was freed before it.
    links: Vec<u32>,
}

impl<T> Slab<T> {
    /// An empty slab, without an allocation.
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE, len: 0 }
    }

    /// The number of values.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Stores a value.
    ///
    /// # Panics
    /// If there are four billion values.
    pub(crate) fn insert(&mut self, value: T) -> Slot {
        self.len += 1;
        if self.free != NONE {
            let index = self.free as usize;
            let chunk = &mut self.chunks[index / CHUNK];
            self.free = std::mem::replace(&mut chunk.links[index % CHUNK], TAKEN);
            chunk.values[index % CHUNK] = value;
            return Slot::new(index).expect("the slot had a number before");
        }
        if self.chunks.last().is_none_or(|chunk| chunk.values.len() == CHUNK) {
            self.chunks.push(Chunk { values: Vec::with_capacity(CHUNK), links: Vec::with_capacity(CHUNK) });
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("a chunk was just pushed");
        chunk.values.push(value);
        chunk.links.push(TAKEN);
        Slot::new(full + chunk.values.len() - 1).expect("slot numbers fit into a u32")
    }

    /// Frees a slot. Its value is dropped only when the slot is reused, so values should own nothing.
    pub(crate) fn free(&mut self, slot: Slot) {
        let index = slot.index();
        let link = &mut self.chunks[index / CHUNK].links[index % CHUNK];
        debug_assert_eq!(*link, TAKEN, "the slot is in use");
        *link = self.free;
        self.free = index as u32;
        self.len -= 1;
    }

    /// The value of a slot that is in use.
    #[inline]
    pub(crate) fn get(&self, slot: Slot) -> &T {
        let index = slot.index();
        &self.chunks[index / CHUNK].values[index % CHUNK]
    }

    /// The value of a slot that is in use.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut T {
        let index = slot.index();
        &mut self.chunks[index / CHUNK].values[index % CHUNK]
    }

    /// Whether a slot is in use.
    pub(crate) fn holds(&self, slot: Slot) -> bool {
        let index = slot.index();
        let link = self.chunks.get(index / CHUNK).and_then(|chunk| chunk.links.get(index % CHUNK));
        link.is_some_and(|&link| link == TAKEN)
    }

    /// The number of chunks that [`Slab::chunk`] can read.
    pub(crate) const fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The values of a chunk, in slot order.
    pub(crate) fn chunk(&self, number: usize) -> impl Iterator<Item = (Slot, &T)> {
        let chunk = self.chunks.get(number).into_iter();
        let values = chunk.flat_map(|chunk| chunk.values.iter().zip(&chunk.links).enumerate());
        values
            .filter(|(_, (_, link))| **link == TAKEN)
            .filter_map(move |(index, (value, _))| Some((Slot::new(number * CHUNK + index)?, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slab_behaves_as_a_map(steps in prop::collection::vec(any::<Option<u8>>(), 0..4000)) {
            let (mut slab, mut model) = (Slab::new(), BTreeMap::new());
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    // Two insertions for each removal, so that it fills more than one chunk.
                    Some(pick) if pick % 3 == 0 && !model.is_empty() => {
                        let (&slot, _) = model.iter().nth(usize::from(pick) % model.len()).unwrap();
                        slab.free(slot);
                        model.remove(&slot);
                        prop_assert!(!slab.holds(slot));
                    }
                    _ => prop_assert_eq!(model.insert(slab.insert(value), value), None),
                }
            }
            prop_assert_eq!(slab.len(), model.len());
            let all: BTreeMap<_, _> =
                (0..slab.chunks()).flat_map(|number| slab.chunk(number)).map(|(slot, &value)| (slot, value)).collect();
            prop_assert_eq!(&all, &model);
            prop_assert!(model.iter().all(|(&slot, value)| slab.get(slot) == value && slab.holds(slot)));
        }
    }
}
