//! TZSP as it passes a device, or stands in a file: unwrapped between a source of frames and an outlet.

use std::sync::Arc;

use batch::{Batch, Interface};
use packet::defrag::Limits;
use packet::{LinkType, Records, Timestamp};

use super::routers::Routers;
use super::{Counters, Report, Wire};
use crate::outlet::{Outlet, Run, now};
use crate::packer::{Lane, Pace};

/// Lets through what is in the TZSP of the frames that it is handed.
pub struct Unwrap<'a> {
    ports: Vec<u16>,
    routers: Routers<'a>,
    /// One for each interface that frames come from.
    wires: Vec<Tapped>,
    report: Report,
    pace: Pace,
}

/// An interface that frames come from.
struct Tapped {
    interface: Arc<Interface>,
    wire: Wire,
    /// No frame of this interface is older any more.
    watermark: Timestamp,
    /// The interface's own origin, which has no packets: it carries what the kernel dropped of the frames.
    lane: Lane,
}

impl<'a> Unwrap<'a> {
    /// In front of `outlet`. The source before it is given [`Run::uncounted`].
    #[must_use]
    pub fn new(ports: &[u16], outlet: &'a mut dyn Outlet, run: Run, pace: Pace) -> Self {
        Self {
            ports: ports.to_vec(),
            routers: Routers::new(outlet, run, pace),
            wires: Vec::new(),
            report: Report::new(ports.iter().copied()),
            pace,
        }
    }

    /// What becomes of the datagrams, for who wants to look at it from elsewhere.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Ends every origin, once no frame comes any more.
    pub fn end(mut self) {
        let routers = &mut self.routers;
        for tapped in &mut self.wires {
            tapped.wire.finish(&mut |datagram| routers.push(&datagram));
        }
        self.update_report();
        let watermark = self.promise();
        self.routers.packer.end(watermark);
    }

    fn place(&mut self, interface: &Arc<Interface>) -> usize {
        // An interface that is described anew goes on where it was: fragments may wait.
        let known = |tapped: &Tapped| {
            tapped.interface.origin == interface.origin && tapped.interface.link_type == interface.link_type
        };
        self.wires.iter().position(known).unwrap_or_else(|| {
            // Its link type is that of most routers' packets: classic pcap takes the first that comes.
            let described = Interface { link_type: LinkType::ETHERNET, ..(**interface).clone() };
            let lane = self.routers.packer.open(Arc::new(described));
            let wire = Wire::new(interface.link_type, &self.ports, Limits::default());
            self.wires.push(Tapped {
                interface: Arc::clone(interface),
                wire,
                lane,
                watermark: Timestamp::ZERO,
            });
            self.wires.len() - 1
        })
    }

    /// What all interfaces promise: a router's packets may pass any of them.
    fn promise(&self) -> Timestamp {
        self.wires.iter().map(|tapped| tapped.watermark).min().unwrap_or(Timestamp::ZERO)
    }

    fn update_report(&self) {
        self.report.update(|report| {
            report.overflow = self.routers.overflow;
            report.reassembly_failures =
                self.wires.iter().map(|tapped| tapped.wire.fragments().lost.iter().sum::<u64>()).sum();
            for (at, port) in report.ports.iter_mut().enumerate() {
                port.counters = Counters::default();
                for tapped in &self.wires {
                    if let Some((_, counters)) = tapped.wire.counters().nth(at) {
                        port.counters.add(counters);
                    }
                }
            }
        });
    }
}

impl Outlet for Unwrap<'_> {
    fn send(&mut self, batch: Batch) {
        let at = self.place(batch.interface());
        let info = *batch.close_info();
        let Self { routers, wires, .. } = self;
        let Some(Tapped { wire, lane, watermark, .. }) = wires.get_mut(at) else { return };
        routers.packer.set_dropped(*lane, info.dropped_kernel, info.dropped_interface);
        for frame in Records::new(batch.payload()) {
            wire.handle_frame(&frame, &mut |datagram| routers.push(&datagram));
        }
        wire.advance(info.watermark, &mut |datagram| routers.push(&datagram));
        // What waits for its fragments comes later with the time of its first one.
        *watermark = wire.oldest().map_or(info.watermark, |oldest| oldest.min(info.watermark));
        self.update_report();
        if self.pace != Pace::Stored {
            let promise = self.promise();
            self.routers.packer.tick(now(), Some(promise));
        }
    }

    fn spare(&mut self) -> Vec<u8> {
        Vec::new()
    }
}
