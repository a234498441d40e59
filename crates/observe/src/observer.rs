//! The interface of an observer.
//!
//! A new observer is a module with a type that implements [`Observer`], usually for a `Mutex` around its state, and a
//! row in [`Observers::new`](crate::Observers::new).

use std::fmt::Debug;
use std::sync::Arc;

use metrics::{Declaration, Exposition};
use packet::{Headers, LinkType, Origin, Records, Timestamp};
use prometheus::proto::MetricFamily;

use crate::streams::analysis::SegmentAnalysis;
use crate::{ObservedPacket, OriginId, Origins};

/// Measures packets. It never changes or drops them, never waits for anything but its own lock, and never fails.
///
/// Capture threads call [`Observer::observe`] and [`Observer::advance`], scrapes the methods that read. A method should
/// hold the lock of its state for less than a millisecond, because capture threads wait for it.
pub(crate) trait Observer: Debug + Send + Sync {
    /// Announces an origin before its first packet, and again when it has more interfaces.
    fn register(&self, _id: OriginId, _origin: &Origin, _interfaces: &[(u32, Arc<str>)]) {}

    /// Forgets an origin, whose number may be used for another one.
    fn forget(&self, id: OriginId);

    /// Observes the packets of a chunk. Called once per chunk rather than per packet, so that dynamic dispatch and the
    /// lock have a negligible cost.
    fn observe(&self, chunk: &mut Chunk<'_>);

    /// Advances the packet time of `origin`, whether or not there were packets.
    fn advance(&self, origin: BatchOrigin, now: Timestamp);

    /// All families that [`Observer::collect`] may return.
    fn declarations(&self) -> Vec<Declaration>;

    /// The metrics whose number does not grow with the traffic.
    fn collect(&self, origins: &Origins) -> Vec<MetricFamily>;

    /// Writes the metrics whose number grows with the traffic.
    fn write_table(&self, origins: &Origins, out: &mut Exposition);
}

/// The origin of a batch, by each number that an observer may count it under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchOrigin {
    /// The origin itself.
    pub(crate) id: OriginId,
    /// See [`Origins::canonical`].
    pub(crate) canonical: OriginId,
    /// See [`Origins::canonical_with_device`].
    pub(crate) canonical_with_device: OriginId,
}

/// Packets per chunk. Their headers take 11 KiB, which stay in the first-level cache while each observer reads them.
const CHUNK: usize = 64;

/// Consecutive packets of a batch.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) origin: BatchOrigin,
    /// The first `len` are the packets of the chunk. They are assigned in place: moving headers into a vector would copy
    /// them twice.
    slots: Vec<ObservedPacket<'a>>,
    len: usize,
    /// The analysis of each packet, so that several observers can use it. Empty if no observer has analyzed the chunk.
    pub(crate) analyses: Vec<SegmentAnalysis>,
}

impl<'a> Chunk<'a> {
    /// An empty chunk, with room for `packets` packets, or for a full chunk if that is less.
    pub(crate) fn new(origin: BatchOrigin, packets: usize) -> Self {
        let headers = Headers::parse(LinkType::ETHERNET, &[], 0);
        let empty = ObservedPacket { time: Timestamp::ZERO, wire_len: 0, bytes: &[], headers };
        Self { origin, slots: vec![empty; packets.clamp(1, CHUNK)], len: 0, analyses: Vec::new() }
    }

    /// A chunk of these packets.
    #[cfg(test)]
    pub(crate) fn of(origin: BatchOrigin, packets: Vec<ObservedPacket<'a>>) -> Self {
        Self { origin, len: packets.len(), slots: packets, analyses: Vec::new() }
    }

    /// The packets of the chunk.
    pub(crate) fn packets(&self) -> &[ObservedPacket<'a>] {
        self.slots.get(..self.len).unwrap_or_default()
    }

    /// Replaces the packets by the next ones of `records`. Returns whether there were any.
    #[inline]
    pub(crate) fn refill(&mut self, records: &mut Records<'a>, link_type: LinkType) -> bool {
        self.len = 0;
        self.analyses.clear();
        for slot in &mut self.slots {
            let Some(record) = records.next() else { break };
            (slot.time, slot.wire_len, slot.bytes) = (record.time, record.original, record.bytes);
            slot.headers = Headers::parse(link_type, record.bytes, record.original);
            self.len += 1;
        }
        self.len > 0
    }
}
