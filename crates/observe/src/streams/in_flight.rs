//! The segments in flight: sent, but not yet acknowledged.
//!
//! They are linked lists in one pool, so a stream with nothing in flight takes no room, and a whole list is freed in
//! one step.

use packet::Timestamp;

use super::segment::Seq;

/// The most segments in flight per direction. It is only reached if the other direction was not captured.
const PER_DIRECTION: u32 = 10_000;

/// Nodes per chunk of the pool, which makes 64 KiB.
const CHUNK: usize = 4096;

/// The end of a list.
const END: u32 = u32::MAX;

/// A larger step in sequence numbers may take the ends of a list too far apart to be compared.
const LONG_JUMP: i32 = 1 << 29;

/// A segment in flight.
#[derive(Clone, Copy, Debug)]
struct Node {
    sent: Timestamp,
    end: Seq,
    next: u32,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    chunks: Vec<Vec<Node>>,
    free: u32,
    used: usize,
    limit: usize,
    /// Segments that did not fit, and so get no delay sample.
    untracked: u64,
}

/// The segments in flight of one direction, in the order they were sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    first: u32,
    last: u32,
    len: u32,
    /// Whether each segment ends after the one before it, which is true until there is a retransmission.
    ascending: bool,
}

impl InFlight {
    /// Nothing in flight.
    pub(super) const EMPTY: Self = Self { first: END, last: END, len: 0, ascending: true };
}

impl Pool {
    /// A pool of at most `limit` nodes of 16 bytes, allocated as they are needed.
    pub(super) const fn new(limit: usize) -> Self {
        Self { chunks: Vec::new(), free: END, used: 0, limit, untracked: 0 }
    }

