//! What all sources of one capture share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use batch::BatchLimits;
use packet::Timestamp;

/// What all sources of one capture share.
#[derive(Clone, Debug)]
pub struct CaptureContext {
    /// This capture's name at the collector (`SOURCE_NAME`).
    pub source: Arc<str>,
    /// When this capture started. It tells this run from earlier and later runs of the same source.
    pub epoch: Timestamp,
    /// When a batch is closed.
    pub limits: BatchLimits,
    /// Set when the capture is to stop.
    pub stop: Arc<AtomicBool>,
    /// How many packets may still be captured.
    pub quota: Arc<Quota>,
    /// How the interfaces of one file share its batches.
    pub interface_order: InterfaceOrder,
}

/// How the interfaces of one file share its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceOrder {
    /// Each interface fills its own batch, and all batches are closed together. A merge restores the order.
    Interleaved,
    /// A batch is closed where the next packet belongs to another interface. Readers that have no merge, such as the
    /// observers of `MODE=observe`, then see the packets in the file's order.
    FileOrder,
}

impl CaptureContext {
    /// Whether the capture is to stop, by request or because `MAX_PACKETS` was reached.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.quota.is_used_up()
    }
}

/// How many packets may still be captured (`MAX_PACKETS`), over all sources of the capture.
#[derive(Debug)]
pub struct Quota {
    /// `u64::MAX` means no limit.
    left: AtomicU64,
}

impl Quota {
    /// A quota of that many packets; `None` means no limit.
    #[must_use]
    pub const fn new(packets: Option<u64>) -> Self {
        let left = match packets {
            Some(packets) => packets,
            None => u64::MAX,
        };
        Self { left: AtomicU64::new(left) }
    }

    /// Takes one packet from the quota. Returns false if none is left.
    #[inline]
    pub fn take(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left == u64::MAX {
            return true;
        }
        let taken = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// Wall clock time.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_ends_exactly() {
        let quota = Quota::new(Some(2));
        assert_eq!([quota.take(), quota.take(), quota.take()], [true, true, false]);
        assert!(quota.is_used_up());
        let unlimited = Quota::new(None);
        assert_eq!((unlimited.take(), unlimited.is_used_up()), (true, false));
    }
}
