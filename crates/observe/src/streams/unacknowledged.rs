//! The segments of each direction that wait for their acknowledgment.
//!
//! All of them lie in one pool, chained, so that a million streams with nothing in flight pay for nothing, and so that
//! whatever one of them holds is given back in one step.

use packet::Timestamp;

use super::segment::Seq;

/// The most segments that one direction remembers. Only a capture that does not see the other direction gets there.
const PER_DIRECTION: u32 = 10_000;

/// Nodes in a chunk of the pool: 64 KiB.
const CHUNK: usize = 4096;

/// The end of a chain.
const END: u32 = u32::MAX;

/// A step in sequence numbers that may bring a list's ends too far apart to be compared.
const LONG_JUMP: i32 = 1 << 29;

/// A segment that was sent.
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
    /// How many segments found no room, and so will have no delay.
    untracked: u64,
}

/// The segments of one direction, in the order in which they were sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unacknowledged {
    first: u32,
    last: u32,
    len: u32,
    /// Whether the ends of the segments only ever grow from one to the next: so it is until something is sent again.
    ascending: bool,
}

impl Unacknowledged {
    /// Nothing is in flight.
    pub(super) const EMPTY: Self = Self { first: END, last: END, len: 0, ascending: true };
}

impl Pool {
    /// A pool of at most so many nodes, each of 16 bytes; they are allocated when needed.
    pub(super) const fn new(limit: usize) -> Self {
        Self { chunks: Vec::new(), free: END, used: 0, limit, untracked: 0 }
    }

    #[inline]
    fn node(&mut self, index: u32) -> &mut Node {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Puts `node` somewhere. `None` when the pool is full.
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

    /// How many segments found no room so far, and so have no delay.
    pub(super) const fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Remembers that a segment up to `end` was sent. Says whether there was room for it.
    #[inline]
    pub(super) fn push(&mut self, list: &mut Unacknowledged, end: Seq, sent: Timestamp) -> bool {
        let node = Node { sent, end, next: END };
        let place = if list.len < PER_DIRECTION { self.place(node) } else { None };
        let Some(index) = place else {
            self.untracked += 1;
            return false;
        };
        if list.len == 0 {
            *list = Unacknowledged { first: index, last: index, len: 1, ascending: true };
            return true;
        }
        let last = self.node(list.last);
        last.next = index;
        list.ascending &= (1..LONG_JUMP).contains(&end.distance(last.end));
        list.last = index;
        list.len += 1;
        true
    }

    /// Everything up to `ack` has arrived: forgets the segments that end there or before, and says when the oldest of those
    /// that end exactly there was sent.
    #[inline]
    pub(super) fn acknowledge(&mut self, list: &mut Unacknowledged, ack: Seq) -> Option<Timestamp> {
        if list.ascending { self.acknowledge_front(list, ack) } else { self.acknowledge_any(list, ack) }
    }

    fn acknowledge_front(&mut self, list: &mut Unacknowledged, ack: Seq) -> Option<Timestamp> {
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

    /// The same for a list in which something was sent again: looks at all of it.
    #[cold]
    fn acknowledge_any(&mut self, list: &mut Unacknowledged, ack: Seq) -> Option<Timestamp> {
        let mut sent = None;
        let mut kept = Unacknowledged::EMPTY;
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

    /// Forgets all segments of a list: one step, however many they are.
    pub(super) fn clear(&mut self, list: &mut Unacknowledged) {
        if list.len > 0 {
            let free = self.free;
            self.node(list.last).next = free;
            self.free = list.first;
            self.used -= list.len as usize;
        }
        *list = Unacknowledged::EMPTY;
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
    fn the_oldest_copy_is_the_one_that_was_acknowledged() {
        let (mut pool, mut list) = (Pool::new(100), Unacknowledged::EMPTY);
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
    fn it_is_bounded() {
        let (mut pool, mut list, mut other) =
            (Pool::new(10_010), Unacknowledged::EMPTY, Unacknowledged::EMPTY);
        let pushed = (0..20_000).filter(|&n| pool.push(&mut list, Seq(n), at(0))).count();
        let others = (0..20_000).filter(|&n| pool.push(&mut other, Seq(n), at(0))).count();
        assert_eq!((pushed, others, pool.untracked()), (10_000, 10, 29_990));
        pool.clear(&mut list);
        assert!(pool.push(&mut other, Seq(11), at(0)));
    }

    proptest! {
        /// Two lists in one pool do what two vectors do that are searched from one end to the other.
        #[test]
        fn it_is_a_search(steps in prop::collection::vec((0..2usize, 0..5u8, 0u32..60), 0..300), wrap in any::<bool>()) {
            let base = if wrap { u32::MAX - 30 } else { 1 };
            let mut pool = Pool::new(1_000);
            let mut lists = [Unacknowledged::EMPTY; 2];
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
