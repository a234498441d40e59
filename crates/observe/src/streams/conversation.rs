//! Sequence analysis of a TCP connection, from both of its directions.
//!
//! The rules and their thresholds are those of Wireshark, so that results can be compared segment by segment. A capture
//! may start in the middle of a connection, miss segments, or see them in an order that neither endpoint saw. So the
//! findings are best guesses.

use packet::Timestamp;

use super::analysis::{Event, Events, SegmentAnalysis};
use super::direction::{Direction, Scale};
use super::in_flight::Pool;
use super::segment::Segment;

/// The time, in nanoseconds, within which a segment counts as reordered while the connection's round-trip time is
/// unknown:
/// 3 ms.
const DEFAULT_REORDERING_TIME: u64 = 3_000_000;

/// The state of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversation {
    directions: [Direction; 2],
    /// The time of the latest SYN; [`Timestamp::ZERO`] if there was none.
    syn_at: Timestamp,
    /// Nanoseconds from that SYN to the ACK that completes the handshake. 0 if unknown, negative if the clock was set
    /// back in between.
    initial_rtt: i64,
}

impl Conversation {
    /// A connection without segments.
    pub(super) const NEW: Self =
        Self { directions: [Direction::NEW; 2], syn_at: Timestamp::ZERO, initial_rtt: 0 };

    /// Nanoseconds from the SYN to the ACK that completes the handshake.
    #[inline]
    pub(super) fn initial_rtt(&self) -> Option<u64> {
        u64::try_from(self.initial_rtt).ok().filter(|&nanos| nanos > 0)
    }

    /// The window that a segment advertises, in bytes. A SYN's window is never scaled (RFC 7323, section 2.2).
    #[inline]
    pub(super) fn window(&self, direction: usize, segment: &Segment) -> u32 {
        let scale = if segment.syn() { Scale::Off } else { self.directions[direction & 1].scale };
        scale.apply(segment.window)
    }

    /// Returns to the initial state, and frees the segments in flight.
    pub(super) fn reset(&mut self, pool: &mut Pool) {
        for direction in &mut self.directions {
            direction.clear(pool);
        }
        *self = Self::NEW;
    }

    /// Analyzes the next segment; `direction` is the index of its sender, 0 or 1.
    pub(super) fn analyze(
        &mut self,
        direction: usize,
        segment: &Segment,
        pool: &mut Pool,
    ) -> SegmentAnalysis {
        let mut events = Events::NONE;
        if segment.rst() {
            events.add(Event::Reset);
        }
        if segment.syn() && !segment.has_ack() {
            self.detect_port_reuse(direction, segment, pool, &mut events);
        } else if segment.syn() && self.split(direction).0.replace_isn(segment) {
            events.add(Event::PortReuse);
        }
        let reordering_time =
            if self.initial_rtt == 0 { DEFAULT_REORDERING_TIME } else { self.initial_rtt as u64 };
        let (own, peer) = self.split(direction);
        own.learn_isn(peer, segment);
        events = events.with(own.detect_sequence_and_window_events(peer, segment));
        events = events.with(own.detect_acked_unseen(peer, segment));
        if segment.consumes_sequence() && !events.has(Event::KeepAlive) {
            events = events.with(own.detect_retransmission(peer, segment, reordering_time));
        }
        let response = own.response_time(peer, segment);
        own.record_sent(peer, segment, events, pool);
        let delay = peer.record_ack(segment, pool);
        if segment.syn() || segment.window_scale.is_some() {
            own.learn_scale(peer, segment);
        }
        let in_handshake = self.syn_at != Timestamp::ZERO && self.initial_rtt == 0;
        if in_handshake && segment.has_ack() && !segment.syn() {
            self.initial_rtt = segment.time.nanos_since(self.syn_at);
        }
        SegmentAnalysis { events, delay, response }
    }

    /// The sender's direction, and the other one.
    #[inline]
    fn split(&mut self, direction: usize) -> (&mut Direction, &mut Direction) {
        let [low, high] = &mut self.directions;
        if direction == 0 { (low, high) } else { (high, low) }
    }

    /// Handles a SYN without ACK, which opens a new connection or is a retransmission.
    fn detect_port_reuse(
        &mut self,
        direction: usize,
        segment: &Segment,
        pool: &mut Pool,
        events: &mut Events,
    ) {
        let (own, _) = self.split(direction);
        if own.is_reused_by(segment) {
            self.reset(pool);
            events.add(Event::PortReuse);
        } else {
            own.rewind_next();
        }
        self.syn_at = segment.time;
    }
}
