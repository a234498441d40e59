//! Log lines that anyone on the network can cause, at a bounded rate.

use std::time::Duration;

use merge::MonotonicTime;

/// The minimum interval between two lines of the same kind.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Limits a log line to one per [`LOG_INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct LogLimiter {
    unreported: u64,
    logged: Option<MonotonicTime>,
}

impl LogLimiter {
    /// Adds `count` events. Returns the number of events to report if there are any and it is time for a line.
    pub(super) fn add(&mut self, count: u64, now: MonotonicTime) -> Option<u64> {
        self.unreported = self.unreported.saturating_add(count);
        if self.unreported == 0 || self.logged.is_some_and(|logged| now.since(logged) < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_reports_all_events() {
        let mut limiter = LogLimiter::default();
        let mut add = |count, secs| limiter.add(count, MonotonicTime::ZERO + Duration::from_secs(secs));
        assert_eq!(add(0, 0), None);
        assert_eq!(add(3, 0), Some(3));
        assert_eq!(add(1, 9), None);
        assert_eq!(add(2, 10), Some(3));
        assert_eq!(add(0, 30), None);
        assert_eq!(add(u64::MAX, 31), Some(u64::MAX));
    }
}
