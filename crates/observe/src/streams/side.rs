//! One direction of a conversation: what its last segments were, and what the next one is by comparison.

use packet::Timestamp;

use super::segment::{Segment, Seq};
use super::unacknowledged::{Pool, Unacknowledged};
use super::verdict::{Event, Events};

/// How soon in nanoseconds after a duplicate ACK a segment follows that was sent again because of it: 20 ms, exclusive.
const FAST_RETRANSMISSION_WITHIN: u64 = 20_000_000;

/// Duplicate ACKs that make a sender send again at once. Two rather than the three of RFC 5681, section 3.2: the capture may
/// have missed one.
const FAST_RETRANSMISSION_AFTER: u8 = 2;

/// The largest shift count; a larger one stands for this (RFC 7323, section 2.3).
const MAX_WINDOW_SHIFT: u8 = 14;

/// What is known of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    /// The highest number that a segment ended with, and so the one that is due.
    next: Seq,
    /// `next` as it was after the last segment that came in its turn: up to here nothing is missing.
    contiguous: Seq,
    /// The acknowledgment number of the last segment, whether or not ACK was set.
    last_ack: Seq,
    /// The initial sequence number, where that is known.
    isn: Option<Seq>,
    /// When `next` was reached.
    next_at: Timestamp,
    /// When the last segment came.
    last_at: Timestamp,
    /// What was sent and not acknowledged yet.
    unacknowledged: Unacknowledged,
    /// The window of the last segment, unscaled.
    last_window: Option<u16>,
    /// MPTCP's subtypes that this side has sent, a bit each.
    mptcp: u8,
    /// Those that both sides had sent before this side's last segment.
    mptcp_before: u8,
    pub(super) scale: Scale,
    /// How often the last acknowledgment was repeated.
    duplicates: u8,
    /// Whether only SYNs offered a window so far: those are never scaled (RFC 7323, section 2.2).
    offers_unscaled: bool,
    /// What the last segment was.
    last: Last,
}

/// How to read a direction's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// The handshake was not seen.
    Unknown,
    /// One of the sides did not offer it.
    Off,
    /// By that many bits.
    Shift(u8),
}

/// What the last segment of a direction was, as far as the other direction's next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Ack,
    NoAck,
    KeepAlive,
    ZeroWindowProbe,
}

impl Scale {
    /// A window in bytes. Where the scale is not known, as it stands there.
    #[inline]
    pub(super) fn apply(self, window: u16) -> u32 {
        match self {
            Self::Unknown | Self::Off => u32::from(window),
            Self::Shift(shift) => u32::from(window) << shift,
        }
    }
}

impl Side {
    /// In the place of [`Side::duplicates`]: the other side has acknowledged what was never seen. Then segments are missing
    /// in the capture, duplicate ACKs perhaps among them, and what is sent again counts as asked for.
    const UNSEEN: u8 = u8::MAX;

    /// Of which nothing was seen.
    pub(super) const NEW: Self = Self {
        next: Seq::UNKNOWN,
        contiguous: Seq::UNKNOWN,
        last_ack: Seq::UNKNOWN,
        isn: None,
        next_at: Timestamp::ZERO,
        last_at: Timestamp::ZERO,
        unacknowledged: Unacknowledged::EMPTY,
        last_window: None,
        mptcp: 0,
        mptcp_before: 0,
        scale: Scale::Unknown,
        duplicates: 0,
        offers_unscaled: false,
        last: Last::NoAck,
    };

