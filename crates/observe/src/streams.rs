//! The observer `streams`: the health of each TCP stream, with the same results as Wireshark.
//!
//! A stream is one direction of a TCP connection. Both directions are analyzed together, because acknowledgments tell
//! which segments of the other direction were retransmitted.
//!
//! `conversation` and `direction` hold the analysis and all the state that it needs. Counts and measurements are apart
//! from it, in `stats`, with an entry per captured direction, so that a connection of which only one direction was
//! captured takes less memory.

pub(crate) mod analysis;
mod collect;
mod connection;
mod conversation;
mod direction;
mod families;
mod health;
mod in_flight;
mod key;
mod moments;
mod row;
mod segment;
mod stats;
#[cfg(test)]
mod tests;
mod totals;
mod write;

use std::time::Duration;

use metrics::{Declaration, Exposition};
use packet::Timestamp;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

pub use analysis::{Event, Events, SegmentAnalysis};

use self::connection::Connection;
use self::in_flight::Pool;
use self::key::ConnectionKey;
use self::segment::Segment;
use self::stats::{State, Stats};
use self::totals::Totals;
use crate::expiring_table::ExpiringTable;
use crate::observer::{BatchOrigin, Chunk, Observer};
use crate::slab::{Slab, Slot};
use crate::{ObservedPacket, OriginId, Origins};

/// The most bytes that a stream takes: a connection with one captured direction and a segment in flight. With both
/// directions a stream takes less. A test compares this with the sizes of the types.
const BYTES_PER_STREAM: usize = 504;

/// Memory for the default number of streams.
const DEFAULT_MEMORY: usize = 512 << 20;

/// Room for segments in flight, per stream. Most streams have none in flight, a few have thousands.
const IN_FLIGHT_PER_STREAM: usize = 2;

/// How many expired connections a packet removes. A packet adds at most one, so removal is faster; each takes about 100
/// ns.
const REMOVED_PER_PACKET: usize = 2;

/// How many expired connections an [`advance`](Streams::advance) removes, which takes 60 µs.
const REMOVED_PER_ADVANCE: usize = 256;

/// The bounds of the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsConfig {
    /// An idle connection is removed after this time (`STREAM_AGE`).
    pub age: Duration,
    /// A connection that has ended is removed after this time without a packet (`STREAM_FINALIZED_AGE`).
    pub finalized_age: Duration,
    /// The most streams. A new one evicts the connection that has been idle for longest (`MAX_STREAMS`).
    pub max_streams: usize,
    /// The most streams in a scrape, those with most bytes first (`STREAMS_EXPORT`).
    pub export: usize,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(5 * 60),
            finalized_age: Duration::from_secs(60),
            max_streams: DEFAULT_MEMORY / BYTES_PER_STREAM,
            export: 10_000,
        }
    }
}

/// The observer.
#[derive(Debug)]
pub struct Streams {
    table: ExpiringTable<ConnectionKey, Connection>,
    stats: Slab<Stats>,
    in_flight: Pool,
    /// By origin.
    totals: Vec<Totals>,
    config: StreamsConfig,
}

impl Streams {
    /// An observer that has seen no packet.
    #[must_use]
    pub fn new(config: StreamsConfig) -> Self {
        // A connection has two streams, and both must fit.
        let config = StreamsConfig { max_streams: config.max_streams.max(2), ..config };
        Self {
            table: ExpiringTable::new(config.max_streams, [config.age, config.finalized_age]),
            stats: Slab::new(),
            in_flight: Pool::new(config.max_streams.saturating_mul(IN_FLIGHT_PER_STREAM).max(1 << 16)),
            totals: Vec::new(),
            config,
        }
    }

    /// The number of streams in the table, expired ones included until they are removed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.stats.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts a packet captured at `origin`. Returns the analysis of its TCP segment; the default if it has none.
    pub fn observe(&mut self, origin: OriginId, packet: &ObservedPacket<'_>) -> SegmentAnalysis {
        self.table.tick(origin, packet.time);
        self.remove_expired(origin, REMOVED_PER_PACKET);
        let Some((ip, tcp)) = packet.headers.segment() else { return SegmentAnalysis::default() };
        let (key, direction) = ConnectionKey::of(origin, packet.bytes, ip, tcp);
        let slot = self.connection(origin, key);
        let stats = self.stats_of(slot, direction, packet.time);
        let segment = Segment::new(packet.time, tcp);

        let connection = &mut self.table.get_mut(slot).value;
        let had_initial_rtt = connection.conversation.initial_rtt();
        let analysis = connection.conversation.analyze(direction, &segment, &mut self.in_flight);
        let window = connection.conversation.window(direction, &segment);
        let initial_rtt = connection.conversation.initial_rtt();
        let peer = connection.stats[direction ^ 1];

        let totals = &mut self.totals[origin.index()];
        totals.count(segment.len, &analysis);
        connection.track(direction, &segment, &analysis, totals);
        let counts = self.stats.get_mut(stats);
        let was_active = counts.state() == State::Active;
        counts.count(&segment, &analysis, window);
        if was_active && counts.state() != State::Active {
            totals.active -= 1;
        }
        if let Some(nanos) = initial_rtt {
            counts.learn_initial_rtt(nanos);
            if had_initial_rtt.is_none() {
                totals.initial_rtts.observe(nanos);
            }
        }
        if let (Some(nanos), Some(peer)) = (analysis.delay, peer) {
            self.stats.get_mut(peer).add_delay(nanos);
        }
        let limit = connection.limit();
        self.table.touch(slot, limit);
        analysis
    }

