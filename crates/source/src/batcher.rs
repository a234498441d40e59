//! From packets to batches.
//!
//! A source pushes its packets one at a time and passes the current time with them; finished batches are taken out with
//! [`Batcher::poll_batch`]. Nothing here reads a clock.
//!
//! Every batch carries a watermark: no later batch of the same interface holds an older packet. The collector's merge
//! waits for it, so an interface without packets sends an empty batch, a heartbeat, every [`HEARTBEAT`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use batch::{Batch, Builder, CloseInfo, Interface, Order, Template};
use packet::{Record, Timestamp};

use crate::context::{CaptureContext, InterfaceOrder};

/// How often an interface without packets sends its watermark. An idle device delays the merge by this much, plus the
/// 60 ms for which the kernel holds packets back.
pub const HEARTBEAT: Duration = Duration::from_millis(75);

/// How far packets of a device can be out of order: each CPU that receives stamps its packets and puts them into the
/// kernel's ring a little later. The newest packets are held back for this long, so that later ones can be sorted in.
const DISORDER: Duration = Duration::from_micros(500);

/// Longer than any batch stays open (`BATCH_DELAY` is at most 10 s). A due time further ahead was computed before the
/// clock was set back.
const MAX_AHEAD: Duration = Duration::from_secs(11);

/// Buffers to keep for the next batches: reading from a device once can close a few of them.
const SPARE_BUFFERS: usize = 2;

/// An interface of a source: the number that `open` returned for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceSlot(pub(crate) usize);

/// How the packets of a source arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// From this host's kernel, with times of this host's clock.
    Live,
    /// Through a pipe, with times of an unknown clock.
    Piped,
    /// From a file, as fast as it can be read. Batches are closed when they are full, never by age.
    Stored,
}

impl Timing {
    /// Files and pipes keep their own order. A device with several CPUs does not have one.
    const fn order(self) -> Order {
        match self {
            Self::Live => Order::ByTime,
            Self::Piped | Self::Stored => Order::AsTheyCame,
        }
    }
}

/// Collects packets into batches, one open batch per interface.
#[derive(Debug)]
pub struct Batcher {
    context: CaptureContext,
    timing: Timing,
    slots: Vec<Slot>,
    /// Closed batches, oldest first.
    ready: VecDeque<Batch>,
    /// Memory for the next batches.
    spare: Vec<Vec<u8>>,
    /// The latest time that the source has read, of any interface, including packets that a filter removed.
    source_time: Timestamp,
    /// Files: the interface of the previous packet.
    last_slot: Option<InterfaceSlot>,
    /// A stage above still holds packets that may be this old.
    held_back: Option<Timestamp>,
}

/// The open batch of one interface, and its counters.
#[derive(Debug)]
struct Slot {
    builder: Builder,
    /// Packets pushed.
    captured: u64,
    dropped_kernel: u64,
    dropped_interface: u64,
    /// The time of the latest packet pushed.
    latest: Timestamp,
    /// When the next heartbeat is due.
    heartbeat: Timestamp,
}

impl Slot {
    fn close_info(&self, watermark: Timestamp, ends: bool) -> CloseInfo {
        CloseInfo {
            watermark,
            captured: self.captured,
            dropped_kernel: self.dropped_kernel,
            dropped_interface: self.dropped_interface,
            ends,
        }
    }

    fn close(&mut self, watermark: Timestamp, spare: &mut Vec<Vec<u8>>) -> Batch {
        let info = self.close_info(watermark, false);
        self.builder.close(info, || spare.pop().unwrap_or_default())
    }

    /// Closes the batch without the packets later than `horizon`, which go into the next one. Returns `None` if all of
    /// them are later, and the batch may still grow.
    fn close_until(
        &mut self,
        horizon: Timestamp,
        watermark: Timestamp,
        spare: &mut Vec<Vec<u8>>,
    ) -> Option<Batch> {
        let info = self.close_info(watermark, false);
        self.builder.close_until(horizon, info, || spare.pop().unwrap_or_default())
    }