    #[inline]
    fn node(&mut self, index: u32) -> &mut Node {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Stores `node`. `None` if the pool is full.
    #[inline]
    fn place(&mut self, node: Node) -> Option<u32> {
        if self.used == self.limit {
            return None;
        }
        self.used += 1;
        if self.free != END {
            let index = self.free;
            let place = self.node(index);
            let next_free = std::mem::replace(place, node).next;
            self.free = next_free;
            return Some(index);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut()?;
        chunk.push(node);
        u32::try_from(full + chunk.len() - 1).ok()
    }

    /// Whether nothing is in flight.
    #[cfg(test)]
    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Segments that did not fit so far, and so got no delay sample.
    pub(super) const fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Adds a segment that ends at `end`. Returns whether there was room for it.
    #[inline]
    pub(super) fn push(&mut self, list: &mut InFlight, end: Seq, sent: Timestamp) -> bool {
        let node = Node { sent, end, next: END };
        let place = if list.len < PER_DIRECTION { self.place(node) } else { None };
        let Some(index) = place else {
            self.untracked += 1;
            return false;
        };
        if list.len == 0 {
            *list = InFlight { first: index, last: index, len: 1, ascending: true };
            return true;
        }
        let last = self.node(list.last);
        last.next = index;
        list.ascending &= (1..LONG_JUMP).contains(&end.distance(last.end));
        list.last = index;
        list.len += 1;
        true
    }

    /// Removes the segments that end at `ack` or before. Returns when the oldest of those that end exactly at `ack` was
    /// sent.
    #[inline]
    pub(super) fn acknowledge(&mut self, list: &mut InFlight, ack: Seq) -> Option<Timestamp> {
        if list.ascending { self.acknowledge_front(list, ack) } else { self.acknowledge_any(list, ack) }
    }

    fn acknowledge_front(&mut self, list: &mut InFlight, ack: Seq) -> Option<Timestamp> {
        let mut sent = None;
        while list.len > 0 {
            let index = list.first;
            let free = self.free;
            let node = self.node(index);
            if node.end.after(ack) {
                break;
            }
            if node.end == ack {
                sent = Some(node.sent);
            }
            list.first = std::mem::replace(&mut node.next, free);
            self.free = index;
            self.used -= 1;
            list.len -= 1;
        }
        sent
    }

    /// The same for a list that is not in ascending order: visits all of it.
    #[cold]
    fn acknowledge_any(&mut self, list: &mut InFlight, ack: Seq) -> Option<Timestamp> {
        let mut sent = None;
        let mut kept = InFlight::EMPTY;
        let mut before = Seq::UNKNOWN;
        let mut next = list.first;
        while next != END {
            let (index, free) = (next, self.free);
            let node = self.node(index);
            next = node.next;
            let end = node.end;
            if end.after(ack) {
                node.next = END;
                if kept.len == 0 {
                    kept.first = index;
                } else {
                    kept.ascending &= (1..LONG_JUMP).contains(&end.distance(before));
                    self.node(kept.last).next = index;
                }
                kept.last = index;
                kept.len += 1;
                before = end;
            } else {
                if end == ack && sent.is_none() {
                    sent = Some(node.sent);
                }
                node.next = free;
                self.free = index;
                self.used -= 1;
            }
        }
        *list = kept;
        sent
    }

    /// Removes all segments of a list, in constant time.
    pub(super) fn clear(&mut self, list: &mut InFlight) {
        if list.len > 0 {
            let free = self.free;
            self.node(list.last).next = free;
            self.free = list.first;
            self.used -= list.len as usize;
        }
        *list = InFlight::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn an_ack_is_matched_with_the_oldest_copy() {
        let (mut pool, mut list) = (Pool::new(100), InFlight::EMPTY);
        for (nanos, end) in [(1, 100), (2, 200), (3, 100), (4, 300)] {
            assert!(pool.push(&mut list, Seq(end), at(nanos)));
        }
        assert_eq!(pool.acknowledge(&mut list, Seq(150)), None);
        assert_eq!((list.len, list.ascending, pool.used), (2, true, 2));
        assert_eq!(pool.acknowledge(&mut list, Seq(200)), Some(at(2)));
        assert_eq!(pool.acknowledge(&mut list, Seq(200)), None);
        pool.clear(&mut list);
        assert_eq!(pool.used, 0);
    }

    #[test]
    fn lists_and_pool_are_bounded() {
        let (mut pool, mut list, mut other) = (Pool::new(10_010), InFlight::EMPTY, InFlight::EMPTY);
        let pushed = (0..20_000).filter(|&n| pool.push(&mut list, Seq(n), at(0))).count();
        let others = (0..20_000).filter(|&n| pool.push(&mut other, Seq(n), at(0))).count();
        assert_eq!((pushed, others, pool.untracked()), (10_000, 10, 29_990));
        pool.clear(&mut list);
        assert!(pool.push(&mut other, Seq(11), at(0)));
    }

    proptest! {
        /// Two lists in one pool behave as two vectors that are searched linearly.
        #[test]
        fn lists_behave_as_vectors(steps in prop::collection::vec((0..2usize, 0..5u8, 0u32..60), 0..300), wrap in any::<bool>()) {
            let base = if wrap { u32::MAX - 30 } else { 1 };
            let mut pool = Pool::new(1_000);
            let mut lists = [InFlight::EMPTY; 2];
            let mut models = [Vec::new(), Vec::new()];
            for (nanos, (which, what, number)) in (0..).zip(steps) {
                let (list, model) = (&mut lists[which], &mut models[which]);
                let seq = Seq(base.wrapping_add(number));
                match what {
                    0 => {
                        let expected = model.iter().find(|(end, _)| *end == seq).map(|(_, sent)| *sent);
                        model.retain(|(end, _): &(Seq, Timestamp)| end.after(seq));
                        prop_assert_eq!(pool.acknowledge(list, seq), expected);
                    }
                    1 if number == 0 => {
                        pool.clear(list);
                        model.clear();
                    }
                    _ => {
                        pool.push(list, seq, at(nanos));
                        model.push((seq, at(nanos)));
                    }
                }
                prop_assert_eq!(list.len as usize, model.len());
                prop_assert_eq!(pool.used, models[0].len() + models[1].len());
            }
        }
    }
}
