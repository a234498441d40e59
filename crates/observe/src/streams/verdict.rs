//! What the analysis finds in a segment.

/// Something that a segment shows. The names and their meaning are those of Wireshark's `tcp.analysis.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Sent again, in whichever way.
    Retransmission,
    /// Sent again because the receiver asked for it by duplicate ACKs. Also a retransmission.
    FastRetransmission,
    /// Sent again though it had been acknowledged already. Also a retransmission.
    SpuriousRetransmission,
    /// Behind others that were sent later, but too soon after them to have been sent again.
    OutOfOrder,
    /// Repeats the last acknowledgment, and nothing else.
    DuplicateAck,
    /// Begins behind the number that was next: what lies between was not seen.
    Gap,
    /// Offers no window.
    ZeroWindow,
    /// RST.
    Reset,
    /// Asks for a sign of life, with a number that was acknowledged already.
    KeepAlive,
    /// Fills the window that the receiver offered to its last byte.
    WindowFull,
    /// Answers a keep-alive.
    KeepAliveAck,
    /// A byte sent into a window of zero, to see whether it has opened.
    ZeroWindowProbe,
    /// Answers such a probe: the window is still closed.
    ZeroWindowProbeAck,
    /// Only changes the window.
    WindowUpdate,
    /// Acknowledges what was never seen.
    AckOfUnseen,
    /// A new connection on the addresses and ports of an old one.
    PortReuse,
}

impl Event {
    /// How many kinds there are.
    pub(super) const COUNT: usize = Self::PortReuse as usize + 1;
    /// How many of them are counted for each stream: the first ones, up to [`Event::WindowFull`].
    pub(super) const PER_STREAM: usize = Self::WindowFull as usize + 1;
}

/// A set of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u16);

impl Events {
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether that event is among them.
    #[inline]
    #[must_use]
    pub const fn has(self, event: Event) -> bool {
        self.0 & 1 << event as u16 != 0
    }

    #[inline]
    pub(super) const fn add(&mut self, event: Event) {
        self.0 |= 1 << event as u16;
    }

    /// Those of both.
    #[inline]
    #[must_use]
    pub(super) const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// The numbers of the events.
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

/// What a segment shows, and what it lets one measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What it shows.
    pub events: Events,
    /// The delay in nanoseconds between a segment of the other side and this one, which acknowledges it. Negative where the
    /// capture's clock was set back meanwhile.
    pub delay: Option<i64>,
    /// The nanoseconds between a segment of the other side and this one, which has the first data that the other one's
    /// acknowledgment number asks for: the response time.
    pub response: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added() {
        let mut events = Events::NONE;
        assert_eq!(events.indices().count(), 0);
        events.add(Event::PortReuse);
        events.add(Event::Retransmission);
        assert_eq!(events.indices().collect::<Vec<_>>(), [0, Event::COUNT - 1]);
        assert!(events.has(Event::PortReuse) && !events.has(Event::Gap));
    }
}
