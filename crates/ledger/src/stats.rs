//! The figures of one source.

use std::ops::AddAssign;
use std::time::Duration;

use batch::Dropped;
use packet::Timestamp;

/// A number of batches, and of the packets in them. Heartbeats are batches, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many batches.
    pub batches: u64,
    /// How many packets.
    pub packets: u64,
}

impl Counts {
    pub(crate) const fn is_zero(self) -> bool {
        self.batches == 0 && self.packets == 0
    }
}

impl AddAssign for Counts {
    /// Saturates, because the numbers come from the network.
    fn add_assign(&mut self, more: Self) {
        self.batches = self.batches.saturating_add(more.batches);
        self.packets = self.packets.saturating_add(more.packets);
    }
}

/// Why a received packet is not in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardReason {
    /// The output holds a single link type, and the packet has another.
    LinkType,
    /// `MAX_PACKETS` packets were written before it.
    MaxPackets,
    /// The output was closed before it: its reader exited, or writing failed.
    OutputClosed,
}

impl DiscardReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::LinkType, Self::MaxPackets, Self::OutputClosed];

    /// The value of the metrics' label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LinkType => "link_type",
            Self::MaxPackets => "max_packets",
            Self::OutputClosed => "output_closed",
        }
    }
}

/// What became of packets that left the merge. Each packet is either written or discarded; it may be late as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Packets that were written to the output.
    pub written: u64,
    /// Packets that left the merge too late for their place in the order.
    pub late: u64,
    /// Packets that were not written, in the order of [`DiscardReason::ALL`].
    pub discarded: [u64; DiscardReason::ALL.len()],
}

impl WriteOutcome {
    /// Counts discarded packets.
    pub fn discard(&mut self, reason: DiscardReason, packets: u64) {
        self.discarded[reason as usize] += packets;
    }
}

/// The figures of one source, over all its epochs. All counters only ever increase, except [`missing`](Self::missing).
///
/// If the source's own figures are correct, two sums of packets hold at any time:
///
/// - `sent = received + lost + sent_before_connect + missing - recovered`
/// - `received = written + discarded + buffered`
///
/// and two more at the end of an epoch, when the source has nothing left to send:
///
/// - `captured = dropped.relay + sent`
/// - `seen = captured + dropped.kernel`, where `seen` is what passed the device's filter
///
/// A batch is only known to have been sent once it, or a later one of its epoch, has arrived. If a source is killed,
/// `sent` therefore ends with the last batch received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceStats {
    /// Epochs (runs of the source) from which a batch arrived.
    pub epochs: u64,
    /// Batches received, without duplicates.
    pub received: Counts,
    /// Bytes of these, as passed to [`Ledger::record`](crate::Ledger::record).
    pub bytes: u64,
    /// Batches that arrived more than once. Includes batches that arrived so late that they cannot be told from
    /// duplicates any more; these stay lost.
    pub duplicates: Counts,
    /// Packets that the source is known to have sent.
    pub sent: u64,
    /// Packets that the source has read from its device.
    pub captured: u64,
    /// Packets lost at the source.
    pub dropped: Dropped,
    /// Sent before the collector's first contact with the source, in that epoch or an earlier one.
    pub sent_before_connect: Counts,
    /// Sent, and missing for [`LOSS_TIMEOUT`](crate::LOSS_TIMEOUT).
    pub lost: Counts,
    /// Arrived after being counted as [`lost`](Self::lost) or [`sent_before_connect`](Self::sent_before_connect).
    pub recovered: Counts,
    /// Overdue: not here yet, while later batches are. Either arrives or counts as lost after
    /// [`LOSS_TIMEOUT`](crate::LOSS_TIMEOUT).
    pub missing: Counts,
    /// Packets written to the output.
    pub written: u64,
    /// Packets that left the merge too late for their place in the order. They are also written or discarded.
    pub late: u64,
    /// Packets not written, in the order of [`DiscardReason::ALL`].
    pub discarded: [u64; DiscardReason::ALL.len()],
    /// The source's latest watermark: no later batch holds an older packet.
    pub watermark: Timestamp,
    /// The collector's clock minus the source's, in nanoseconds, plus the transit time of the fastest batch of the last
    /// minute. Positive if the source's clock is behind. `None` before the first batch.
    pub clock_offset: Option<i64>,
    /// When the latest batch arrived, by the collector's clock.
    pub last_received: Timestamp,
    /// Whether all epochs have ended, or have been replaced by one that has.
    pub ended: bool,
    /// Epochs that were found to go on at the same time as an earlier one: two captures share the source's name.
    pub overlapping_runs: u64,
    /// Packets in batches that were ahead of the collector's clock, as passed to
    /// [`Ledger::record_ahead`](crate::Ledger::record_ahead).
    pub ahead: u64,
}

impl SourceStats {
    /// Packets that were received and are neither written nor discarded yet.
    #[must_use]
    pub fn buffered(&self) -> u64 {
        let done = self.discarded.iter().fold(self.written, |sum, packets| sum.saturating_add(*packets));
        self.received.packets.saturating_sub(done)
    }

    /// Packets that were discarded for this reason.
    #[must_use]
    pub const fn discarded(&self, reason: DiscardReason) -> u64 {
        self.discarded[reason as usize]
    }

    /// Now minus the source's watermark, in seconds: negative if the source's clock is ahead. `None` if the source has
    /// ended or has not captured a packet.
    #[must_use]
    pub fn watermark_lag_seconds(&self, now: Timestamp) -> Option<f64> {
        (!self.ended && self.watermark > Timestamp::ZERO).then(|| seconds(now.nanos_since(self.watermark)))
    }

    /// [`clock_offset`](Self::clock_offset), in seconds.
    #[must_use]
    pub fn clock_offset_seconds(&self) -> Option<f64> {
        self.clock_offset.map(seconds)
    }

    /// Whether the source has not ended, and a batch arrived less than `silence` ago.
    #[must_use]
    pub fn is_up(&self, now: Timestamp, silence: Duration) -> bool {
        !self.ended && now.since(self.last_received) < silence
    }
}

fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}
