//! One direction of a connection: its state after the last segment, and the classification of the next segment.

use packet::Timestamp;

use super::analysis::{Event, Events};
use super::in_flight::{InFlight, Pool};
use super::segment::{Segment, Seq};

/// A fast retransmission follows the last duplicate ACK within less than this, in nanoseconds: 20 ms.
const FAST_RETRANSMISSION_TIME: u64 = 20_000_000;

/// Duplicate ACKs before a fast retransmission. RFC 5681, section 3.2, requires three; Wireshark two, because the
/// capture may have missed one.
const FAST_RETRANSMISSION_DUP_ACKS: u8 = 2;

/// Larger shift counts are treated as this one (RFC 7323, section 2.3).
const MAX_WINDOW_SHIFT: u8 = 14;

/// The state of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direction {
    /// The next expected sequence number: the highest end of any segment.
    next: Seq,
    /// `next` after the last segment that continued in order. Nothing before it is missing.
    contiguous: Seq,
    /// The acknowledgment number of the last segment, whether or not ACK was set.
    last_ack: Seq,
    /// The initial sequence number, if known.
    isn: Option<Seq>,
    /// When `next` was reached.
    next_at: Timestamp,
    /// The time of the last segment.
    last_at: Timestamp,
    in_flight: InFlight,
    /// The window of the last segment, unscaled.
    last_window: Option<u16>,
    /// The MPTCP subtypes sent in this direction, one bit each.
    mptcp: u8,
    /// The MPTCP subtypes of both directions before the last segment of this one.
    mptcp_before: u8,
    pub(super) scale: Scale,
    /// The number of duplicate ACKs, or [`Direction::ACKED_UNSEEN`].
    duplicate_acks: u8,
    /// Whether only SYNs have advertised a window so far. Those are never scaled (RFC 7323, section 2.2).
    only_unscaled_windows: bool,
    last: LastSegment,
}

/// How the windows of a direction are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// The handshake was not captured.
    Unknown,
    /// One of the endpoints did not offer the option.
    Off,
    /// The shift count.
    Shift(u8),
}

/// The last segment of a direction, as far as the analysis of the other direction depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastSegment {
    Ack,
    NoAck,
    KeepAlive,
    ZeroWindowProbe,
}

impl Scale {
    /// The window in bytes. If the scale is unknown, the unscaled field.
    #[inline]
    pub(super) fn apply(self, window: u16) -> u32 {
        match self {
            Self::Unknown | Self::Off => u32::from(window),
            Self::Shift(shift) => u32::from(window) << shift,
        }
    }
}

impl Direction {
    /// In place of a number of duplicate ACKs: the other direction acknowledged segments that were not captured.
    /// Duplicate ACKs may be missing too, so a retransmission counts as fast.
    const ACKED_UNSEEN: u8 = u8::MAX;

    /// A direction without segments.
    pub(super) const NEW: Self = Self {
        next: Seq::UNKNOWN,
        contiguous: Seq::UNKNOWN,
        last_ack: Seq::UNKNOWN,
        isn: None,
        next_at: Timestamp::ZERO,
        last_at: Timestamp::ZERO,
        in_flight: InFlight::EMPTY,
        last_window: None,
        mptcp: 0,
        mptcp_before: 0,
        scale: Scale::Unknown,
        duplicate_acks: 0,
        only_unscaled_windows: false,
        last: LastSegment::NoAck,
    };

