//! The figures of one source.

use std::time::Duration;

use packet::Timestamp;

/// Batches, and the packets in them. Heartbeats are batches, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many batches.
    pub batches: u64,
    /// How many packets.
    pub packets: u64,
}

impl Tally {
    pub(crate) const fn is_zero(self) -> bool {
        self.batches == 0 && self.packets == 0
    }
}

impl std::ops::AddAssign for Tally {
    /// Saturates: what is added comes from other machines.
    fn add_assign(&mut self, more: Self) {
        self.batches = self.batches.saturating_add(more.batches);
        self.packets = self.packets.saturating_add(more.packets);
    }
}

/// Packets lost at the source, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// By the kernel: its capture buffer was full.
    pub kernel: u64,
    /// By the interface or its driver.
    pub interface: u64,
    /// By the relay: its buffer was full.
    pub relay: u64,
}

/// Why a packet that was received is not in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The output can hold one link type, and the packet has another.
    LinkType,
    /// The output had all that was asked for.
    Limit,
    /// Nobody reads the output any more.
    Closed,
}

impl Skip {
    /// Every reason, so that each has a series from the start.
    pub const ALL: [Self; 3] = [Self::LinkType, Self::Limit, Self::Closed];

    /// A short name for a metric's label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::LinkType => "link_type",
            Self::Limit => "limit",
            Self::Closed => "closed",
        }
    }
}

/// What is known of one source, over all its epochs. Every number that counts something only ever grows, but for
/// [`missing`](Self::missing). With a source that tells the truth, these sums hold at any time:
///
/// - `sent = received + lost + unheard + missing - returned` (packets)
/// - `received = written + skipped + held`
///
/// and at the end of an epoch, when the source holds nothing back any more:
///
/// - `captured = dropped.relay + sent`
/// - `captured + dropped.kernel` is what the device saw, and the filter let pass.
///
/// What a source sent last is not known to be sent where nothing came behind it: of a source that was killed, `sent`
/// ends with what was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Runs of the source from which something came.
    pub epochs: u64,
    /// What came, without duplicates.
    pub received: Tally,
    /// Bytes of that, as the caller counts them.
    pub bytes: u64,
    /// What came a second time, and was not to be taken again. Also what came when it had been given up so long ago
    /// that it cannot be told from a duplicate: it stays lost.
    pub duplicates: Tally,
    /// Packets that the source has sent, as far as that is known here.
    pub sent: u64,
    /// Packets that the source has read from its device.
    pub captured: u64,
    /// Packets that the source has lost.
    pub dropped: Dropped,
    /// What was sent in the epoch of the first contact, and in older ones, before the collector heard of it.
    pub unheard: Tally,
    /// What was sent and did not come, for so long that it was given up.
    pub lost: Tally,
    /// What came after all, when it had been counted as lost or unheard.
    pub returned: Tally,
    /// What has not come, and may still: what came behind it is younger than [`super::PATIENCE`].
    pub missing: Tally,
    /// Packets that left the merge too late to be in order.
    pub late: u64,
    /// Packets that are in the output.
    pub written: u64,
    /// Packets that are not, in the order of [`Skip::ALL`].
    pub skipped: [u64; Skip::ALL.len()],
    /// The source's latest promise: nothing older is to come.
    pub watermark: Timestamp,
    /// The collector's clock minus the source's, in nanoseconds, plus the time that the fastest batch of the last
    /// minute was under way: positive where the source's clock is behind. `None` where there is nothing to tell it
    /// from.
    pub clock_offset: Option<i64>,
    /// When the first batch came, by the collector's clock.
    pub first_heard: Timestamp,
    /// When the latest one came.
    pub last_heard: Timestamp,
    /// Whether the latest run has ended as it should.
    pub ended: bool,
    /// Whether two captures use the name at the same time.
    pub shared: bool,
}

impl Figures {
    /// Packets that were received, and are neither written nor skipped yet.
    #[must_use]
    pub fn held(&self) -> u64 {
        let gone = self.skipped.iter().fold(self.written, |sum, skipped| sum.saturating_add(*skipped));
        self.received.packets.saturating_sub(gone)
    }

    /// Packets that were skipped for this reason.
    #[must_use]
    pub const fn skipped(&self, reason: Skip) -> u64 {
        self.skipped[reason as usize]
    }

    /// How far the source's packets are behind the collector's clock, in seconds: negative where the source's clock is
    /// ahead. `None` where no more is expected, or it has not seen a packet.
    #[must_use]
    pub fn lag_seconds(&self, now: Timestamp) -> Option<f64> {
        (!self.ended && self.watermark > Timestamp::ZERO).then(|| seconds(now.nanos_since(self.watermark)))
    }

    /// [`clock_offset`](Self::clock_offset), in seconds.
    #[must_use]
    pub fn clock_offset_seconds(&self) -> Option<f64> {
        self.clock_offset.map(seconds)
    }

    /// Whether it has not ended, and something came within `silence`.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp, silence: Duration) -> bool {
        !self.ended && now.since(self.last_heard) < silence
    }
}

fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}
