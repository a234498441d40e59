//! The clocks of a collector.

use std::time::{Duration, Instant, SystemTime};

use merge::MonotonicTime;
use packet::Timestamp;

/// Writing for longer than this means that the output's reader was slow.
const STALL_THRESHOLD: Duration = Duration::from_millis(20);

/// The current time by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    /// The wall clock: when a batch arrived.
    pub(super) wall: Timestamp,
    /// The merge's clock.
    pub(super) merge: MonotonicTime,
}

/// The merge's clock. It stands still while the output's reader is slow: nothing can be received then, so sources would
/// appear silent and packets overdue, although their batches are only waiting to be received.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergeClock {
    started: Instant,
    stalled: Duration,
}

impl MergeClock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), stalled: Duration::ZERO }
    }

    pub(super) fn now(&self) -> Now {
        Now { wall: SystemTime::now().into(), merge: self.at(Instant::now()) }
    }

    fn at(&self, instant: Instant) -> MonotonicTime {
        let running = instant.saturating_duration_since(self.started).saturating_sub(self.stalled);
        MonotonicTime::from_nanos(u64::try_from(running.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Excludes the time spent writing, if it was a stall.
    pub(super) fn exclude_stall(&mut self, writing: Duration) {
        if writing > STALL_THRESHOLD {
            self.stalled += writing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_excluded() {
        let mut clock = MergeClock::start();
        let at = |clock: &MergeClock, millis| {
            clock.at(clock.started + Duration::from_millis(millis)).as_nanos() / 1_000_000
        };
        assert_eq!(at(&clock, 100), 100);
        clock.exclude_stall(Duration::from_millis(20));
        assert_eq!(at(&clock, 100), 100);
        clock.exclude_stall(Duration::from_millis(60));
        assert_eq!(at(&clock, 100), 40);
        assert_eq!(at(&clock, 50), 0);
    }
}
