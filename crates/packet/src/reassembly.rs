//! Reassembly of fragmented IP datagrams.
//!
//! A TZSP datagram with an inner frame of 1514 bytes has 1547 bytes, so it is sent in two fragments where the MTU is
//! 1500. A source that reads frames from a device must reassemble them, as the receiving host's kernel does for a
//! socket. Unlike the kernel, it can also use the head of a datagram that lost a fragment: the head identifies the
//! packet and says how long.
//!
//! All state is bounded: memory by [`ReassemblyLimits::memory`], waiting by [`ReassemblyLimits::timeout`] of packet
//! time, the number of pieces of a datagram by a constant. Incomplete datagrams are dropped, counted by [`Loss`], and
//! their heads are delivered.

mod assembly;
mod fragment;

use std::collections::{HashMap, VecDeque, hash_map};
use std::net::IpAddr;
use std::time::Duration;

use assembly::{Added, Assembly};
pub use fragment::{DatagramKey, Fragment};

use crate::Timestamp;

/// The bounds of a [`Reassembler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Bytes of memory for incomplete datagrams. At the limit the oldest are dropped.
    pub memory: usize,
    /// Packet time that a datagram waits for its fragments, counted from its first one.
    pub timeout: Duration,
}

impl Default for ReassemblyLimits {
    /// 16 MiB, the size of a capture's kernel buffer.
    ///
    /// 100 ms. A host waits 30 s (Linux) or 60 s (RFC 8200, section 4.5), but a router sends the fragments of a datagram
    /// within microseconds, and the head of an incomplete one must be delivered before a merge stops waiting for it.
    fn default() -> Self {
        Self { memory: 16 << 20, timeout: Duration::from_millis(100) }
    }
}

/// The payload of an IP datagram, or the head of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassembledDatagram<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number of the payload, from the first fragment.
    pub protocol: u8,
    /// Capture time: of the fragment that completed the datagram, as the kernel reports it for a socket, or of the first
    /// fragment if only the head is delivered.
    pub time: Timestamp,
    /// The payload up to its end or to its first missing byte.
    pub payload: &'a [u8],
    /// Whether the payload is complete.
    pub whole: bool,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// A fragment did not arrive in time.
    Timeout,
    /// Newer datagrams needed its memory.
    Memory,
    /// IPv6 fragments overlapped. Such a datagram is discarded with its head (RFC 5722, section 4).
    Overlap,
    /// It has more pieces than any sender produces.
    TooManyPieces,
    /// The capture ended.
    End,
}

impl Loss {
    /// All values, in the order of their numbers (`loss as usize`).
    pub const ALL: [Self; 5] = [Self::Timeout, Self::Memory, Self::Overlap, Self::TooManyPieces, Self::End];
}

/// Totals. Every datagram is counted once, as `whole` or in `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyCounters {
    /// Fragments received.
    pub fragments: u64,
    /// Of these, fragments whose position or length is not possible.
    pub malformed: u64,
    /// Datagrams reassembled.
    pub whole: u64,
    /// Datagrams dropped, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
    /// Of these, datagrams whose head was delivered.
    pub heads: u64,
}

/// Reassembles fragmented datagrams.
#[derive(Debug, Default)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    entries: HashMap<DatagramKey, Entry>,
    /// The entries, oldest first. A removed entry stays here until it is the first: its number tells it from a later
    /// entry with the same key.
    order: VecDeque<Place>,
    /// Number of the newest entry.
    last_number: u64,
    /// Memory of `entries` in bytes.
    entry_bytes: usize,
    counters: ReassemblyCounters,
    /// Buffer for payloads whose pieces arrived out of order.
    joined: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Time and protocol of the first fragment, once it has arrived.
    head: Option<(Timestamp, u8)>,
    /// `None` if the rest of this datagram is to be discarded.
    assembly: Option<Assembly>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: DatagramKey,
    number: u64,
    since: Timestamp,
}

/// Bytes of an entry without its payload. Up to half of a hash map's slots are free.
const ENTRY_BYTES: usize = 2 * size_of::<(DatagramKey, Entry)>();

impl Entry {
    fn footprint(&self) -> usize {
        ENTRY_BYTES + self.assembly.as_ref().map_or(0, Assembly::footprint)
    }
}

