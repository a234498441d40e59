//! What a capture can have counted: anybody can send any number.

use std::time::Duration;

use batch::Header;

/// More packets a second than any capture reads: 148 Mpps is the line rate of 100 Gbit/s with the smallest packets.
const MAX_PACKET_RATE: u64 = 1_000_000_000;

/// The most packets of a run that began before this collector: a hundred million a second for four months. It keeps
/// sums below 2^53, so that metrics, which are floating-point numbers, count every packet.
const MAX_BEFORE_CONNECT: u64 = 1_000_000_000_000_000;

/// Added to measured times: batches wait in buffers, and arrive at once.
const SLACK: Duration = Duration::from_secs(10);

/// The largest increase of a counter that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(u64);

impl Limit {
    /// For the first run of a source, about which nothing is known.
    pub(crate) const FIRST_RUN: Self = Self(MAX_BEFORE_CONNECT);

    /// For what happened within that time.
    pub(crate) fn within(elapsed: Duration) -> Self {
        let seconds = elapsed.saturating_add(SLACK).as_secs();
        Self(seconds.saturating_mul(MAX_PACKET_RATE).min(MAX_BEFORE_CONNECT))
    }

    /// Whether a counter may have gone from `before` to `after`. It may always have gone back: that is not an increase.
    pub(crate) const fn allows(self, before: u64, after: u64) -> bool {
        after.saturating_sub(before) <= self.0
    }

    /// Whether the counters of a run may have gone from `before` to those of `header`.
    pub(crate) fn allows_all(self, before: [u64; 6], header: &Header) -> bool {
        before.into_iter().zip(counters(header)).all(|(before, after)| self.allows(before, after))
    }
}

/// The counters in a header: batches and packets sent before, packets captured, and dropped at the three places.
pub(crate) const fn counters(header: &Header) -> [u64; 6] {
    let dropped = header.dropped;
    [header.sequence, header.sent_before, header.captured, dropped.kernel, dropped.interface, dropped.relay]
}
