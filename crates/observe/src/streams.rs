//! The observer `streams`: what goes on in each TCP stream, so that it agrees with what Wireshark says of it.
//!
//! A stream is directed: a connection has two. Both directions lie in one entry, for neither can be understood without the
//! other: an acknowledgment on the way back says what was sent too often on the way there.
//!
//! What a segment shows is decided in `conversation` and `side`; that is all the state that a segment needs to be judged
//! by. What has been counted lies apart, in `stats`, an entry for each direction that has been seen: so a million
//! half-seen connections take no more room than they must.

mod conversation;
mod expose;
mod families;
mod health;
mod moments;
mod segment;
mod side;
mod stats;
#[cfg(test)]
mod tests;
mod totals;
mod unacknowledged;
mod verdict;

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use packet::Timestamp;
use packet::headers::{Ip, Tcp};

pub use verdict::{Event, Events, Verdict};

use self::conversation::Conversation;
use self::segment::Segment;
use self::stats::{State, Stats};
use self::totals::Totals;
use self::unacknowledged::Pool;
use crate::aged::{Age, Aged};
use crate::slab::{Slab, Slot};
use crate::{Observed, OriginId};

/// Bytes that a directed stream takes at most, all included: that of a connection of which one direction is seen, with a
/// segment in flight. With both directions it is less. A test holds this against the sizes of what there is.
pub const BYTES_PER_STREAM: usize = 504;

/// The memory that the default of [`Config::max_streams`] fits into.
const DEFAULT_MEMORY: usize = 512 << 20;

/// Segments in flight for which there is room, for each stream that there may be. Most have none, a few have thousands.
const IN_FLIGHT_PER_STREAM: usize = 2;

/// How many conversations a packet takes out that have been silent for too long. At most one comes with a packet, so the
/// table gets rid of them faster than they come; each takes about a hundred nanoseconds.
const FORGOTTEN_PER_PACKET: usize = 2;

/// The same where only time has come further: 60 µs.
const FORGOTTEN_PER_ADVANCE: usize = 256;

/// What bounds the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// When a silent connection is forgotten (`STREAM_AGE`).
    pub age: Duration,
    /// When a connection is forgotten that has ended, and is silent since (`STREAM_FINALIZED_AGE`).
    pub finalized_age: Duration,
    /// The most directed streams; when another one comes, the connection that was silent for longest makes room
    /// (`MAX_STREAMS`).
    pub max_streams: usize,
    /// The most directed streams that a scrape shows one by one, those with most bytes first (`STREAMS_EXPORT`).
    pub export: usize,
}

impl Default for Config {
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
    table: Aged<Key, Connection>,
    stats: Slab<Stats>,
    in_flight: Pool,
    /// By origin.
    totals: Vec<Totals>,
    config: Config,
}

/// Which connection a segment belongs to, whichever side has sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    origin: OriginId,
    low: Endpoint,
    high: Endpoint,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    address: IpAddr,
    port: u16,
}

/// A connection, and where the counts of its two directions are.
#[derive(Clone, Copy, Debug)]
struct Connection {
    conversation: Conversation,
    /// By side: that of the low endpoint, that of the high one.
    stats: [Option<Slot>; 2],
    /// Whether it began with a SYN.
    opened: bool,
    /// Which sides have sent FIN.
    finished: [bool; 2],
    /// Whether it has come to its end, by FIN or RST.
    ended: bool,
}

impl Key {
    /// The key, and which side has sent the segment.
    #[inline]
    fn of(packet: &Observed<'_>, ip: &Ip, tcp: &Tcp) -> (Self, usize) {
        let origin = packet.origin;
        let source = Endpoint { address: ip.src, port: tcp.src_port };
        let destination = Endpoint { address: ip.final_destination(packet.bytes), port: tcp.dst_port };
        if source.is_low(&destination) {
            (Self { origin, low: source, high: destination }, 0)
        } else {
            (Self { origin, low: destination, high: source }, 1)
        }
    }
}

/// In as few words as there are: the derived hash takes the lengths of addresses too, and each address by itself.
impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (self.low.address, self.high.address) {
            (IpAddr::V4(low), IpAddr::V4(high)) => {
                state.write_u64(u64::from(low.to_bits()) << 32 | u64::from(high.to_bits()));
            }
            (low, high) => (low, high).hash(state),
        }
        let ports = u64::from(self.low.port) << 16 | u64::from(self.high.port);
        state.write_u64(u64::from(self.origin.0) << 32 | ports);
    }
}

impl Endpoint {
    /// Whether this is the low one of two. In the order that is derived, but without a call where both are IPv4.
    #[inline]
    fn is_low(&self, other: &Self) -> bool {
        match (self.address, other.address) {
            (IpAddr::V4(own), IpAddr::V4(others)) => {
                (own.to_bits(), self.port) <= (others.to_bits(), other.port)
            }
            _ => self <= other,
        }
    }
}

impl Connection {
    const NEW: Self = Self {
        conversation: Conversation::NEW,
        stats: [None; 2],
        opened: false,
        finished: [false; 2],
        ended: false,
    };

    const fn age(&self) -> Age {
        if self.ended { Age::Ended } else { Age::Living }
    }
}

