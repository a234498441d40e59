//! The request to stop, shared by everything that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The request to stop. All clones are one; once set, it stays set.
///
/// A loop checks [`Stop::is_set`]; a thread that waits does so in [`Stop::wait_timeout`].
#[derive(Clone, Debug, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The same as `set`, readable without the lock.
    flag: Arc<AtomicBool>,
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// A request that has not been made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the stop.
    pub fn set(&self) {
        let mut set = self.shared.set.lock();
        *set = true;
        self.shared.flag.store(true, Ordering::Release);
        self.shared.changed.notify_all();
    }

    /// Whether the stop was requested.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.shared.flag.load(Ordering::Acquire)
    }

    /// The flag itself, for sources, which check it between packets.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.flag)
    }

    /// Waits until the stop is requested, at most for `timeout`. Returns whether it was requested.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let mut set = self.shared.set.lock();
        match Instant::now().checked_add(timeout) {
            Some(deadline) => _ = self.shared.changed.wait_while_until(&mut set, |set| !*set, deadline),
            None => self.shared.changed.wait_while(&mut set, |set| !*set),
        }
        *set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_wakes_all_waiters_and_stays_set() {
        let stop = Stop::new();
        assert!(!stop.is_set() && !stop.wait_timeout(Duration::ZERO));
        std::thread::scope(|scope| {
            let waiters = [Duration::MAX, Duration::from_secs(3600)].map(|timeout| {
                let stop = stop.clone();
                scope.spawn(move || stop.wait_timeout(timeout))
            });
            stop.set();
            stop.set();
            assert!(waiters.into_iter().all(|waiter| waiter.join().is_ok_and(|set| set)));
        });
        assert!(stop.is_set() && stop.flag().load(Ordering::Relaxed) && stop.wait_timeout(Duration::MAX));
    }
}
