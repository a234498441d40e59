//! Packet time.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds in a second.
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A point in time: nanoseconds since the Unix epoch, UTC.
///
/// This is packet time: the clock of the capturing host. It covers the years up to 2554, while the 32-bit seconds of a
/// pcap record end in 2106.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);
    /// The latest time, later than that of any packet.
    pub const MAX: Self = Self(u64::MAX);

    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From seconds and nanoseconds, as a nanosecond pcap record stores them. Nanoseconds from 10^9 on carry over into
    /// seconds.
    #[must_use]
    pub const fn from_parts(secs: u32, nanos: u32) -> Self {
        Self(secs as u64 * NANOS_PER_SEC + nanos as u64)
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds and nanoseconds, as a nanosecond pcap record stores them. Times after 2106 saturate.
    #[must_use]
    pub fn to_parts(self) -> (u32, u32) {
        match u32::try_from(self.0 / NANOS_PER_SEC) {
            Ok(secs) => (secs, (self.0 % NANOS_PER_SEC) as u32),
            Err(_) => (u32::MAX, (NANOS_PER_SEC - 1) as u32),
        }
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds from `earlier` to this; negative if `earlier` is later.
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 and after 2554 saturate.
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// Saturates.
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / NANOS_PER_SEC, self.0 % NANOS_PER_SEC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_carry_and_saturate() {
        assert_eq!(Timestamp::from_parts(1, 1_500_000_000).to_parts(), (2, 500_000_000));
        assert_eq!(Timestamp::MAX.to_parts(), (u32::MAX, 999_999_999));
        assert_eq!(Timestamp::from_nanos(7).nanos_since(Timestamp::from_nanos(9)), -2);
        assert_eq!(Timestamp::from_nanos(7).since(Timestamp::from_nanos(9)), Duration::ZERO);
        assert_eq!(Timestamp::from_parts(3, 4).to_string(), "3.000000004");
    }
}