impl Streams {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        // A connection has two streams, and both are needed to count one.
        let config = Config { max_streams: config.max_streams.max(2), ..config };
        Self {
            table: Aged::new(config.max_streams, [config.age, config.finalized_age]),
            stats: Slab::new(),
            in_flight: Pool::new(config.max_streams.saturating_mul(IN_FLIGHT_PER_STREAM).max(1 << 16)),
            totals: Vec::new(),
            config,
        }
    }

    /// How many directed streams there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.stats.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes note of a packet. Says what it shows if it is a TCP segment, so that others need not find out again.
    pub fn observe(&mut self, packet: &Observed<'_>) -> Verdict {
        let origin = packet.origin;
        self.table.tick(origin, packet.time);
        self.forget_silent(origin, FORGOTTEN_PER_PACKET);
        let Some((ip, tcp)) = packet.headers.segment() else { return Verdict::default() };
        let (key, side) = Key::of(packet, ip, tcp);
        let slot = self.connection(origin, key);
        let stats = self.side(slot, side, packet.time);
        let segment = Segment::new(packet.time, tcp);

        let connection = &mut self.table.get_mut(slot).value;
        let had_initial_rtt = connection.conversation.initial_rtt();
        let verdict = connection.conversation.judge(side, &segment, &mut self.in_flight);
        let window = connection.conversation.window(side, &segment);
        let initial_rtt = connection.conversation.initial_rtt();
        let peer = connection.stats[side ^ 1];

        let totals = &mut self.totals[origin.index()];
        totals.count(segment.len, &verdict);
        connection.follow(side, &segment, &verdict, totals);
        let counts = self.stats.get_mut(stats);
        let was_active = counts.state() == State::Active;
        counts.count(&segment, &verdict, window);
        if was_active && counts.state() != State::Active {
            totals.active -= 1;
        }
        if let Some(nanos) = initial_rtt {
            counts.learn_initial_rtt(nanos);
            if had_initial_rtt.is_none() {
                totals.initial_rtts.observe(nanos);
            }
        }
        if let (Some(nanos), Some(peer)) = (verdict.delay, peer) {
            self.stats.get_mut(peer).delayed(nanos);
        }
        let age = connection.age();
        self.table.touch(slot, age);
        verdict
    }

    /// The packets' time of `origin` has come to `now`, whether or not a packet came with it.
    pub fn advance(&mut self, origin: OriginId, now: Timestamp) {
        self.table.tick(origin, now);
        self.forget_silent(origin, FORGOTTEN_PER_ADVANCE);
    }

    /// The connection of that key: a new one, where it was not seen before or has been silent for too long since.
    #[inline]
    fn connection(&mut self, origin: OriginId, key: Key) -> Slot {
        if let Some(slot) = self.table.find(&key) {
            if !self.table.is_expired(self.table.get(slot)) {
                return slot;
            }
            self.forget(slot);
        }
        if origin.index() >= self.totals.len() {
            self.totals.resize(origin.index() + 1, Totals::default());
        }
        self.table.insert(origin, key, Connection::NEW)
    }

    /// The counts of one side of a connection; others have to make room, where they are new.
    #[inline]
    fn side(&mut self, slot: Slot, side: usize, now: Timestamp) -> Slot {
        let entry = self.table.get(slot);
        if let Some(stats) = entry.value.stats[side] {
            return stats;
        }
        let (origin, age) = (entry.origin(), entry.value.age());
        self.table.touch(slot, age);
        while self.stats.len() >= self.config.max_streams {
            let Some(longest) = self.table.silent_longest(Some(slot)) else { break };
            self.evict(longest);
        }
        let stats = self.stats.insert(Stats::new(now));
        self.table.get_mut(slot).value.stats[side] = Some(stats);
        let totals = &mut self.totals[origin.index()];
        totals.streams += 1;
        totals.active += 1;
        stats
    }

    /// Forgets connections of `origin` that have been silent for too long, but at most so many.
    #[inline]
    fn forget_silent(&mut self, origin: OriginId, at_most: usize) {
        for _ in 0..at_most {
            let Some(slot) = self.table.expired(origin) else { return };
            self.forget(slot);
        }
    }

    /// Forgets a connection that has been silent for too long.
    fn forget(&mut self, slot: Slot) {
        let entry = self.table.get(slot);
        if !entry.value.ended {
            self.totals[entry.origin().index()].timed_out += 1;
        }
        self.remove(slot);
    }

    /// Forgets a connection to make room for another one.
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

impl Connection {
    /// Follows a connection from its beginning to its end.
    #[inline]
    fn follow(&mut self, side: usize, segment: &Segment, verdict: &Verdict, totals: &mut Totals) {
        if !segment.is_plain() {
            self.follow_end(side, segment, verdict, totals);
        }
    }

    fn follow_end(&mut self, side: usize, segment: &Segment, verdict: &Verdict, totals: &mut Totals) {
        if verdict.events.has(Event::PortReuse) {
            (self.opened, self.finished, self.ended) = (false, [false; 2], false);
        }
        if segment.syn() && !self.opened {
            self.opened = true;
            totals.opened += 1;
        }
        self.finished[side] |= segment.fin();
        let all_finished = self.stats.iter().zip(self.finished).all(|(seen, fin)| seen.is_none() || fin);
        if self.ended {
            return;
        }
        if segment.rst() {
            self.ended = true;
            totals.reset += 1;
        } else if all_finished {
            self.ended = true;
            totals.finished += 1;
        }
    }
}
