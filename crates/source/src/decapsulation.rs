//! The stage that unpacks TZSP from frames: those of a device that the datagrams pass, or of a file.
//!
//! Unlike a socket it also sees datagrams that were truncated in transit or lost a fragment.

use std::sync::Arc;

use batch::Interface;
use packet::reassembly::ReassemblyLimits;
use packet::{LinkType, Record, Timestamp};

use crate::batcher::{InterfaceSlot, Timing};
use crate::context::now;
use crate::filter::FilteredBatcher;
use crate::senders::Senders;
use crate::tzsp::{TzspCounters, TzspFromFrames, TzspReport};

/// The least memory for the incomplete datagrams of an interface, in bytes: one datagram of the largest size. All
/// interfaces share the memory of [`ReassemblyLimits::default`]; a file may have thousands.
const MIN_REASSEMBLY: usize = 64 << 10;

/// How many frames may be missing from the report while a file is read.
const REPORT_INTERVAL: u32 = 4096;

/// Unpacks the packets in TZSP datagrams. Each sender becomes a separate interface.
#[derive(Debug)]
pub(crate) struct Decapsulation {
    ports: Vec<u16>,
    senders: Senders,
    interfaces: Vec<FrameInterface>,
    pub(crate) below: FilteredBatcher,
    report: TzspReport,
    /// Frames since the report was updated.
    unreported: u32,
    /// Whether packet time advances with each frame: files. On a device it advances with the watermarks.
    frames_in_order: bool,
}

/// An interface that frames come from.
#[derive(Debug)]
struct FrameInterface {
    frames: TzspFromFrames,
    /// Its own slot in the batcher: it has no packets, but carries the number of frames that the kernel dropped.
    slot: InterfaceSlot,
}

impl Decapsulation {
    pub(crate) fn new(ports: &[u16], source: Arc<str>, timing: Timing, below: FilteredBatcher) -> Self {
        Self {
            ports: ports.to_vec(),
            senders: Senders::new(source),
            interfaces: Vec::new(),
            below,
            report: TzspReport::new(ports.iter().copied()),
            unreported: 0,
            frames_in_order: timing != Timing::Live,
        }
    }

    /// The counters of each port, shared.
    pub(crate) fn report(&self) -> TzspReport {
        self.report.clone()
    }

    pub(crate) fn open(&mut self, interface: Arc<Interface>) -> InterfaceSlot {
        let limits = ReassemblyLimits::default();
        let frames = TzspFromFrames::new(interface.link_type, &self.ports, limits);
        // Classic pcap takes the link type of the first interface, and most senders' packets are Ethernet.
        let described = Interface { link_type: LinkType::ETHERNET, ..(*interface).clone() };
        let slot = self.below.open(&described);
        self.interfaces.push(FrameInterface { frames, slot });
        let memory = (limits.memory / self.interfaces.len()).max(MIN_REASSEMBLY);
        for interface in &mut self.interfaces {
            interface.frames.set_memory_limit(memory);
        }
        InterfaceSlot(self.interfaces.len() - 1)
    }

    /// Unpacks a frame that arrived at `now`. Returns false if `MAX_PACKETS` was reached.
    #[inline]
    pub(crate) fn push(&mut self, slot: InterfaceSlot, frame: &Record<'_>, now: Timestamp) -> bool {
        let Self { interfaces, senders, below, .. } = self;
        let Some(interface) = interfaces.get_mut(slot.0) else { return false };
        let mut wanted = true;
        interface.frames.handle_frame(frame, &mut |datagram| wanted &= senders.push(&datagram, below, now));
        if self.frames_in_order {
            interface.frames.advance(frame.time, &mut |datagram| {
                wanted &= senders.push(&datagram, below, now);
            });
        }
        below.batcher.advance_source_time(frame.time);
        self.hold_back();
        self.unreported += 1;
        if self.unreported >= REPORT_INTERVAL {
            self.update_report();
        }
        wanted
    }

    pub(crate) fn set_dropped(&mut self, slot: InterfaceSlot, kernel: u64, interface: u64) {
        if let Some(known) = self.interfaces.get(slot.0) {
            self.below.batcher.set_dropped(known.slot, kernel, interface);
        }
    }

    /// No later frame is older than `watermark`: unpacks the heads of datagrams that have waited too long for a fragment.
    /// Without a watermark, the latest frame stands in for it.
    pub(crate) fn advance(&mut self, now: Timestamp, watermark: Option<Timestamp>) {
        let Self { interfaces, senders, below, .. } = self;
        let watermark = watermark.unwrap_or(below.batcher.source_time());
        for interface in interfaces {
            interface.frames.advance(watermark, &mut |datagram| {
                senders.push(&datagram, below, now);
            });
        }
        senders.end_idle(below, now);
        self.hold_back();
        self.update_report();
    }

    /// No frame follows: unpacks the heads of all datagrams that wait for fragments.
    pub(crate) fn finish(&mut self) {
        let Self { interfaces, senders, below, .. } = self;
        let ended = now();
        for interface in interfaces {
            interface.frames.finish(&mut |datagram| {
                senders.push(&datagram, below, ended);
            });
        }
        self.hold_back();
        self.update_report();
    }

    /// A datagram that waits for its fragments may still yield a packet with the time of its first fragment.
    fn hold_back(&mut self) {
        let oldest = self.interfaces.iter().filter_map(|interface| interface.frames.oldest()).min();
        self.below.batcher.hold_back(oldest);
    }

    fn update_report(&mut self) {
        self.unreported = 0;
        self.report.update(|report| {
            report.count_senders(self.senders.counts());
            report.reassembly_failures = self
                .interfaces
                .iter()
                .map(|interface| interface.frames.fragments().lost.iter().sum::<u64>())
                .sum();
            for (at, port) in report.ports.iter_mut().enumerate() {
                port.counters = TzspCounters::default();
                for interface in &self.interfaces {
                    if let Some((_, counters)) = interface.frames.counters().nth(at) {
                        port.counters.add(counters);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
