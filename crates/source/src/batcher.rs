//! From packets to batches.
//!
//! A source pushes its packets one at a time and passes the current time with them; finished batches are taken out with
//! [`Batcher::poll_batch`]. Nothing here reads a clock.
//!
//! Every batch carries a watermark: no later batch of the same interface holds an older packet. The collector's merge
//! waits for it, so an interface without packets sends an empty batch, a heartbeat, every [`HEARTBEAT`].

mod slot;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use batch::{Batch, Builder, Interface, Order, Template};
use packet::{Record, Timestamp};

use crate::clock::{is_due, latest_piped};
use crate::context::{CaptureContext, InterfaceOrder};
use slot::Slot;

/// How often an interface without packets sends its watermark. An idle device delays the merge by this much, plus the
/// 60 ms for which the kernel holds packets back.
pub const HEARTBEAT: Duration = Duration::from_millis(75);

/// How far packets of a device can be out of order: each CPU that receives stamps its packets and puts them into the
/// kernel's ring a little later. The newest packets are held back for this long, so that later ones can be sorted in.
const DISORDER: Duration = Duration::from_micros(500);

/// How far packets of this host can be ahead of its clock, which is read before them. Services that keep the time set it
/// back at once only by more than this.
const CLOCK_AHEAD: Duration = Duration::from_millis(100);

/// Memory that the open batches of all interfaces reserve in advance, in bytes: a batch of the default size for each of
/// 64 interfaces. Any host can add interfaces to a TZSP port; with more of them, each reserves less, and grows.
const RESERVED: usize = 16 << 20;

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
    /// `None`: the interface has ended, and its slot is free.
    slots: Vec<Option<Slot>>,
    /// The epoch of the interface that was opened last.
    epoch: Timestamp,
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

impl Batcher {
    /// A batcher without interfaces.
    #[must_use]
    pub fn new(context: CaptureContext, timing: Timing) -> Self {
        Self {
            epoch: context.epoch,
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
        self.insert(interface, self.context.epoch)
    }

    /// Adds an interface at `now`, because a packet of the time `packet` came from it. It may have ended before: this is
    /// another run of it, with an epoch of its own. Its first heartbeat is ready, so that the merge waits for the packet.
    pub fn open_at(&mut self, interface: Arc<Interface>, packet: Timestamp, now: Timestamp) -> InterfaceSlot {
        if self.timing == Timing::Stored {
            // No interface of a file ends before the file does.
            return self.open(interface);
        }
        // Later than the epochs of all interfaces before, even if the clock was set back.
        self.epoch = now.max(self.epoch + Duration::from_nanos(1));
        let slot = self.insert(interface, self.epoch);
        if let Some(Some(state)) = self.slots.get_mut(slot.0) {
            let watermark = not_after(packet - DISORDER, self.held_back);
            self.ready.push_back(state.close(watermark, &mut self.spare));
            state.heartbeat = now + HEARTBEAT;
        }
        slot
    }

    fn insert(&mut self, interface: Arc<Interface>, epoch: Timestamp) -> InterfaceSlot {
        let state = Some(Slot::new(self.builder(interface, epoch), epoch));
        match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = state;
                InterfaceSlot(free)
            }
            None => {
                self.slots.push(state);
                InterfaceSlot(self.slots.len() - 1)
            }
        }
    }

    fn builder(&self, interface: Arc<Interface>, epoch: Timestamp) -> Builder {
        let template = Template::new(interface, epoch);
        let reserved = RESERVED / self.slots.len().max(1);
        Builder::new(template, self.context.limits, self.timing.order()).with_reserve(reserved)
    }

    /// Ends one interface: its last batch says so, and its slot becomes free.
    pub fn end_interface(&mut self, slot: InterfaceSlot) {
        if let Some(state) = self.slots.get_mut(slot.0).and_then(Option::take) {
            self.ready.push_back(state.end(Timestamp::ZERO));
        }
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
        let Some(Some(state)) = slots.get_mut(slot.0) else { return false };
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
        self.advance_source_time(record.time);
        let full = self.slot(slot).is_some_and(|state| state.builder.is_full_for(record.bytes.len()));
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
        if let Some(Some(state)) = self.slots.get_mut(slot.0) {
            self.ready.push_back(state.close(watermark, &mut self.spare));
        }
    }

    fn slot(&self, slot: InterfaceSlot) -> Option<&Slot> {
        self.slots.get(slot.0)?.as_ref()
    }

    /// Closes the batches of all interfaces of a file.
    fn flush(&mut self) {
        let watermark = not_after(self.source_time, self.held_back);
        for state in self.slots.iter_mut().flatten() {
            self.ready.push_back(state.close(watermark, &mut self.spare));
        }
    }

    /// The source has read up to this time: for packets that a filter removed, or that are still held back.
    #[inline]
    pub fn advance_source_time(&mut self, time: Timestamp) {
        self.source_time = match self.timing {
            Timing::Piped => latest_piped(self.source_time, time),
            // A file has no clock, and `tick` follows that of this host.
            Timing::Live | Timing::Stored => self.source_time.max(time),
        };
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
        if let Some(Some(state)) = self.slots.get_mut(slot.0) {
            state.dropped_kernel = kernel;
            state.dropped_interface = interface;
        }
    }

    /// Changes the description of an interface, for example when `any` has learned further names.
    pub fn describe(&mut self, slot: InterfaceSlot, interface: Arc<Interface>) {
        let Some(epoch) = self.slot(slot).map(|state| state.epoch) else { return };
        let builder = self.builder(interface, epoch);
        if let Some(Some(state)) = self.slots.get_mut(slot.0) {
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
        if self.timing == Timing::Live {
            self.follow_clock(now, watermark);
        }
        let crowded = self.slots.len().saturating_mul(self.context.limits.bytes) > RESERVED;
        let ahead = self.context.limits.delay.max(HEARTBEAT);
        let Self { slots, ready, spare, held_back, source_time, timing, .. } = self;
        for state in slots.iter_mut().flatten() {
            if !is_due(state.due(), now, ahead) {
                continue;
            }
            let idle = state.builder.is_empty();
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
            if idle || crowded {
                state.builder.release_memory();
            }
        }
    }

    /// If the clock was set back, forgets the times from before: later packets are older, and no watermark may follow from
    /// them. The open batches close, because their packets are ahead of the clock and would be held back.
    fn follow_clock(&mut self, now: Timestamp, watermark: Option<Timestamp>) {
        let newest = now + CLOCK_AHEAD;
        if self.source_time > newest {
            self.source_time = Timestamp::ZERO;
        }
        let watermark = not_after(watermark.unwrap_or_default(), self.held_back);
        for state in self.slots.iter_mut().flatten().filter(|state| state.latest > newest) {
            state.latest = Timestamp::ZERO;
            if !state.builder.is_empty() {
                self.ready.push_back(state.close(watermark, &mut self.spare));
            }
        }
    }

    /// How long until [`Batcher::tick`] has something to do. At most [`HEARTBEAT`].
    #[must_use]
    pub fn time_until_due(&self, now: Timestamp) -> Duration {
        let next = self.slots.iter().flatten().map(Slot::due).min().unwrap_or(Timestamp::MAX);
        next.since(now).min(HEARTBEAT)
    }

    /// Ends every interface: its last batch says so. `watermark` is the minimum for these batches.
    pub fn end(&mut self, watermark: Timestamp) {
        let watermark = watermark.max(self.source_time);
        self.ready.extend(self.slots.drain(..).flatten().map(|state| state.end(watermark)));
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