    /// When the batch or the next heartbeat is due.
    fn due(&self) -> Timestamp {
        self.builder.due().unwrap_or(self.heartbeat)
    }
}

impl Batcher {
    /// A batcher without interfaces.
    #[must_use]
    pub fn new(context: CaptureContext, timing: Timing) -> Self {
        Self {
            context,
            timing,
            slots: Vec::new(),
            ready: VecDeque::new(),
            spare: Vec::new(),
            source_time: Timestamp::ZERO,
            last_slot: None,
            held_back: None,
        }
    }

    /// Adds an interface. Its first heartbeat is due at once, so that the collector knows it before it has packets.
    pub fn open(&mut self, interface: Arc<Interface>) -> InterfaceSlot {
        let builder = self.builder(interface);
        self.slots.push(Slot {
            builder,
            captured: 0,
            dropped_kernel: 0,
            dropped_interface: 0,
            latest: Timestamp::ZERO,
            heartbeat: Timestamp::ZERO,
        });
        InterfaceSlot(self.slots.len() - 1)
    }

    fn builder(&self, interface: Arc<Interface>) -> Builder {
        let template = Template::new(interface, self.context.epoch);
        Builder::new(template, self.context.limits, self.timing.order())
    }

    /// Adds a packet that arrived at `now`, wall clock time. Returns false if `MAX_PACKETS` was reached.
    #[inline]
    pub fn push(&mut self, slot: InterfaceSlot, record: &Record<'_>, now: Timestamp) -> bool {
        if !self.context.quota.take() {
            return false;
        }
        if self.timing != Timing::Live {
            self.make_room_file(slot, record);
        }
        let Self { slots, ready, spare, timing, held_back, .. } = self;
        let Some(state) = slots.get_mut(slot.0) else { return false };
        let opened = match timing {
            Timing::Live => {
                // A full batch is closed, but for the packets that others may still precede.
                if state.builder.is_full_for(record.bytes.len()) {
                    let horizon = state.latest - DISORDER;
                    ready.extend(state.close_until(horizon, not_after(horizon, *held_back), spare));
                }
                // The packet has waited in the kernel since then.
                record.time
            }
            Timing::Piped => now,
            Timing::Stored => Timestamp::MAX,
        };
        state.builder.push(record, || opened);
        state.captured += 1;
        state.latest = state.latest.max(record.time);
        true
    }

    /// Closes the batches of all interfaces when one is full: none of a file's interfaces then delays another at the
    /// collector.
    #[inline]
    fn make_room_file(&mut self, slot: InterfaceSlot, record: &Record<'_>) {
        self.source_time = self.source_time.max(record.time);
        let full = self.slots.get(slot.0).is_some_and(|state| state.builder.is_full_for(record.bytes.len()));
        match (self.context.interface_order, self.last_slot) {
            (InterfaceOrder::Interleaved, _) if full => self.flush(),
            // Only the interface of the previous packet can have packets.
            (InterfaceOrder::FileOrder, Some(last)) if full || last != slot => self.close_slot(last),
            _ => {}
        }
        self.last_slot = Some(slot);
    }

    /// Closes the batch of one interface of a file.
    fn close_slot(&mut self, slot: InterfaceSlot) {
        let watermark = not_after(self.source_time, self.held_back);
        if let Some(state) = self.slots.get_mut(slot.0) {
            self.ready.push_back(state.close(watermark, &mut self.spare));
        }
    }

    /// Closes the batches of all interfaces of a file.
    fn flush(&mut self) {
        let watermark = not_after(self.source_time, self.held_back);
        for state in &mut self.slots {
            self.ready.push_back(state.close(watermark, &mut self.spare));
        }
    }

    /// The source has read up to this time: for packets that a filter removed, or that are still held back.
    #[inline]
    pub fn advance_source_time(&mut self, time: Timestamp) {
        self.source_time = self.source_time.max(time);
    }

