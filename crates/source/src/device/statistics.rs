//! The kernel's counters of a capture: packets received, and packets it had no room for.

#![expect(
    unsafe_code,
    reason = "libpcap does not pass on the ring's freezes, and the crates' getsockopt needs one fixed length of the answer"
)]

use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::handle::Handle;
use super::interfaces;

/// Counters of one device, shared with the metrics.
#[derive(Debug, Default)]
pub struct DeviceCounts {
    /// Packets that passed the filter, including those dropped.
    pub received: AtomicU64,
    /// Packets dropped by the kernel because its buffer was full.
    pub dropped_kernel: AtomicU64,
    /// Packets dropped by the interface or its driver.
    pub dropped_interface: AtomicU64,
    /// How often the kernel's ring was full and frozen (`tp_freeze_q_cnt`).
    pub queue_freezes: AtomicU64,
}

/// The counters of one device's capture.
#[derive(Debug)]
pub(super) struct Statistics {
    device: Box<str>,
    counts: Arc<DeviceCounts>,
    /// The interface's own drop counter when the capture started.
    interface_before: u64,
}

impl Statistics {
    pub(super) fn new(device: &str) -> Self {
        Self { device: device.into(), counts: Arc::default(), interface_before: interface_drops(device) }
    }

    pub(super) fn counts(&self) -> Arc<DeviceCounts> {
        Arc::clone(&self.counts)
    }

    pub(super) fn dropped_kernel(&self) -> u64 {
        self.counts.dropped_kernel.load(Ordering::Relaxed)
    }

    pub(super) fn dropped_interface(&self) -> u64 {
        self.counts.dropped_interface.load(Ordering::Relaxed)
    }

    /// Reads the kernel's counters.
    pub(super) fn read(&mut self, handle: &Handle) {
        let since = KernelCounts::read(handle);
        self.counts.received.fetch_add(since.packets, Ordering::Relaxed);
        self.counts.dropped_kernel.fetch_add(since.drops, Ordering::Relaxed);
        self.counts.queue_freezes.fetch_add(since.freezes, Ordering::Relaxed);
        let dropped = interface_drops(&self.device).saturating_sub(self.interface_before);
        self.counts.dropped_interface.store(dropped, Ordering::Relaxed);
    }
}

/// Packets that the interface dropped since it came up, as libpcap's `ps_ifdrop` counts them on Linux.
fn interface_drops(device: &str) -> u64 {
    interfaces::statistic(device, "rx_missed_errors") + interfaces::statistic(device, "rx_fifo_errors")
}

/// The kernel's counters since they were last read (`PACKET_STATISTICS`, packet(7)). Reading resets them, so
/// `pcap_stats` is never called beside this.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KernelCounts {
    /// Packets that passed the filter, including those dropped.
    pub(super) packets: u64,
    /// Packets that the ring had no room for.
    pub(super) drops: u64,
    freezes: u64,
}

impl KernelCounts {
    pub(super) fn read(handle: &Handle) -> Self {
        // SAFETY: all zeros is a valid value of this struct of integers.
        let mut counts: libc::tpacket_stats_v3 = unsafe { mem::zeroed() };
        let mut len = mem::size_of_val(&counts) as libc::socklen_t;
        // SAFETY: `counts` is writable for `len` bytes, and the kernel writes no more than that.
        let failed = unsafe {
            libc::getsockopt(
                handle.fd().as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut len,
            )
        };
        // A device without a packet socket (USB, Bluetooth) has no such counters.
        if failed != 0 {
            return Self::default();
        }
        Self {
            packets: counts.tp_packets.into(),
            drops: counts.tp_drops.into(),
            // Only version 3 of the ring has this counter. For other versions the kernel writes fewer bytes.
            freezes: counts.tp_freeze_q_cnt.into(),
        }
    }
}
