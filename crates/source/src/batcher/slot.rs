//! The open batch of one interface, and its counters.

use batch::{Batch, Builder, CloseInfo};
use packet::Timestamp;

/// The open batch of one interface, and its counters.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) builder: Builder,
    /// When this run of the interface began.
    pub(super) epoch: Timestamp,
    /// Packets pushed.
    pub(super) captured: u64,
    pub(super) dropped_kernel: u64,
    pub(super) dropped_interface: u64,
    /// The time of the latest packet pushed, unless the clock was set back since.
    pub(super) latest: Timestamp,
    /// When the next heartbeat is due.
    pub(super) heartbeat: Timestamp,
}

impl Slot {
    pub(super) fn new(builder: Builder, epoch: Timestamp) -> Self {
        Self {
            builder,
            epoch,
            captured: 0,
            dropped_kernel: 0,
            dropped_interface: 0,
            latest: Timestamp::ZERO,
            heartbeat: Timestamp::ZERO,
        }
    }

    fn close_info(&self, watermark: Timestamp, ends: bool) -> CloseInfo {
        CloseInfo {
            watermark,
            captured: self.captured,
            dropped_kernel: self.dropped_kernel,
            dropped_interface: self.dropped_interface,
            ends,
        }
    }

    pub(super) fn close(&mut self, watermark: Timestamp, spare: &mut Vec<Vec<u8>>) -> Batch {
        let info = self.close_info(watermark, false);
        self.builder.close(info, || spare.pop().unwrap_or_default())
    }

    /// Closes the batch without the packets later than `horizon`, which go into the next one. Returns `None` if all of
    /// them are later, and the batch may still grow.
    pub(super) fn close_until(
        &mut self,
        horizon: Timestamp,
        watermark: Timestamp,
        spare: &mut Vec<Vec<u8>>,
    ) -> Option<Batch> {
        let info = self.close_info(watermark, false);
        self.builder.close_until(horizon, info, || spare.pop().unwrap_or_default())
    }

    /// The last batch of this run. `watermark` is its minimum.
    pub(super) fn end(mut self, watermark: Timestamp) -> Batch {
        let info = self.close_info(watermark.max(self.latest), true);
        self.builder.close(info, Vec::new)
    }

    /// When the batch or the next heartbeat is due.
    pub(super) fn due(&self) -> Timestamp {
        self.builder.due().unwrap_or(self.heartbeat)
    }
}