    /// The latest time that the source has read.
    #[must_use]
    pub fn source_time(&self) -> Timestamp {
        self.source_time
    }

    /// A stage above holds packets back, the oldest of this time. Watermarks stay at or below it.
    pub fn hold_back(&mut self, oldest: Option<Timestamp>) {
        self.held_back = oldest;
    }

    /// Sets how many packets the kernel and the interface have dropped so far.
    pub fn set_dropped(&mut self, slot: InterfaceSlot, kernel: u64, interface: u64) {
        if let Some(state) = self.slots.get_mut(slot.0) {
            state.dropped_kernel = kernel;
            state.dropped_interface = interface;
        }
    }

    /// Changes the description of an interface, for example when `any` has learned further names.
    pub fn describe(&mut self, slot: InterfaceSlot, interface: Arc<Interface>) {
        let builder = self.builder(interface);
        if let Some(state) = self.slots.get_mut(slot.0) {
            if !state.builder.is_empty() {
                let watermark = not_after(state.latest - DISORDER, self.held_back);
                self.ready.push_back(state.close(watermark, &mut self.spare));
            }
            state.builder = builder;
        }
    }

    /// Closes the batches that are due, and sends heartbeats. `watermark`: no later packet of any interface is older.
    /// `None`: unknown, because more packets have arrived than could be read.
    pub fn tick(&mut self, now: Timestamp, watermark: Option<Timestamp>) {
        let Self { slots, ready, spare, held_back, source_time, timing, .. } = self;
        for state in slots {
            let due = state.due();
            if now < due && due < now + MAX_AHEAD {
                continue;
            }
            match (timing.order(), watermark) {
                (Order::AsTheyCame, _) => {
                    let watermark = watermark.unwrap_or_default().max(*source_time);
                    ready.push_back(state.close(not_after(watermark, *held_back), spare));
                }
                (Order::ByTime, Some(watermark)) => {
                    let horizon = now - DISORDER;
                    let watermark = watermark.max(state.latest.min(horizon) - DISORDER);
                    ready.extend(state.close_until(horizon, not_after(watermark, *held_back), spare));
                }
                (Order::ByTime, None) => {
                    // Packets are read in the order of the ring: what this source reads next is not much older.
                    let horizon = state.latest.max(*source_time) - DISORDER;
                    ready.extend(state.close_until(horizon, not_after(horizon, *held_back), spare));
                }
            }
            state.heartbeat = now + HEARTBEAT;
        }
    }

    /// How long until [`Batcher::tick`] has something to do. At most [`HEARTBEAT`].
    #[must_use]
    pub fn time_until_due(&self, now: Timestamp) -> Duration {
        let next = self.slots.iter().map(Slot::due).min().unwrap_or(Timestamp::MAX);
        next.since(now).min(HEARTBEAT)
    }

    /// Ends every interface: its last batch says so. `watermark` is the minimum for these batches.
    pub fn end(&mut self, watermark: Timestamp) {
        for mut state in self.slots.drain(..) {
            let info = state.close_info(watermark.max(state.latest).max(self.source_time), true);
            self.ready.push_back(state.builder.close(info, Vec::new));
        }
    }

    /// The next closed batch.
    pub fn poll_batch(&mut self) -> Option<Batch> {
        self.ready.pop_front()
    }

    /// Whether a closed batch waits to be taken.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether memory for a batch would be used soon.
    #[must_use]
    pub fn wants_buffer(&self) -> bool {
        self.spare.len() < SPARE_BUFFERS
    }

    /// Takes the memory of an earlier batch.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.spare.push(buffer);
    }
}

/// `watermark`, but not later than a packet that is still held back.
fn not_after(watermark: Timestamp, held_back: Option<Timestamp>) -> Timestamp {
    held_back.map_or(watermark, |oldest| oldest.min(watermark))
}

#[cfg(test)]
mod tests;
