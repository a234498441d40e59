//! Packets of a device, live, through libpcap.
//!
//! The handle is non-blocking and waited for with `poll`: libpcap's own blocking read never returns while a device is
//! idle, whatever its timeout. `immediate_mode` stays off because it costs ten times the CPU: the kernel hands packets
//! over when a block of its ring is full, or [`FLUSH_DELAY`] after the block's first packet.

mod handle;
mod interfaces;
mod own_traffic;
mod statistics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use batch::{Batch, Interface};
use packet::{Origin, Record, Timestamp};

pub use handle::{DeviceConfig, DeviceError};
pub use statistics::DeviceCounts;

use crate::batcher::{InterfaceSlot, Timing};
use crate::clock::is_due;
use crate::context::{CaptureContext, now};
use crate::stages::{Stages, StagesConfig};
use crate::tzsp::TzspReport;
use crate::{PacketSource, Progress};
use handle::Handle;
use own_traffic::OwnTraffic;
use statistics::Statistics;

/// How long a packet stays in a block of the kernel's ring that does not fill up. 10 ms costs three times the CPU at a
/// hundred thousand packets a second; 100 ms costs no less than 50 ms.
const FLUSH_DELAY: Duration = Duration::from_millis(50);

/// How much later than [`FLUSH_DELAY`] the kernel's timer may fire.
const FLUSH_SLACK: Duration = Duration::from_millis(10);

/// Packets taken from the ring at first. Each time after that it is twice as many, until a batch is finished: batches of
/// large packets would otherwise pile up outside the relay's queue, which limits their memory.
const MIN_DISPATCH: usize = 8;

/// Packets taken from the ring at once, at most.
const MAX_DISPATCH: usize = 128;

/// Packets taken from the ring before the clock and the request to stop are checked, if no batch is finished before.
const MAX_READ: usize = 8192;

/// How often the kernel's counters are read: a system call and two small files.
const STATISTICS_INTERVAL: Duration = Duration::from_millis(250);

/// How often the names of the interfaces behind a cooked device are read again.
const NAMES_INTERVAL: Duration = Duration::from_secs(5);

/// A device that is being captured.
#[derive(Debug)]
pub struct Device {
    handle: Handle,
    statistics: Statistics,
    interface: Arc<Interface>,
    slot: InterfaceSlot,
    stages: Stages,
    context: CaptureContext,
    own_traffic: OwnTraffic,
    started: Timestamp,
    statistics_due: Interval,
    names_due: Interval,
    state: State,
}

/// Whether the capture goes on.
#[derive(Debug)]
enum State {
    Capturing,
    /// The capture was told to stop, or the device is gone: what the ring still holds is read until then.
    Draining {
        until: Instant,
        error: Option<DeviceError>,
    },
}

impl Device {
    /// Opens a device. From here on the kernel captures.
    ///
    /// # Errors
    /// The device does not exist, a permission is missing, or the filter does not compile for the device.
    pub fn open(
        name: &str,
        config: &DeviceConfig,
        stages: &StagesConfig,
        context: CaptureContext,
    ) -> Result<Self, DeviceError> {
        let handle = Handle::open(name, config)?;
        let statistics = Statistics::new(name);
        let origin = Origin { source: Arc::clone(&context.source), device: name.into(), listen_port: None };
        let interface = Arc::new(Interface {
            description: handle.description().into(),
            filter: config.filter.as_deref().unwrap_or_default().into(),
            names: if handle.is_cooked() { interfaces::interfaces() } else { Vec::new() },
            ..Interface::new(origin, handle.link_type(), config.snaplen)
        });
        let mut stages = Stages::new(context.clone(), Timing::Live, stages);
        let slot = stages.open(Arc::clone(&interface));
        let started = now();
        Ok(Self {
            handle,
            statistics,
            interface,
            slot,
            stages,
            context,
            own_traffic: OwnTraffic::default(),
            started,
            statistics_due: Interval { length: STATISTICS_INTERVAL, next: started },
            names_due: Interval { length: NAMES_INTERVAL, next: started + NAMES_INTERVAL },
            state: State::Capturing,
        })
    }

    /// Leaves out the relay's connections to these addresses from the beginning: what was captured before is discarded.
    ///
    /// # Errors
    /// The filter does not compile, or the device is gone.
    pub fn exclude_from_start(&mut self, addresses: &[SocketAddr]) -> Result<(), DeviceError> {
        if self.own_traffic.add(addresses) { self.handle.begin(&self.own_traffic) } else { Ok(()) }
    }

    /// The device's name, link type and description.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// The kernel's counters, shared.
    #[must_use]
    pub fn counts(&self) -> Arc<DeviceCounts> {
        self.statistics.counts()
    }

    /// The counters of the TZSP ports, where TZSP is unpacked.
    #[must_use]
    pub fn tzsp_report(&self) -> Option<TzspReport> {
        self.stages.tzsp_report()
    }

    /// Reads the packets in the ring, until a batch is finished. Returns their number, and whether the ring has no more.
    fn read_ring(&mut self) -> Result<(usize, bool), DeviceError> {
        let (mut read, mut count) = (0, MIN_DISPATCH);
        while read < MAX_READ {
            let packets = self.dispatch(count)?;
            read += packets;
            if packets < count {
                return Ok((read, true));
            }
            if self.stages.has_batch() {
                break;
            }
            count = (2 * count).min(MAX_DISPATCH);
        }
        Ok((read, false))
    }

