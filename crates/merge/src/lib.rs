//! Merges the packets of many sources in timestamp order.
//!
//! Batches go in with [`Merge::push`]; runs of packets come out of [`Merge::next_run`]. The crate is pure: time is an
//! argument, and it does no I/O.

mod era;
mod era_merge;
mod merge;
mod source_queue;
mod winner_tree;

use std::ops::Add;
use std::time::Duration;

pub use merge::{Arrival, Merge, MergeConfig, PacketRun, SenderId};

/// A point on the collector's monotonic clock, in nanoseconds since an arbitrary start.
///
/// The clock should stand still while the collector cannot receive, for example because the reader of its output blocks.
/// Otherwise sources appear silent and packets appear overdue whose batches are only waiting to be received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// The clock's start.
    pub const ZERO: Self = Self(0);

    /// Converts from nanoseconds since the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time elapsed since `earlier`, or zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonotonicTime {
    type Output = Self;

    /// Saturates.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}