impl Reassembler {
    /// Creates an empty reassembler.
    #[must_use]
    pub fn new(limits: ReassemblyLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Changes the limit of memory. What exceeds it is dropped with the next fragment.
    pub const fn set_memory_limit(&mut self, bytes: usize) {
        self.limits.memory = bytes;
    }

    /// Adds a fragment that was captured at `time`. Delivers the heads of datagrams dropped meanwhile, and the datagram
    /// that the fragment completes.
    pub fn push(
        &mut self,
        time: Timestamp,
        fragment: &Fragment<'_>,
        deliver: &mut impl FnMut(ReassembledDatagram<'_>),
    ) {
        self.advance(time, deliver);
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
        self.entry_bytes = self.entry_bytes + after - before;
        match added {
            Added::More => {}
            Added::Complete => {
                if let Some(Entry { head: Some((_, protocol)), assembly: Some(assembly), .. }) =
                    self.remove(&fragment.key)
                {
                    let DatagramKey { src, dst, .. } = fragment.key;
                    let payload = assembly.head(&mut self.joined);
                    self.counters.whole += 1;
                    deliver(ReassembledDatagram { src, dst, protocol, time, payload, whole: true });
                }
            }
            Added::Malformed => self.counters.malformed += 1,
            Added::Overlap => {
                self.counters.lost[Loss::Overlap as usize] += 1;
                self.discard_rest(fragment.key, time);
            }
            Added::TooManyPieces => {
                let entry = self.discard_rest(fragment.key, time);
                self.drop_entry(fragment.key, entry, Loss::TooManyPieces, deliver);
            }
        }
        self.enforce_memory_limit(deliver);
    }

    /// Discards the datagram with this key, including fragments that arrive later. It is not counted.
    pub fn ignore(
        &mut self,
        time: Timestamp,
        key: DatagramKey,
        deliver: &mut impl FnMut(ReassembledDatagram<'_>),
    ) {
        self.advance(time, deliver);
        self.discard_rest(key, time);
        self.enforce_memory_limit(deliver);
    }

    /// Drops datagrams that have waited too long at `now`, in packet time.
    pub fn advance(&mut self, now: Timestamp, deliver: &mut impl FnMut(ReassembledDatagram<'_>)) {
        // If the clock was set back, old datagrams appear to be from the future. So the distance counts in both
        // directions.
        while let Some(place) = self.order.front()
            && u128::from(now.as_nanos().abs_diff(place.since.as_nanos())) >= self.limits.timeout.as_nanos()
        {
            self.drop_oldest(Loss::Timeout, deliver);
        }
    }

    /// Drops all incomplete datagrams, at the end of a capture.
    pub fn finish(&mut self, deliver: &mut impl FnMut(ReassembledDatagram<'_>)) {
        while self.drop_oldest(Loss::End, deliver) {}
    }

    /// The arrival of the oldest incomplete datagram's first fragment, which is a lower bound for the times of datagrams
    /// delivered later. `None` if there is no incomplete datagram.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.order.front().map(|place| place.since)
    }

    /// Memory for incomplete datagrams in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entry_bytes + self.order.len() * size_of::<Place>()
    }

    /// Totals since the start.
    #[must_use]
    pub const fn counters(&self) -> &ReassemblyCounters {
        &self.counters
    }

    /// The entry of `key`, created at `time` if needed.
    fn entry(&mut self, key: DatagramKey, time: Timestamp) -> &mut Entry {
        match self.entries.entry(key) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(vacant) => {
                self.last_number += 1;
                let number = self.last_number;
                self.order.push_back(Place { key, number, since: time });
                let entry = Entry { number, head: None, assembly: Some(Assembly::default()) };
                self.entry_bytes += entry.footprint();
                vacant.insert(entry)
            }
        }
    }

    fn remove(&mut self, key: &DatagramKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.entry_bytes -= entry.footprint();
        self.trim_order();
        Some(entry)
    }

    /// Replaces an entry by one that discards the datagram's fragments until the timeout, so that they do not start a new
    /// datagram. Returns the replaced entry.
    fn discard_rest(&mut self, key: DatagramKey, time: Timestamp) -> Entry {
        let entry = self.entry(key, time);
        let before = entry.footprint();
        let assembly = entry.assembly.take();
        let replaced = Entry { number: entry.number, head: entry.head, assembly };
        self.entry_bytes = self.entry_bytes + ENTRY_BYTES - before;
        replaced
    }

    /// Drops the oldest entry. `false` if there is none.
    fn drop_oldest(&mut self, loss: Loss, deliver: &mut impl FnMut(ReassembledDatagram<'_>)) -> bool {
        let Some(place) = self.order.pop_front() else { return false };
        if let Some(entry) = self.remove(&place.key) {
            self.drop_entry(place.key, entry, loss, deliver);
        }
        true
    }

    /// Counts a dropped entry and delivers its head, unless it is one that discards.
    fn drop_entry(
        &mut self,
        key: DatagramKey,
        entry: Entry,
        loss: Loss,
        deliver: &mut impl FnMut(ReassembledDatagram<'_>),
    ) {
        let Some(assembly) = entry.assembly else { return };
        self.counters.lost[loss as usize] += 1;
        let Some((time, protocol)) = entry.head else { return };
        self.counters.heads += 1;
        let payload = assembly.head(&mut self.joined);
        deliver(ReassembledDatagram { src: key.src, dst: key.dst, protocol, time, payload, whole: false });
    }

    fn enforce_memory_limit(&mut self, deliver: &mut impl FnMut(ReassembledDatagram<'_>)) {
        while self.memory() > self.limits.memory && self.drop_oldest(Loss::Memory, deliver) {}
    }

    /// Removes places at the front whose entries are gone.
    fn trim_order(&mut self) {
        while let Some(place) = self.order.front()
            && self.entries.get(&place.key).is_none_or(|entry| entry.number != place.number)
        {
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
