//! A winner tree over the sources: which one is next, and up to which time.
//!
//! A binary tree of minima in one array, one leaf per source. Changing a leaf and finding the runner-up each cost one
//! comparison per level. A heap needs fewer comparisons while the winner stays the same, but it cannot change a leaf in
//! its middle, which every heartbeat does, and its branches are unpredictable. For 256 sources the array takes 8 KiB and
//! stays in the L1 cache.

use packet::Timestamp;

/// What a source competes with. The smallest key wins.
///
/// Keys compare by time, then packets before barriers, then by slot. Packets of equal time therefore go in slot order,
/// and before a barrier of that time: a watermark only excludes packets that are *older*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u128);

/// The bit that marks a barrier. Slots are smaller.
const BARRIER: u128 = 1 << 32;

/// What a key represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The source's first packet.
    Packet,
    /// The watermark of a source without packets: its next one has this time or a later one.
    Barrier,
    /// No packet, and nothing to wait for.
    Never,
}

impl Key {
    /// The key of a source without packets that others need not wait for.
    pub(crate) const NEVER: Self = Self(u128::MAX);

    /// The key of a source whose first packet has this time.
    pub(crate) const fn packet(time: Timestamp, slot: u32) -> Self {
        Self((time.as_nanos() as u128) << 64 | slot as u128)
    }

    /// The key of a source without packets whose watermark is this time.
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

    /// The latest time at which a packet of `slot` wins against this key.
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
pub(crate) struct WinnerTree {
    nodes: Vec<Key>,
}

impl WinnerTree {
    /// Creates a tree without sources.
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Key::NEVER; 2] }
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    /// Sets the key of the source in `slot`. The tree grows as needed.
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

    /// The smallest key of all slots except `slot`: the minimum of the siblings on its way to the root.
    pub(crate) fn runner_up(&self, slot: u32) -> Key {
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
    fn packets_precede_barriers_and_low_slots_precede_high_ones() {
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
        fn winner_and_runner_up_are_the_two_smallest_keys(changes in prop::collection::vec((0..40_u32, 0..50_u64, 0..3_u8), 1..200)) {
            let mut tree = WinnerTree::new();
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
                    prop_assert_eq!(tree.runner_up(sorted[0].slot()), sorted[1]);
                }
            }
        }
    }
}
