//! A tournament among sources: who is next, and up to when.
//!
//! A binary tree of minima in one array. A leaf belongs to a source; to change one costs a comparison for each level,
//! and so does asking for the runner-up. A heap would do with fewer comparisons when the winner stays the same, but it
//! cannot change a leaf in its middle, which is what a heartbeat does; and its branches are as random as the packets
//! are. For 256 sources the array has 8 KiB: it stays in the fastest cache.

use packet::Timestamp;

/// What a source competes with. The smallest key wins.
///
/// In the order of what counts: the time; whether it is a barrier; the source's slot. So packets of the same time leave
/// in the order of their slots, and before the barrier of that time: a watermark promises that nothing *older* comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u128);

/// Says that a key is a barrier. Slots are below it.
const BARRIER: u128 = 1 << 32;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A packet that may leave.
    Packet,
    /// A source without packets that may still send one of this time or later.
    Barrier,
    /// Nothing that anyone has to wait for.
    Never,
}

impl Key {
    /// Of a source that has no packet and holds nobody up.
    pub(crate) const NEVER: Self = Self(u128::MAX);

    /// Of a source whose first packet has this time.
    pub(crate) const fn packet(time: Timestamp, slot: u32) -> Self {
        Self((time.as_nanos() as u128) << 64 | slot as u128)
    }

    /// Of a source without packets, whose next one has this time or a later one.
    pub(crate) const fn barrier(time: Timestamp, slot: u32) -> Self {
        Self((time.as_nanos() as u128) << 64 | BARRIER | slot as u128)
    }

    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::NEVER => Kind::Never,
            Self(key) if key & BARRIER != 0 => Kind::Barrier,
            _ => Kind::Packet,
        }
    }

    pub(crate) const fn time(self) -> Timestamp {
        Timestamp::from_nanos((self.0 >> 64) as u64)
    }

    pub(crate) const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// The latest time of a packet of `slot` that wins against this key.
    pub(crate) fn limit_for(self, slot: u32) -> Timestamp {
        if Self::packet(self.time(), slot) < self {
            self.time()
        } else {
            Timestamp::from_nanos(self.time().as_nanos().saturating_sub(1))
        }
    }
}

/// The tree. Its root is node 1, the children of node `n` are `2n` and `2n + 1`, and the leaves are the second half.
#[derive(Debug)]
pub(crate) struct Tournament {
    nodes: Vec<Key>,
}

impl Tournament {
    /// Without a source.
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Key::NEVER; 2] }
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    /// Changes what the source in `slot` competes with. There is room for any slot.
    pub(crate) fn set(&mut self, slot: u32, key: Key) {
        if slot as usize >= self.leaves() {
            self.grow(slot as usize + 1);
        }
        let mut at = self.leaves() + slot as usize;
        self.nodes[at] = key;
        while at > 1 {
            let best = self.nodes[at].min(self.nodes[at ^ 1]);
            at /= 2;
            self.nodes[at] = best;
        }
    }

    fn grow(&mut self, slots: usize) {
        let old = self.leaves();
        let leaves = slots.next_power_of_two();
        let mut nodes = vec![Key::NEVER; leaves * 2];
        nodes[leaves..leaves + old].copy_from_slice(&self.nodes[old..]);
        for at in (1..leaves).rev() {
            nodes[at] = nodes[at * 2].min(nodes[at * 2 + 1]);
        }
        self.nodes = nodes;
    }

    /// The smallest key of all.
    pub(crate) fn winner(&self) -> Key {
        self.nodes[1]
    }

    /// The smallest key of all others than the one in `slot`: of those that it, or someone before it, would have met.
    pub(crate) fn best_but(&self, slot: u32) -> Key {
        let mut at = self.leaves() + slot as usize;
        let mut best = Key::NEVER;
        while at > 1 {
            best = best.min(self.nodes[at ^ 1]);
            at /= 2;
        }
        best
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
    fn packets_go_before_barriers_and_low_slots_before_high_ones() {
        let [low, high, barrier] = [Key::packet(at(5), 1), Key::packet(at(5), 2), Key::barrier(at(5), 0)];
        assert!(low < high && high < barrier && barrier < Key::packet(at(6), 0) && barrier < Key::NEVER);
        assert_eq!(
            [low.kind(), barrier.kind(), Key::NEVER.kind()],
            [Kind::Packet, Kind::Barrier, Kind::Never]
        );
        assert_eq!((barrier.time(), barrier.slot()), (at(5), 0));
        assert_eq!(barrier.limit_for(7), at(5));
        assert_eq!(high.limit_for(1), at(5));
        assert_eq!(low.limit_for(2), at(4));
        assert_eq!(Key::NEVER.limit_for(u32::MAX - 1), Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn it_finds_the_two_smallest(changes in prop::collection::vec((0..40_u32, 0..50_u64, 0..3_u8), 1..200)) {
            let mut tree = Tournament::new();
            let mut keys = [Key::NEVER; 40];
            for (slot, nanos, kind) in changes {
                let key = match kind {
                    0 => Key::packet(at(nanos), slot),
                    1 => Key::barrier(at(nanos), slot),
                    _ => Key::NEVER,
                };
                tree.set(slot, key);
                keys[slot as usize] = key;
                let mut sorted = keys;
                sorted.sort_unstable();
                prop_assert_eq!(tree.winner(), sorted[0]);
                if sorted[0] != Key::NEVER {
                    prop_assert_eq!(tree.best_but(sorted[0].slot()), sorted[1]);
                }
            }
        }
    }
}