    /// Forgets what is in flight.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        pool.clear(&mut self.unacknowledged);
    }

    /// Whether a SYN begins another connection than the one that is known.
    pub(super) fn is_reused_by(&self, syn: &Segment) -> bool {
        self.isn.is_some_and(|isn| isn != syn.seq)
    }

    /// Whether a SYN that answers another one is not the answer that is known. The answer alone does not make a new
    /// connection, but its number is what later SYNs are compared with.
    pub(super) fn answers_anew(&mut self, syn: &Segment) -> bool {
        let anew = self.is_reused_by(syn);
        if anew {
            self.isn = Some(syn.seq);
        }
        anew
    }

    /// Takes back what came behind a gap.
    pub(super) fn fall_back(&mut self) {
        self.next = self.contiguous;
    }

    /// Initial sequence numbers are those of the first segments: a SYN's own, else the number in front.
    #[inline]
    pub(super) fn learn_isn(&mut self, peer: &mut Self, segment: &Segment) {
        self.isn.get_or_insert(if segment.syn() { segment.seq } else { segment.seq.previous() });
        if segment.acknowledges() {
            peer.isn.get_or_insert(segment.ack.previous());
        }
    }

    /// What a segment shows by its number, its acknowledgment and its window.
    #[inline]
    pub(super) fn shows(&mut self, peer: &Self, segment: &Segment) -> Events {
        let mut events = Events::NONE;
        let in_turn = segment.seq == self.next;
        if segment.len == 1 && in_turn && peer.last_window == Some(0) {
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
        if segment.len == 0 && in_turn && segment.ack == self.last_ack {
            self.repeats(peer, segment, &mut events);
        }
        events
    }

    /// Where the window ends that this side has offered, if that can be told.
    #[inline]
    fn window_ends_at(&self) -> Option<Seq> {
        let scale = if self.offers_unscaled { Scale::Off } else { self.scale };
        (self.scale != Scale::Unknown).then_some(self.last_ack + scale.apply(self.last_window?))
    }

    /// What a segment is that has neither data nor a new acknowledgment.
    fn repeats(&mut self, peer: &Self, segment: &Segment, events: &mut Events) {
        let same_window = self.last_window == Some(segment.window);
        match (segment.window, same_window, peer.last) {
            (0, true, Last::ZeroWindowProbe) => events.add(Event::ZeroWindowProbeAck),
            (0, ..) => {}
            (_, false, _) => events.add(Event::WindowUpdate),
            (_, true, Last::KeepAlive) => events.add(Event::KeepAliveAck),
            // MPTCP sends its signals on segments that look like duplicate ACKs (RFC 8684, section 4). One is let pass after
            // each kind of signal that has come up since this side's last segment.
            (_, true, _) if self.mptcp | peer.mptcp != self.mptcp_before => {}
            (_, true, _) => {
                events.add(Event::DuplicateAck);
                self.duplicates = match self.duplicates {
                    Self::UNSEEN => 1,
                    fewer => (fewer + 1).min(Self::UNSEEN - 1),
                };
            }
        }
    }

    /// What a segment's acknowledgment means for both sides.
    #[inline]
    pub(super) fn acknowledges(&mut self, peer: &mut Self, segment: &Segment) -> Events {
        let mut events = Events::NONE;
        if segment.ack != self.last_ack {
            self.duplicates = 0;
        }
        let unseen = peer.contiguous.is_known() && segment.ack.after(peer.contiguous);
        if !segment.acknowledges() || !unseen {
            return events;
        }
        if peer.contiguous != peer.next {
            events.add(Event::AckOfUnseen);
            peer.contiguous = peer.next;
        } else {
            // Once, until the side that is silent moves its own acknowledgment.
            if peer.duplicates == 0 {
                events.add(Event::AckOfUnseen);
            }
            peer.duplicates = Self::UNSEEN;
        }
        events
    }

    /// Whether a segment that has data, SYN or FIN was sent before, or was overtaken.
    #[inline]
    pub(super) fn sends_again(&self, peer: &Self, segment: &Segment, reordered_within: u64) -> Events {
        let mut events = Events::NONE;
        let received = peer.last_ack.is_known() && segment.data_end().distance(peer.last_ack) <= 0;
        if segment.len > 0 && received {
            events.add(Event::Retransmission);
            events.add(Event::SpuriousRetransmission);
            return events;
        }
        // More than a byte from one number back is what follows a keep-alive or a probe whose byte was taken.
        let one_back = segment.len > 1 && segment.seq == self.next.previous();
        if !self.next.is_known() || !segment.seq.before(self.next) || one_back {
            return events;
        }
        // A difference below zero, of a clock that was set back, is a very large one here: within no time at all.
        let since_peer = segment.time.nanos_since(peer.last_at) as u64;
        let since_next = segment.time.nanos_since(self.next_at) as u64;
        if peer.duplicates >= FAST_RETRANSMISSION_AFTER
            && segment.seq == peer.last_ack
            && since_peer < FAST_RETRANSMISSION_WITHIN
        {
            events.add(Event::Retransmission);
            events.add(Event::FastRetransmission);
        } else if since_next < reordered_within && segment.end() != self.next {
            events.add(Event::OutOfOrder);
        } else {
            events.add(Event::Retransmission);
        }
        events
    }

    /// Window scaling is on when both sides offer it in their SYNs, and off when one of them does not (RFC 7323, section 2.2).
    /// The first SYN without the offer settles it for both, should the answer not be seen.
    pub(super) fn read_scale(&mut self, peer: &mut Self, segment: &Segment) {
        if let Some(count) = segment.window_scale {
            self.scale = Scale::Shift(count.min(MAX_WINDOW_SHIFT));
        }
        if !segment.syn() {
            return;
        }
        if self.scale == Scale::Unknown {
            (self.scale, peer.scale) = (Scale::Off, Scale::Off);
        } else if segment.acknowledges() && peer.scale == Scale::Off {
            self.scale = Scale::Off;
        }
    }

    /// How long the peer's last segment waited for this one, where that one acknowledged up to here, and this one has the
    /// first data from here on.
    #[inline]
    pub(super) fn responds(&self, peer: &Self, segment: &Segment) -> Option<u64> {
        let asked = peer.last != Last::NoAck && segment.seq == peer.last_ack;
        let first = !self.next.is_known() || !segment.seq.before(self.next);
        if segment.len == 0 || !asked || !first {
            return None;
        }
        u64::try_from(segment.time.nanos_since(peer.last_at)).ok()
    }

    /// Takes note of a segment of this side.
    #[inline]
    pub(super) fn has_sent(&mut self, peer: &Self, segment: &Segment, events: Events, pool: &mut Pool) {
        let end = segment.end();
        if segment.occupies() {
            pool.push(&mut self.unacknowledged, end, segment.time);
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
            self.offers_unscaled = true;
        } else if segment.acknowledges() {
            self.offers_unscaled = false;
        }
        self.mptcp_before = self.mptcp | peer.mptcp;
        self.mptcp |= segment.mptcp;
        self.last = if probe {
            Last::ZeroWindowProbe
        } else if events.has(Event::KeepAlive) {
            Last::KeepAlive
        } else if segment.acknowledges() {
            Last::Ack
        } else {
            Last::NoAck
        };
    }

    /// Takes note of a segment of the other side. Gives the nanoseconds since what it acknowledges was sent; Wireshark does
    /// not count a delay of nothing, so neither do we.
    #[inline]
    pub(super) fn has_received(&mut self, segment: &Segment, pool: &mut Pool) -> Option<i64> {
        let sent = pool.acknowledge(&mut self.unacknowledged, segment.ack)?;
        Some(segment.time.nanos_since(sent)).filter(|&delay| delay != 0)
    }
}
