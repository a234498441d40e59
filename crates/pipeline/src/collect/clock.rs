//! The clocks of a collector.

use std::thread;
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

/// Tells the time, and waits.
pub(super) trait Time {
    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// The time since the start, by a clock that never goes back.
    fn elapsed(&self) -> Duration;

    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct SystemClocks {
    started: Instant,
}

impl SystemClocks {
    pub(super) fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Time for SystemClocks {
    fn wall(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// The merge's clock. It stands still while the output's reader is slow: nothing can be received then, so sources would
/// appear silent and packets overdue, although their batches are only waiting to be received.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergeClock<T> {
    time: T,
    stalled: Duration,
}

impl<T: Time> MergeClock<T> {
    pub(super) fn new(time: T) -> Self {
        Self { time, stalled: Duration::ZERO }
    }

    /// The clock that does not stand still.
    pub(super) fn time(&self) -> &T {
        &self.time
    }

    pub(super) fn now(&self) -> Now {
        let running = self.time.elapsed().saturating_sub(self.stalled);
        let merge = MonotonicTime::from_nanos(u64::try_from(running.as_nanos()).unwrap_or(u64::MAX));
        Now { wall: self.time.wall(), merge }
    }

    /// Excludes the time spent writing, if it was a stall.
    pub(super) fn exclude_stall(&mut self, writing: Duration) {
        if writing > STALL_THRESHOLD {
            self.stalled += writing;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A time that tests set. All clones are one.
    #[derive(Clone, Debug, Default)]
    pub(in crate::collect) struct FakeTime(Rc<Cell<Duration>>);

    impl FakeTime {
        pub(in crate::collect) fn set(&self, elapsed: Duration) {
            self.0.set(elapsed);
        }
    }

    impl Time for FakeTime {
        fn wall(&self) -> Timestamp {
            Timestamp::ZERO + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            self.0.get()
        }

        fn sleep(&self, duration: Duration) {
            self.set(self.elapsed() + duration);
        }
    }

    #[test]
    fn stalls_are_excluded() {
        let time = FakeTime::default();
        let mut clock = MergeClock::new(time.clone());
        let at = |clock: &MergeClock<FakeTime>, millis| {
            time.set(Duration::from_millis(millis));
            let now = clock.now();
            assert_eq!(now.wall, Timestamp::ZERO + Duration::from_millis(millis));
            now.merge.as_nanos() / 1_000_000
        };
        assert_eq!(at(&clock, 100), 100);
        clock.exclude_stall(Duration::from_millis(20));
        assert_eq!(at(&clock, 100), 100);
        clock.exclude_stall(Duration::from_millis(60));
        assert_eq!(at(&clock, 100), 40);
        assert_eq!(at(&clock, 50), 0);
    }
}