    /// Advances the packet time of `origin`, and removes expired connections.
    pub fn advance(&mut self, origin: OriginId, now: Timestamp) {
        self.table.tick(origin, now);
        self.remove_expired(origin, REMOVED_PER_ADVANCE);
    }

    /// Removes some connections of `origin`, and its totals with the last of them. Returns whether there are more.
    pub(crate) fn remove_some(&mut self, origin: OriginId) -> bool {
        for _ in 0..REMOVED_PER_ADVANCE {
            let Some(slot) = self.table.any_of(origin) else {
                if let Some(totals) = self.totals.get_mut(origin.index()) {
                    *totals = Totals::default();
                }
                return false;
            };
            self.remove(slot);
        }
        true
    }

    /// The connection of `key`. A new one if there is none, or if it has expired.
    #[inline]
    fn connection(&mut self, origin: OriginId, key: ConnectionKey) -> Slot {
        if let Some(slot) = self.table.find(&key) {
            if !self.table.is_expired(self.table.get(slot)) {
                return slot;
            }
            self.time_out(slot);
        }
        if origin.index() >= self.totals.len() {
            self.totals.resize(origin.index() + 1, Totals::default());
        }
        self.table.insert(origin, key, Connection::NEW)
    }

    /// The counts of one direction of a connection. New ones evict others if the table is full.
    #[inline]
    fn stats_of(&mut self, slot: Slot, direction: usize, now: Timestamp) -> Slot {
        let entry = self.table.get(slot);
        if let Some(stats) = entry.value.stats[direction] {
            return stats;
        }
        let (origin, limit) = (entry.origin(), entry.value.limit());
        self.table.touch(slot, limit);
        while self.stats.len() >= self.config.max_streams {
            let Some(longest) = self.table.longest_idle(Some(slot)) else { break };
            self.evict(longest);
        }
        let stats = self.stats.insert(Stats::new(now));
        self.table.get_mut(slot).value.stats[direction] = Some(stats);
        let totals = &mut self.totals[origin.index()];
        totals.streams += 1;
        totals.active += 1;
        stats
    }

    /// Removes at most `limit` expired connections of `origin`.
    #[inline]
    fn remove_expired(&mut self, origin: OriginId, limit: usize) {
        for _ in 0..limit {
            let Some(slot) = self.table.expired(origin) else { return };
            self.time_out(slot);
        }
    }

    /// Removes an expired connection.
    fn time_out(&mut self, slot: Slot) {
        let entry = self.table.get(slot);
        if !entry.value.ended {
            self.totals[entry.origin().index()].timed_out += 1;
        }
        self.remove(slot);
    }

    /// Removes a connection to make room for another one.
    #[cold]
    fn evict(&mut self, slot: Slot) {
        let entry = self.table.get(slot);
        let streams = entry.value.stats.iter().flatten().count() as u64;
        self.totals[entry.origin().index()].evicted += streams;
        self.remove(slot);
    }

    fn remove(&mut self, slot: Slot) {
        let origin = self.table.get(slot).origin();
        let mut connection = self.table.remove(slot);
        connection.conversation.reset(&mut self.in_flight);
        let totals = &mut self.totals[origin.index()];
        for stats in connection.stats.into_iter().flatten() {
            totals.streams -= 1;
            if self.stats.get(stats).state() == State::Active {
                totals.active -= 1;
            }
            self.stats.free(stats);
        }
    }
}

impl Observer for Mutex<Streams> {
    fn forget(&self, id: OriginId) {
        while self.lock().remove_some(id) {}
    }

    fn observe(&self, chunk: &mut Chunk<'_>) {
        let mut streams = self.lock();
        let origin = chunk.origin.canonical;
        let mut analyses = std::mem::take(&mut chunk.analyses);
        analyses.extend(chunk.packets().iter().map(|packet| streams.observe(origin, packet)));
        chunk.analyses = analyses;
    }

    fn advance(&self, origin: BatchOrigin, now: Timestamp) {
        self.lock().advance(origin.canonical, now);
    }

    fn declarations(&self) -> Vec<Declaration> {
        collect::declarations()
    }

    fn collect(&self, origins: &Origins) -> Vec<MetricFamily> {
        collect::collect(self, origins)
    }

    fn write_table(&self, origins: &Origins, out: &mut Exposition) {
        Streams::write_table(self, origins, out);
    }
}