    /// Reads up to `count` packets. Returns their number.
    fn dispatch(&mut self, count: usize) -> Result<usize, DeviceError> {
        let Self { handle, stages, slot, .. } = self;
        let slot = *slot;
        // A batch's age counts from the time of its first packet, which has waited in the ring already.
        let result = match stages {
            // The common case has no stage between the ring and the batch.
            Stages::Batched(batcher) => handle.capture().dispatch(Some(count), |packet| {
                let record = record(&packet);
                batcher.push(slot, &record, record.time);
            }),
            stages => handle.capture().dispatch(Some(count), |packet| {
                let record = record(&packet);
                stages.push(slot, &record, record.time);
            }),
        };
        handle.read_result(result)
    }

    /// Starts to drain, once.
    fn drain(&mut self, error: Option<DeviceError>) {
        let until = Instant::now() + FLUSH_DELAY + FLUSH_SLACK;
        match &mut self.state {
            State::Capturing => self.state = State::Draining { until, error },
            State::Draining { error: known, .. } => *known = known.take().or(error),
        }
    }

    fn read_statistics(&mut self) {
        self.statistics.read(&self.handle);
        let (kernel, interface) = (self.statistics.dropped_kernel(), self.statistics.dropped_interface());
        self.stages.set_dropped(self.slot, kernel, interface);
    }

    /// Interfaces come and go while `any` is captured.
    fn refresh_names(&mut self) {
        let names = interfaces::interfaces();
        if names != self.interface.names {
            self.interface = Arc::new(Interface { names, ..(*self.interface).clone() });
            self.stages.describe(self.slot, Arc::clone(&self.interface));
        }
    }

    fn end(&mut self) {
        self.read_statistics();
        self.stages.end(self.started);
    }
}

impl PacketSource for Device {
    type Error = DeviceError;

    fn exclude(&mut self, addresses: &[SocketAddr]) {
        let changed = self.own_traffic.add(addresses);
        // While draining, the kernel drops all packets: that filter stays.
        if changed
            && matches!(self.state, State::Capturing)
            && let Err(error) = self.handle.set_filter(&self.own_traffic)
        {
            self.drain(Some(error));
        }
    }

    fn poll(&mut self) -> Result<Progress, DeviceError> {
        let before = now();
        if matches!(self.state, State::Capturing) && self.context.is_over() {
            // From here on the kernel neither keeps nor counts packets: what it has counted is what can still be read.
            self.handle.attach_drop_filter();
            self.drain(None);
        }
        let (read, drained) = self.read_ring().unwrap_or_else(|error| {
            self.drain(Some(error));
            (0, true)
        });
        if let State::Draining { until, error } = &mut self.state
            && (drained && Instant::now() >= *until || self.context.quota.is_used_up())
        {
            let error = error.take();
            self.end();
            return error.map_or(Ok(Progress::Ended), Err);
        }
        if self.statistics_due.is_due(before) {
            self.read_statistics();
        }
        if self.handle.is_cooked() && self.names_due.is_due(before) {
            self.refresh_names();
        }
        // All packets captured before this time have been read, except for those in a block that the kernel has not
        // closed yet. Unknown if there were more than could be read at once.
        self.stages.tick(before, drained.then(|| before - (FLUSH_DELAY + FLUSH_SLACK)));
        match self.state {
            // The device may be gone, but its ring still holds the last packets.
            State::Draining { .. } if read == 0 => thread::sleep(FLUSH_SLACK),
            State::Capturing if read == 0 && !self.stages.has_batch() => {
                if let Err(error) = self.handle.wait(self.stages.time_until_due(now())) {
                    self.drain(Some(error));
                }
            }
            _ => {}
        }
        Ok(Progress::Running)
    }

    fn poll_batch(&mut self) -> Option<Batch> {
        self.stages.poll_batch()
    }

    fn wants_buffer(&mut self) -> bool {
        self.stages.batcher().wants_buffer()
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.stages.batcher().recycle(buffer);
    }
}

/// The record of a packet in the ring.
fn record<'a>(packet: &pcap::Packet<'a>) -> Record<'a> {
    let header = packet.header;
    // With `Precision::Nano` libpcap puts nanoseconds where the type says microseconds.
    let time = Timestamp::from_parts(header.ts.tv_sec as u32, header.ts.tv_usec as u32);
    Record { time, original: header.len, bytes: packet.data }
}

/// Something that is done at intervals.
#[derive(Debug)]
struct Interval {
    length: Duration,
    next: Timestamp,
}

impl Interval {
    /// Whether it is due; then the next interval starts.
    fn is_due(&mut self, now: Timestamp) -> bool {
        let due = is_due(self.next, now, self.length);
        if due {
            self.next = now + self.length;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_survives_a_clock_that_is_set_back() {
        let at = |secs| Timestamp::from_parts(secs, 0);
        let mut interval = Interval { length: Duration::from_secs(5), next: at(100) };
        assert!(!interval.is_due(at(99)));
        assert!(interval.is_due(at(100)));
        assert!(!interval.is_due(at(104)));
        assert!(interval.is_due(at(50)));
        assert!(!interval.is_due(at(54)));
        assert!(interval.is_due(at(55)));
    }
}