    /// Frees the segments in flight.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        pool.clear(&mut self.in_flight);
    }

    /// Whether a SYN belongs to another connection than the known one.
    pub(super) fn is_reused_by(&self, syn: &Segment) -> bool {
        self.isn.is_some_and(|isn| isn != syn.seq)
    }

    /// Whether a SYN/ACK differs from the known one. It does not reset the connection, but replaces the initial
    /// sequence number that later SYNs are compared with.
    pub(super) fn replace_isn(&mut self, syn: &Segment) -> bool {
        let differs = self.is_reused_by(syn);
        if differs {
            self.isn = Some(syn.seq);
        }
        differs
    }

    /// Forgets the segments after a gap.
    pub(super) fn rewind_next(&mut self) {
        self.next = self.contiguous;
    }

    /// Learns initial sequence numbers from the first segments: that of a SYN, else the number before it.
    #[inline]
    pub(super) fn learn_isn(&mut self, peer: &mut Self, segment: &Segment) {
        self.isn.get_or_insert(if segment.syn() { segment.seq } else { segment.seq.previous() });
        if segment.has_ack() {
            peer.isn.get_or_insert(segment.ack.previous());
        }
    }

    /// The events that follow from sequence number, window, and a repeated acknowledgment.
    #[inline]
    pub(super) fn detect_sequence_and_window_events(&mut self, peer: &Self, segment: &Segment) -> Events {
        let mut events = Events::NONE;
        let in_order = segment.seq == self.next;
        if segment.len == 1 && in_order && peer.last_window == Some(0) {
            events.add(Event::ZeroWindowProbe);
            return events;
        }
        if self.next.is_known() && segment.seq.after(self.next) && !segment.rst() {
            events.add(Event::Gap);
        }
        if !segment.is_plain() {
            return events;
        }
        if segment.window == 0 {
            events.add(Event::ZeroWindow);
        }
        if segment.len <= 1 && segment.seq == self.next.previous() {
            events.add(Event::KeepAlive);
        }
        if segment.len > 0 && peer.window_ends_at() == Some(segment.data_end()) {
            events.add(Event::WindowFull);
        }
        if segment.len == 0 && in_order && segment.ack == self.last_ack {
            self.detect_repeated_ack(peer, segment, &mut events);
        }
        events
    }

    /// The sequence number at the end of the window that this direction advertised last, if its scale is known.
    #[inline]
    fn window_ends_at(&self) -> Option<Seq> {
        let scale = if self.only_unscaled_windows { Scale::Off } else { self.scale };
        (self.scale != Scale::Unknown).then_some(self.last_ack + scale.apply(self.last_window?))
    }

    /// The events of a segment without data that repeats the last acknowledgment.
    fn detect_repeated_ack(&mut self, peer: &Self, segment: &Segment, events: &mut Events) {
        let same_window = self.last_window == Some(segment.window);
        match (segment.window, same_window, peer.last) {
            (0, true, LastSegment::ZeroWindowProbe) => events.add(Event::ZeroWindowProbeAck),
            (0, ..) => {}
            (_, false, _) => events.add(Event::WindowUpdate),
            (_, true, LastSegment::KeepAlive) => events.add(Event::KeepAliveAck),
            // MPTCP sends its options on segments that look like duplicate ACKs (RFC 8684, section 4). So the first
            // segment after a new MPTCP subtype is not mistaken for one.
            (_, true, _) if self.mptcp | peer.mptcp != self.mptcp_before => {}
            (_, true, _) => {
                events.add(Event::DuplicateAck);
                self.duplicate_acks = match self.duplicate_acks {
                    Self::ACKED_UNSEEN => 1,
                    fewer => (fewer + 1).min(Self::ACKED_UNSEEN - 1),
                };
            }
        }
    }

    /// Whether the acknowledgment number is beyond what was captured of the other direction.
    #[inline]
    pub(super) fn detect_acked_unseen(&mut self, peer: &mut Self, segment: &Segment) -> Events {
        let mut events = Events::NONE;
        if segment.ack != self.last_ack {
            self.duplicate_acks = 0;
        }
        let unseen = peer.contiguous.is_known() && segment.ack.after(peer.contiguous);
        if !segment.has_ack() || !unseen {
            return events;
        }
        if peer.contiguous != peer.next {
            events.add(Event::AckedUnseenSegment);
            peer.contiguous = peer.next;
        } else {
            // Only once, until the other direction acknowledges something new.
            if peer.duplicate_acks == 0 {
                events.add(Event::AckedUnseenSegment);
            }
            peer.duplicate_acks = Self::ACKED_UNSEEN;
        }
        events
    }

    /// Whether a segment with data, SYN or FIN is a retransmission, or out of order.
    #[inline]
    pub(super) fn detect_retransmission(
        &self,
        peer: &Self,
        segment: &Segment,
        reordering_time: u64,
    ) -> Events {
        let mut events = Events::NONE;
        let received = peer.last_ack.is_known() && segment.data_end().distance(peer.last_ack) <= 0;
        if segment.len > 0 && received {
            events.add(Event::Retransmission);
            events.add(Event::SpuriousRetransmission);
            return events;
        }
        // Data from one before the expected number follows a keep-alive, or a window probe whose byte was accepted.
        let one_before = segment.len > 1 && segment.seq == self.next.previous();
        if !self.next.is_known() || !segment.seq.before(self.next) || one_before {
            return events;
        }
        // If the clock was set back, the negative difference becomes a very large one, which is within no limit.
        let since_peer = segment.time.nanos_since(peer.last_at) as u64;
        let since_next = segment.time.nanos_since(self.next_at) as u64;
        if peer.duplicate_acks >= FAST_RETRANSMISSION_DUP_ACKS
            && segment.seq == peer.last_ack
            && since_peer < FAST_RETRANSMISSION_TIME
        {
            events.add(Event::Retransmission);
            events.add(Event::FastRetransmission);
        } else if since_next < reordering_time && segment.end() != self.next {
            events.add(Event::OutOfOrder);
        } else {
            events.add(Event::Retransmission);
        }
        events
    }

    /// Window scaling is on if the SYNs of both endpoints offer it (RFC 7323, section 2.2). A first SYN without the offer
    /// turns it off for both directions, in case the answer is not captured.
    pub(super) fn learn_scale(&mut self, peer: &mut Self, segment: &Segment) {
        if let Some(count) = segment.window_scale {
            self.scale = Scale::Shift(count.min(MAX_WINDOW_SHIFT));
        }
        if !segment.syn() {
            return;
        }
        if self.scale == Scale::Unknown {
            (self.scale, peer.scale) = (Scale::Off, Scale::Off);
        } else if segment.has_ack() && peer.scale == Scale::Off {
            self.scale = Scale::Off;
        }
    }

    /// Nanoseconds since the peer's last segment, if this one carries the first data from its acknowledgment number on.
    #[inline]
    pub(super) fn response_time(&self, peer: &Self, segment: &Segment) -> Option<u64> {
        let requested = peer.last != LastSegment::NoAck && segment.seq == peer.last_ack;
        let first = !self.next.is_known() || !segment.seq.before(self.next);
        if segment.len == 0 || !requested || !first {
            return None;
        }
        u64::try_from(segment.time.nanos_since(peer.last_at)).ok()
    }

    /// Updates the state by a segment of this direction.
    #[inline]
    pub(super) fn record_sent(&mut self, peer: &Self, segment: &Segment, events: Events, pool: &mut Pool) {
        let end = segment.end();
        if segment.consumes_sequence() {
            pool.push(&mut self.in_flight, end, segment.time);
        }
        let probe = events.has(Event::ZeroWindowProbe);
        if !probe {
            if !self.next.is_known() || end.after(self.next) {
                self.next = end;
                self.next_at = segment.time;
            }
            if !self.contiguous.is_known() || segment.seq == self.contiguous {
                self.contiguous = self.next;
            }
        }
        self.last_ack = segment.ack;
        self.last_at = segment.time;
        self.last_window = Some(segment.window);
        if segment.syn() {
            self.only_unscaled_windows = true;
        } else if segment.has_ack() {
            self.only_unscaled_windows = false;
        }
        self.mptcp_before = self.mptcp | peer.mptcp;
        self.mptcp |= segment.mptcp;
        self.last = if probe {
            LastSegment::ZeroWindowProbe
        } else if events.has(Event::KeepAlive) {
            LastSegment::KeepAlive
        } else if segment.has_ack() {
            LastSegment::Ack
        } else {
            LastSegment::NoAck
        };
    }

    /// Removes the segments in flight that a segment of the other direction acknowledges. Returns the nanoseconds since
    /// the acknowledged segment was sent; none if that is 0, as in Wireshark.
    #[inline]
    pub(super) fn record_ack(&mut self, segment: &Segment, pool: &mut Pool) -> Option<i64> {
        let sent = pool.acknowledge(&mut self.in_flight, segment.ack)?;
        Some(segment.time.nanos_since(sent)).filter(|&delay| delay != 0)
    }
}
