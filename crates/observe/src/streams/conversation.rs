//! A TCP connection as an observer sees it: both directions, and what each segment shows in the light of those before it.
//!
//! The rules are those of Wireshark's sequence analysis, so that the figures can be checked against it segment by segment.
//! A capture is not an endpoint: it begins in the middle, sees segments in an order that neither end sees, or not at all.
//! So these are best guesses by design, and the thresholds are Wireshark's.

use packet::Timestamp;

use super::segment::Segment;
use super::side::{Scale, Side};
use super::unacknowledged::Pool;
use super::verdict::{Event, Events, Verdict};

/// How far apart in nanoseconds the network brings segments out of order, while the connection's round-trip time is not
/// known: 3 ms.
const REORDERED_WITHIN: u64 = 3_000_000;

/// The state of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversation {
    sides: [Side; 2],
    /// When the latest SYN was sent; [`Timestamp::ZERO`] while none was seen.
    syn_at: Timestamp,
    /// Nanoseconds from that SYN to the ACK that ends the handshake; 0 while unknown, and negative where the clock was set
    /// back meanwhile.
    initial_rtt: i64,
}

impl Conversation {
    /// Of which nothing was seen.
    pub(super) const NEW: Self = Self { sides: [Side::NEW; 2], syn_at: Timestamp::ZERO, initial_rtt: 0 };

    /// Nanoseconds that the handshake took, from the SYN to the ACK that ends it.
    #[inline]
    pub(super) fn initial_rtt(&self) -> Option<u64> {
        u64::try_from(self.initial_rtt).ok().filter(|&nanos| nanos > 0)
    }

    /// The window of `side`'s segment, in bytes. That of a SYN is never scaled (RFC 7323, section 2.2).
    #[inline]
    pub(super) fn window(&self, side: usize, segment: &Segment) -> u32 {
        let scale = if segment.syn() { Scale::Off } else { self.sides[side & 1].scale };
        scale.apply(segment.window)
    }

    /// Forgets everything, and what it had in flight.
    pub(super) fn reset(&mut self, pool: &mut Pool) {
        for side in &mut self.sides {
            side.clear(pool);
        }
        *self = Self::NEW;
    }

    /// What a segment shows that `side` has sent.
    pub(super) fn judge(&mut self, side: usize, segment: &Segment, pool: &mut Pool) -> Verdict {
        let mut events = Events::NONE;
        if segment.rst() {
            events.add(Event::Reset);
        }
        if segment.syn() && !segment.acknowledges() {
            self.open(side, segment, pool, &mut events);
        } else if segment.syn() && self.split(side).0.answers_anew(segment) {
            events.add(Event::PortReuse);
        }
        let reordered_within = if self.initial_rtt == 0 { REORDERED_WITHIN } else { self.initial_rtt as u64 };
        let (own, peer) = self.split(side);
        own.learn_isn(peer, segment);
        events = events.with(own.shows(peer, segment));
        events = events.with(own.acknowledges(peer, segment));
        if segment.occupies() && !events.has(Event::KeepAlive) {
            events = events.with(own.sends_again(peer, segment, reordered_within));
        }
        let response = own.responds(peer, segment);
        own.has_sent(peer, segment, events, pool);
        let delay = peer.has_received(segment, pool);
        if segment.syn() || segment.window_scale.is_some() {
            own.read_scale(peer, segment);
        }
        let handshake = self.syn_at != Timestamp::ZERO && self.initial_rtt == 0;
        if handshake && segment.acknowledges() && !segment.syn() {
            self.initial_rtt = segment.time.nanos_since(self.syn_at);
        }
        Verdict { events, delay, response }
    }

    /// The side that sends, and the other one.
    #[inline]
    fn split(&mut self, side: usize) -> (&mut Side, &mut Side) {
        let [low, high] = &mut self.sides;
        if side == 0 { (low, high) } else { (high, low) }
    }

    /// A SYN that answers none: a new connection, or the same one once more. Then what came behind a gap is forgotten.
    fn open(&mut self, side: usize, segment: &Segment, pool: &mut Pool, events: &mut Events) {
        let (own, _) = self.split(side);
        if own.is_reused_by(segment) {
            self.reset(pool);
            events.add(Event::PortReuse);
        } else {
            own.fall_back();
        }
        self.syn_at = segment.time;
    }
}
