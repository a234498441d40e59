//! Log lines that strangers cause are written once in a while.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Allows a line per minute.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Option<Instant>>);

impl LogLimit {
    /// Whether a line may be written at `now`.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let allowed = last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if allowed {
            *last = Some(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_minute() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let allowed = [0, 1, 59, 60, 61, 120].map(|second| limit.allows(start + Duration::from_secs(second)));
        assert_eq!(allowed, [true, false, false, true, false, true]);
    }
}
