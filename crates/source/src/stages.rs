//! What happens to a packet between its source and its batch: decapsulation, then the filter, then the batcher.
//!
//! Each stage hands packets down to the next one, and batches are taken from the last.

use std::sync::Arc;
use std::time::Duration;

use batch::{Batch, Interface};
use packet::{Record, Timestamp};

use crate::batcher::{Batcher, InterfaceSlot, Timing};
use crate::context::CaptureContext;
use crate::decapsulation::Decapsulation;
use crate::filter::{FilterSpec, FilteredBatcher};
use crate::tzsp::TzspReport;

/// What happens to the frames of a source.
#[derive(Clone, Debug)]
pub struct StagesConfig {
    /// The filter and the snaplen; [`FilterSpec::KEEP_ALL`] if the kernel applies them. With TZSP, they apply to the packets
    /// that are unpacked.
    pub filter: FilterSpec,
    /// The UDP ports whose TZSP is unpacked; `None` captures the frames themselves.
    pub tzsp_ports: Option<Vec<u16>>,
}

impl StagesConfig {
    /// Frames are captured as they are.
    pub const NONE: Self = Self { filter: FilterSpec::KEEP_ALL, tzsp_ports: None };

    /// Whether frames are captured as they are.
    pub(crate) const fn is_none(&self) -> bool {
        self.filter.keeps_all() && self.tzsp_ports.is_none()
    }
}

/// The stages after a source of frames: a device or a file.
#[derive(Debug)]
pub(crate) enum Stages {
    /// Frames go into batches as they are.
    Batched(Batcher),
    /// Frames are filtered and cut.
    Filtered(FilteredBatcher),
    /// Packets are unpacked from the frames, then filtered and cut.
    Decapsulated(Box<Decapsulation>),
}

impl Stages {
    /// The stages that `config` requires.
    pub(crate) fn new(context: CaptureContext, timing: Timing, config: &StagesConfig) -> Self {
        let source = Arc::clone(&context.source);
        let batcher = Batcher::new(context, timing);
        match &config.tzsp_ports {
            None if config.filter.keeps_all() => Self::Batched(batcher),
            None => Self::Filtered(FilteredBatcher::new(config.filter.clone(), batcher)),
            Some(ports) => {
                let below = FilteredBatcher::new(config.filter.clone(), batcher);
                Self::Decapsulated(Box::new(Decapsulation::new(ports, source, timing, below)))
            }
        }
    }

    /// Adds an interface.
    pub(crate) fn open(&mut self, interface: Arc<Interface>) -> InterfaceSlot {
        match self {
            Self::Batched(batcher) => batcher.open(interface),
            Self::Filtered(filtered) => filtered.open(&interface),
            Self::Decapsulated(decapsulation) => decapsulation.open(interface),
        }
    }

    /// Takes a frame that arrived at `now`. Returns false if `MAX_PACKETS` was reached.
    #[inline]
    pub(crate) fn push(&mut self, slot: InterfaceSlot, record: &Record<'_>, now: Timestamp) -> bool {
        match self {
            Self::Batched(batcher) => batcher.push(slot, record, now),
            Self::Filtered(filtered) => filtered.push(slot, record, now),
            Self::Decapsulated(decapsulation) => decapsulation.push(slot, record, now),
        }
    }

    /// Sets how many frames the kernel and the interface have dropped so far.
    pub(crate) fn set_dropped(&mut self, slot: InterfaceSlot, kernel: u64, interface: u64) {
        match self {
            Self::Decapsulated(decapsulation) => decapsulation.set_dropped(slot, kernel, interface),
            _ => self.batcher().set_dropped(slot, kernel, interface),
        }
    }

    /// Changes the description of an interface.
    pub(crate) fn describe(&mut self, slot: InterfaceSlot, interface: Arc<Interface>) {
        match self {
            Self::Batched(batcher) => batcher.describe(slot, interface),
            Self::Filtered(filtered) => filtered.describe(slot, &interface),
            // Packets from a tunnel have their own interfaces.
            Self::Decapsulated(_) => {}
        }
    }

    /// Closes what is due: see [`Batcher::tick`].
    pub(crate) fn tick(&mut self, now: Timestamp, watermark: Option<Timestamp>) {
        if let Self::Decapsulated(decapsulation) = self {
            decapsulation.advance(now, watermark);
        }
        self.batcher().tick(now, watermark);
    }

    /// How long until [`Stages::tick`] has something to do.
    pub(crate) fn time_until_due(&mut self, now: Timestamp) -> Duration {
        self.batcher().time_until_due(now)
    }

    /// Ends every interface: see [`Batcher::end`].
    pub(crate) fn end(&mut self, watermark: Timestamp) {
        if let Self::Decapsulated(decapsulation) = self {
            decapsulation.finish();
        }
        self.batcher().end(watermark);
    }

    /// The counters of the TZSP ports, where TZSP is unpacked.
    pub(crate) fn tzsp_report(&self) -> Option<TzspReport> {
        match self {
            Self::Decapsulated(decapsulation) => Some(decapsulation.report()),
            Self::Batched(_) | Self::Filtered(_) => None,
        }
    }

    /// Whether a closed batch waits to be taken.
    pub(crate) fn has_batch(&mut self) -> bool {
        self.batcher().has_batch()
    }

    /// The next closed batch.
    pub(crate) fn poll_batch(&mut self) -> Option<Batch> {
        self.batcher().poll_batch()
    }

    /// The last stage.
    pub(crate) fn batcher(&mut self) -> &mut Batcher {
        match self {
            Self::Batched(batcher) => batcher,
            Self::Filtered(filtered) => &mut filtered.batcher,
            Self::Decapsulated(decapsulation) => &mut decapsulation.below.batcher,
        }
    }
}
