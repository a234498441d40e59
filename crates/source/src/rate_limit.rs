//! A bound on how often something happens.

use packet::Timestamp;

/// A token bucket: up to `burst` at once, and `per_second` in the long run.
#[derive(Debug)]
pub(crate) struct RateLimit {
    burst: f64,
    per_second: f64,
    tokens: f64,
    filled: Timestamp,
}

impl RateLimit {
    /// A full bucket.
    pub(crate) const fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second, tokens: burst, filled: Timestamp::ZERO }
    }

    /// Takes a token, unless fewer than `reserve` would be left. Returns whether it did.
    pub(crate) fn take(&mut self, now: Timestamp, reserve: f64) -> bool {
        self.tokens = (self.tokens + now.since(self.filled).as_secs_f64() * self.per_second).min(self.burst);
        // If the clock was set back, the time until now does not count twice.
        self.filled = now;
        let available = self.tokens >= 1.0 + reserve;
        if available {
            self.tokens -= 1.0;
        }
        available
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let mut limit = RateLimit::new(2.0, 10.0);
        let mut taken = |millis: u64| limit.take(Timestamp::from_nanos(millis * 1_000_000), 0.0);
        assert_eq!([taken(1000), taken(1000), taken(1000), taken(1050)], [true, true, false, false]);
        assert_eq!([taken(1100), taken(1100)], [true, false]);
        // The clock is set back, then an hour passes: no more than a burst.
        assert_eq!([taken(0), taken(100)], [false, true]);
        assert_eq!([taken(3_600_000), taken(3_600_000), taken(3_600_000)], [true, true, false]);
    }

    #[test]
    fn a_reserve_is_left() {
        let mut limit = RateLimit::new(3.0, 1.0);
        let now = Timestamp::from_parts(1000, 0);
        let taken = [2.0, 2.0, 0.0, 0.0, 0.0].map(|reserve| limit.take(now, reserve));
        assert_eq!(taken, [true, false, true, true, false]);
    }
}
