//! Putting fragmented datagrams together.
//!
//! An inner frame of 1514 bytes makes a TZSP datagram of 1547, which does not fit an MTU of 1500: its router sends two
//! fragments. Who reads them from a wire has to do what the receiving host's kernel does for a socket, and can do more:
//! where a fragment is lost, the kernel throws the rest away, while the head of the datagram still tells whose packet it
//! was and how long.
//!
//! Everything is bounded: the memory by [`Limits::memory`], the wait by [`Limits::timeout`] of packet time, the pieces of
//! one datagram by a constant. What is given up is counted by [`Loss`], and its head is given where there is one.

mod assembly;
mod fragment;

use std::collections::{HashMap, VecDeque, hash_map};
use std::net::IpAddr;
use std::time::Duration;

use assembly::{Added, Assembly};
pub use fragment::{Fragment, Key};

use crate::Timestamp;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for datagrams that are not complete yet. At the limit the oldest are given up.
    pub memory: usize,
    /// Packet time that a datagram waits for its fragments, counted from the first that came.
    pub timeout: Duration,
}

impl Default for Limits {
    /// 16 MiB, the size of a capture's kernel buffer: it cannot hold back more than one of them.
    ///
    /// 100 ms: a host would wait for 30 s (Linux) or 60 s (RFC 8200, section 4.5) as it can ask for nothing else, but
    /// fragments leave a router within microseconds of each other, and the head of what stays incomplete should come out
    /// before a merge stops waiting for it.
    fn default() -> Self {
        Self { memory: 16 << 20, timeout: Duration::from_millis(100) }
    }
}

/// A datagram, or the head of one: what IP carried, without IP's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender.
    pub src: IpAddr,
    /// The receiver.
    pub dst: IpAddr,
    /// The protocol of the payload, by the fragment that has its head.
    pub protocol: u8,
    /// Of a whole datagram, when its last missing fragment came, which is also what the kernel tells of it; of a head,
    /// when the fragment with the head came.
    pub time: Timestamp,
    /// The payload up to its end, or to the first byte that is missing.
    pub payload: &'a [u8],
    /// Whether it is all there.
    pub whole: bool,
}

/// Why a datagram was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// Its fragments did not come in time.
    Timeout,
    /// Its memory was needed for younger ones.
    Memory,
    /// IPv6 fragments overlapped: the datagram is discarded, head and all (RFC 5722, section 4).
    Overlap,
    /// It came in more pieces than anybody sends.
    Scattered,
    /// The capture ended.
    End,
}

impl Loss {
    /// All there are, in the order of their numbers (`loss as usize`).
    pub const ALL: [Self; 5] = [Self::Timeout, Self::Memory, Self::Overlap, Self::Scattered, Self::End];

    /// The value of a metric's label `reason`. It does not change between versions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Overlap => "overlap",
            Self::Scattered => "scattered",
            Self::End => "end",
        }
    }
}

/// What came of the fragments so far. Every datagram is counted once: as whole or by its loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Fragments that were pushed.
    pub fragments: u64,
    /// Of these, the ones that can't be a part of any datagram, or of the one they claim to be of.
    pub malformed: u64,
    /// Datagrams that were put together.
    pub whole: u64,
    /// Datagrams that were given up, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
    /// Of these, the ones whose head was given.
    pub heads: u64,
}

/// Puts fragments together.
#[derive(Debug, Default)]
pub struct Defragmenter {
    limits: Limits,
    entries: HashMap<Key, Entry>,
    /// The entries in the order in which they began. An entry that is gone leaves its place here until that comes to the
    /// front; a number tells it from a later entry of the same key.
    order: VecDeque<Place>,
    began: u64,
    /// Bytes that the entries take, `order` aside.
    held: usize,
    counters: Counters,
    /// Where pieces that came in disorder are laid in a row.
    row: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// When the fragment with the head came, and of what protocol it is.
    head: Option<(Timestamp, u8)>,
    /// `None`: what comes of this datagram is thrown away.
    assembly: Option<Assembly>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    number: u64,
    since: Timestamp,
}

/// What an entry takes even before it holds anything. A hash map keeps up to half of its places free.
const ENTRY_BYTES: usize = 2 * size_of::<(Key, Entry)>();

impl Entry {
    fn footprint(&self) -> usize {
        ENTRY_BYTES + self.assembly.as_ref().map_or(0, Assembly::footprint)
    }
}

