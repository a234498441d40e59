//! Where a source hands its batches, and what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use batch::{Batch, Limits};
use packet::Timestamp;

/// Where a source hands its batches.
pub trait Outlet {
    /// Takes a batch. A source whose packets do not wait (a device, a TZSP port) must not be held up here; one that
    /// can wait (a file) may be.
    fn send(&mut self, batch: Batch);

    /// Memory for the next batch: that of one which is gone, or new.
    fn spare(&mut self) -> Vec<u8>;
}

/// What all sources of one program share.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the captures of this program are called.
    pub source: Arc<str>,
    /// When this run began: what tells it from the one before and the one after.
    pub epoch: Timestamp,
    /// When a batch closes.
    pub limits: Limits,
    /// Says that it is time to end.
    pub stop: Arc<AtomicBool>,
    /// How many packets may still be captured.
    pub quota: Arc<Quota>,
    /// Whether this source takes its packets off the quota.
    pub counted: bool,
    /// Whether packets of different origins in one file are handed over in the file's order, in however small batches: for
    /// who looks at them one after the other, and has no merge behind.
    pub in_order: bool,
}

impl Run {
    /// Whether it is time to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.quota.is_used_up()
    }

    /// The same for a source behind which a [`Sieve`](crate::Sieve) or the like counts what it lets through.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self { counted: false, ..self.clone() }
    }

    /// Takes a packet off the quota; false where no more are wanted.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        !self.counted || self.quota.take()
    }
}

/// How many packets may still be captured (`MAX_PACKETS`), for all sources together.
#[derive(Debug)]
pub struct Quota {
    /// `u64::MAX`: without end.
    left: AtomicU64,
}

impl Quota {
    /// Of so many packets; of any number for `None`.
    #[must_use]
    pub const fn new(packets: Option<u64>) -> Self {
        Self {
            left: AtomicU64::new(match packets {
                Some(n) => n,
                None => u64::MAX,
            }),
        }
    }

    /// Takes one packet off; false where none is left.
    #[inline]
    pub fn take(&self) -> bool {
        self.take_up_to(1) == 1
    }

    /// Takes as many packets off as there are left, `wanted` at most, and says how many.
    #[inline]
    pub fn take_up_to(&self, wanted: u64) -> u64 {
        let left = self.left.load(Ordering::Relaxed);
        if left == u64::MAX {
            return wanted;
        }
        let taken = |left: u64| (left != u64::MAX).then(|| left.saturating_sub(wanted));
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .map_or(wanted, |before| before.min(wanted))
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// How often a source that has nothing to say says so: a heartbeat carries its watermark, for which the collector's
/// merge waits. An idle device holds others up for this long, and for as long as the kernel keeps packets back (60 ms).
pub const HEARTBEAT: Duration = Duration::from_millis(75);

/// This machine's clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_used_up_exactly() {
        let quota = Quota::new(Some(5));
        assert_eq!(
            (quota.take_up_to(3), quota.take(), quota.take_up_to(3), quota.take()),
            (3, true, 1, false)
        );
        assert!(quota.is_used_up());
        let endless = Quota::new(None);
        assert_eq!((endless.take_up_to(7), endless.is_used_up()), (7, false));
    }
}
