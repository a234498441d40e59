//! What the kernel says of a device's capture: how many packets it saw, how many it could not keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::handle::Handle;
use super::names;

/// Counters of one device, shared with who exposes them.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that passed the filter, those dropped included.
    pub received: AtomicU64,
    /// Packets dropped by the kernel: its buffer was full.
    pub dropped_kernel: AtomicU64,
    /// Packets dropped by the interface or its driver.
    pub dropped_interface: AtomicU64,
    /// How often the kernel's ring was full, and frozen until there was room (`tp_freeze_q_cnt`).
    pub queue_freezes: AtomicU64,
}

/// The counters of one device's capture.
#[derive(Debug)]
pub(super) struct Statistics {
    device: Box<str>,
    counts: Arc<Counts>,
    /// The interface's own count when the capture began.
    interface_before: u64,
}

impl Statistics {
    pub(super) fn new(device: &str, handle: &Handle) -> Self {
        let mut statistics =
            Self { device: device.into(), counts: Arc::default(), interface_before: interface_drops(device) };
        statistics.read(handle);
        statistics
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    pub(super) fn dropped_kernel(&self) -> u64 {
        self.counts.dropped_kernel.load(Ordering::Relaxed)
    }

    pub(super) fn dropped_interface(&self) -> u64 {
        self.counts.dropped_interface.load(Ordering::Relaxed)
    }

    /// Asks the kernel.
    pub(super) fn read(&mut self, handle: &Handle) {
        let since = handle.kernel_counts();
        self.counts.received.fetch_add(since.packets, Ordering::Relaxed);
        self.counts.dropped_kernel.fetch_add(since.drops, Ordering::Relaxed);
        self.counts.queue_freezes.fetch_add(since.freezes, Ordering::Relaxed);
        let dropped = interface_drops(&self.device).saturating_sub(self.interface_before);
        self.counts.dropped_interface.store(dropped, Ordering::Relaxed);
    }
}

/// Packets that the interface had no room for since it came up: what libpcap's `ps_ifdrop` counts on Linux.
fn interface_drops(device: &str) -> u64 {
    names::statistic(device, "rx_missed_errors") + names::statistic(device, "rx_fifo_errors")
}
