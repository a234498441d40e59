//! The time by which the merge waits.

use std::ops::Add;
use std::time::Duration;

/// A point of the collector's monotonic clock: nanoseconds since a beginning of the caller's choice.
///
/// It is the time in which the collector listened. While it could not, because a slow reader held it up, the clock
/// should stand still: else sources look silent, and packets look overdue, whose batches were only waiting to be
/// received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds since the beginning.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the beginning.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero where it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    /// Saturates.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}