impl Defragmenter {
    /// With nothing to put together yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes a fragment that was captured at `time`. Gives what was given up meanwhile, and the datagram that the fragment
    /// completes.
    pub fn push(&mut self, time: Timestamp, fragment: &Fragment<'_>, give: &mut impl FnMut(Datagram<'_>)) {
        self.advance(time, give);
        self.counters.fragments += 1;
        if !fragment.is_possible() {
            self.counters.malformed += 1;
            return;
        }
        let entry = self.entry(fragment.key, time);
        let before = entry.footprint();
        let Some(assembly) = &mut entry.assembly else { return };
        let added = assembly.add(fragment);
        if fragment.offset == 0 && matches!(added, Added::More | Added::Complete) {
            entry.head.get_or_insert((time, fragment.protocol));
        }
        let after = entry.footprint();
        self.held = self.held + after - before;
        match added {
            Added::More => {}
            Added::Complete => {
                if let Some(Entry { head: Some((_, protocol)), assembly: Some(assembly), .. }) =
                    self.remove(&fragment.key)
                {
                    let Key { src, dst, .. } = fragment.key;
                    let payload = assembly.head(&mut self.row);
                    self.counters.whole += 1;
                    give(Datagram { src, dst, protocol, time, payload, whole: true });
                }
            }
            Added::Malformed => self.counters.malformed += 1,
            Added::Overlap => {
                self.counters.lost[Loss::Overlap as usize] += 1;
                self.refuse(fragment.key, time);
            }
            Added::Scattered => {
                let entry = self.refuse(fragment.key, time);
                self.give_up(fragment.key, entry, Loss::Scattered, give);
            }
        }
        self.keep_within_memory(give);
    }

    /// Takes note that nobody wants the datagram that a fragment of `key` belongs to: what has come of it is forgotten and
    /// what will come is not kept. It is not counted.
    pub fn ignore(&mut self, time: Timestamp, key: Key, give: &mut impl FnMut(Datagram<'_>)) {
        self.advance(time, give);
        self.refuse(key, time);
        self.keep_within_memory(give);
    }

    /// Gives up what has waited too long at `now`. To be called while no fragments come, too.
    pub fn advance(&mut self, now: Timestamp, give: &mut impl FnMut(Datagram<'_>)) {
        // A clock that was set back would let what is held look young for ever: so both directions count.
        while let Some(place) = self.order.front()
            && u128::from(now.as_nanos().abs_diff(place.since.as_nanos())) >= self.limits.timeout.as_nanos()
        {
            self.drop_oldest(Loss::Timeout, give);
        }
    }

    /// Gives up all that is held, at the end of a capture.
    pub fn finish(&mut self, give: &mut impl FnMut(Datagram<'_>)) {
        while self.drop_oldest(Loss::End, give) {}
    }

    /// When the first fragment of what is held came. No datagram that is given later has an earlier time; `None` while
    /// nothing is held.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.order.front().map(|place| place.since)
    }

    /// Bytes of memory that are in use for what is held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.held + self.order.len() * size_of::<Place>()
    }

    /// What came of the fragments so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The entry of `key`, which begins at `time` if there is none.
    fn entry(&mut self, key: Key, time: Timestamp) -> &mut Entry {
        match self.entries.entry(key) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(vacant) => {
                self.began += 1;
                self.order.push_back(Place { key, number: self.began, since: time });
                let entry = Entry { number: self.began, head: None, assembly: Some(Assembly::default()) };
                self.held += entry.footprint();
                vacant.insert(entry)
            }
        }
    }

    /// Takes the entry of `key` out.
    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.held -= entry.footprint();
        self.tidy_order();
        Some(entry)
    }

    /// Leaves an entry that throws away what comes of its datagram until its time is over, so that the rest of it is not
    /// taken for a datagram of its own. Returns the entry that it replaces.
    fn refuse(&mut self, key: Key, time: Timestamp) -> Entry {
        let entry = self.entry(key, time);
        let before = entry.footprint();
        let assembly = entry.assembly.take();
        let replaced = Entry { number: entry.number, head: entry.head, assembly };
        self.held = self.held + ENTRY_BYTES - before;
        replaced
    }

    /// Gives up the entry that began first. `false` if there is none.
    fn drop_oldest(&mut self, loss: Loss, give: &mut impl FnMut(Datagram<'_>)) -> bool {
        let Some(place) = self.order.pop_front() else { return false };
        if let Some(entry) = self.remove(&place.key) {
            self.give_up(place.key, entry, loss, give);
        }
        true
    }

    /// Counts an entry as lost and gives its head, unless it only threw things away.
    fn give_up(&mut self, key: Key, entry: Entry, loss: Loss, give: &mut impl FnMut(Datagram<'_>)) {
        let Some(assembly) = entry.assembly else { return };
        self.counters.lost[loss as usize] += 1;
        let Some((time, protocol)) = entry.head else { return };
        self.counters.heads += 1;
        let payload = assembly.head(&mut self.row);
        give(Datagram { src: key.src, dst: key.dst, protocol, time, payload, whole: false });
    }

    fn keep_within_memory(&mut self, give: &mut impl FnMut(Datagram<'_>)) {
        while self.memory() > self.limits.memory && self.drop_oldest(Loss::Memory, give) {}
    }

    /// Takes places off the front until one of them has its entry, or all are gone.
    fn tidy_order(&mut self) {
        while let Some(place) = self.order.front()
            && self.entries.get(&place.key).is_none_or(|entry| entry.number != place.number)
        {
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
