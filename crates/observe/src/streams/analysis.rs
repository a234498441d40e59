//! The result of the analysis of a segment.

/// A finding about a segment. Names and meaning follow Wireshark's `tcp.analysis.*` flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Any retransmission.
    Retransmission,
    /// A retransmission that duplicate ACKs asked for. Also a [`Event::Retransmission`].
    FastRetransmission,
    /// A retransmission of data that had been acknowledged. Also a [`Event::Retransmission`].
    SpuriousRetransmission,
    /// Arrived after segments with higher sequence numbers, but too soon for a retransmission.
    OutOfOrder,
    /// Repeats the last acknowledgment and carries nothing else.
    DuplicateAck,
    /// Starts after the next expected sequence number: segments before it were not captured (`lost_segment`).
    Gap,
    /// Advertises a window of 0.
    ZeroWindow,
    /// RST.
    Reset,
    /// A keep-alive probe: at most one byte, one before the next expected sequence number.
    KeepAlive,
    /// Fills the receiver's window to its last byte.
    WindowFull,
    /// The answer to a keep-alive.
    KeepAliveAck,
    /// One byte sent into a closed window.
    ZeroWindowProbe,
    /// The answer to such a probe: the window is still closed.
    ZeroWindowProbeAck,
    /// A segment that only changes the window.
    WindowUpdate,
    /// Acknowledges segments that were not captured (`ack_lost_segment`).
    AckedUnseenSegment,
    /// Starts a new connection on the addresses and ports of a known one (`reused_ports`).
    PortReuse,
}

impl Event {
    /// The number of events.
    pub(super) const COUNT: usize = Self::PortReuse as usize + 1;
    /// How many of them are counted per stream: the first ones, up to [`Event::WindowFull`].
    pub(super) const PER_STREAM: usize = Self::WindowFull as usize + 1;
}

/// A set of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u16);

impl Events {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Whether `event` is in the set.
    #[inline]
    #[must_use]
    pub const fn has(self, event: Event) -> bool {
        self.0 & 1 << event as u16 != 0
    }

    #[inline]
    pub(super) const fn add(&mut self, event: Event) {
        self.0 |= 1 << event as u16;
    }

    /// The union of two sets.
    #[inline]
    #[must_use]
    pub(super) const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The events as numbers, in ascending order.
    #[inline]
    pub(super) fn indices(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let index = rest.trailing_zeros() as usize;
            rest &= rest.checked_sub(1)?;
            Some(index)
        })
    }
}

/// What the analysis found in a segment, and what it measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentAnalysis {
    /// The findings.
    pub events: Events,
    /// Nanoseconds from a segment of the other direction to this one, which acknowledges it. Negative if the capture's
    /// clock was set back in between.
    pub delay: Option<i64>,
    /// The response time: nanoseconds from the other direction's last segment to this one, which carries the first data
    /// from that segment's acknowledgment number on.
    pub response: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_what_was_added() {
        let mut events = Events::NONE;
        assert_eq!(events.indices().count(), 0);
        events.add(Event::PortReuse);
        events.add(Event::Retransmission);
        assert_eq!(events.indices().collect::<Vec<_>>(), [0, Event::COUNT - 1]);
        assert!(events.has(Event::PortReuse) && !events.has(Event::Gap));
    }
}
