//! Packets of a device, live, through libpcap.
//!
//! The handle is not blocking, and waited for with `poll`: libpcap's own blocking read never returns while a device is
//! idle, whatever its timeout. `immediate_mode` stays off, for it costs ten times the CPU: the kernel hands packets
//! over when a block of its ring is full, or `FLUSH_DELAY` after its first packet.

mod handle;
mod names;
mod own_traffic;
mod statistics;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use batch::Interface;
use packet::{Origin, Timestamp};

pub use handle::{DeviceError, Settings};
pub use own_traffic::OwnTraffic;
pub use statistics::Counts;

use crate::outlet::{Outlet, Run, now};
use crate::packer::{Lane, Pace, Packer};
use handle::Handle;
use statistics::Statistics;

/// How long a packet stays in a block of the kernel's ring that does not fill up. With 10 ms it costs three times the
/// CPU at a hundred thousand packets a second, with 100 ms no less than with 50.
const FLUSH_DELAY: Duration = Duration::from_millis(50);

/// How much later than [`FLUSH_DELAY`] the kernel's timer may be: the watermark of an idle device stays this much behind.
const FLUSH_SLACK: Duration = Duration::from_millis(10);

/// Packets taken from the ring before the clock and the stop flag are looked at again.
const DISPATCH: usize = 8192;

/// How often the kernel's counters are read. They cost a system call and two small files.
const STATISTICS_INTERVAL: Duration = Duration::from_millis(250);

/// How often the names of interfaces behind a cooked device are read again.
const NAMES_INTERVAL: Duration = Duration::from_secs(5);

/// A device that is open and captures.
#[derive(Debug)]
pub struct Device {
    handle: Handle,
    statistics: Statistics,
    interface: Arc<Interface>,
    own_traffic: Arc<OwnTraffic>,
    run: Run,
}

impl Device {
    /// Opens a device; from here on the kernel captures.
    ///
    /// # Errors
    /// The device is not there, may not be opened, or the filter does not compile for it.
    pub fn open(
        name: &str,
        settings: &Settings,
        own_traffic: Arc<OwnTraffic>,
        run: Run,
    ) -> Result<Self, DeviceError> {
        let handle = Handle::open(name, settings, &own_traffic)?;
        let statistics = Statistics::new(name, &handle);
        let origin = Origin { source: Arc::clone(&run.source), device: name.into(), listen_port: None };
        let interface = Interface {
            description: handle.description().into(),
            filter: settings.filter.as_deref().unwrap_or_default().into(),
            names: if handle.is_cooked() { names::interfaces() } else { Vec::new() },
            ..Interface::new(origin, handle.link_type(), settings.snaplen)
        };
        Ok(Self { handle, statistics, interface: Arc::new(interface), own_traffic, run })
    }

    /// What is known of the device.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// The kernel's counts, for who wants to look at them from elsewhere.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        self.statistics.counts()
    }

    /// Captures until it is time to end, or the device ends. The last batch says that this source has ended.
    ///
    /// # Errors
    /// The device went down or disappeared. What was captured until then has been handed over.
    pub fn capture(mut self, outlet: &mut dyn Outlet) -> Result<(), DeviceError> {
        let started = now();
        let mut packer = Packer::new(outlet, self.run.clone(), Pace::Live);
        let lane = packer.open(Arc::clone(&self.interface));
        let ended = self.fill(&mut packer, lane);
        self.read_statistics(&mut packer, lane);
        packer.end(started);
        ended
    }

    fn fill(&mut self, packer: &mut Packer<'_>, lane: Lane) -> Result<(), DeviceError> {
        let mut every = Intervals::new(now());
        let mut drain_until: Option<Instant> = None;
        let mut gone = None;
        loop {
            let before = now();
            // What the kernel still holds when it is time to end, it hands over within its flush delay.
            if drain_until.is_none() && self.run.is_over() {
                self.handle.refuse();
                drain_until = Some(Instant::now() + FLUSH_DELAY + FLUSH_SLACK);
            }
            if drain_until.is_none() {
                self.own_traffic.apply(&mut self.handle)?;
            }
            // The batch's age counts from the packet's own time: it has waited in the kernel's ring already.
            let read = self.handle.dispatch(DISPATCH, |record| {
                packer.push(lane, &record);
            });
            let read = read.unwrap_or_else(|error| {
                gone.get_or_insert(error);
                0
            });
            let drained = read < DISPATCH;
            if drain_until.is_some_and(|until| drained && Instant::now() >= until)
                || self.run.quota.is_used_up()
            {
                return gone.map_or(Ok(()), Err);
            }
            if every.statistics.is_due(before) {
                self.read_statistics(packer, lane);
            }
            if self.handle.is_cooked() && every.names.is_due(before) {
                self.refresh_names(packer, lane);
            }
            // All packets up to here have been read, but for those in a block that the kernel has not closed yet; unless
            // there are more than were read at once.
            packer.tick(before, drained.then(|| before - (FLUSH_DELAY + FLUSH_SLACK)));
            if gone.is_some() {
                // The ring outlives its device: what was captured last is still to come.
                drain_until = drain_until.or(Some(Instant::now() + FLUSH_DELAY + FLUSH_SLACK));
                thread::sleep(FLUSH_SLACK);
            } else if read == 0 {
                gone = self.handle.wait(packer.patience(now())).err();
            }
        }
    }

    fn read_statistics(&mut self, packer: &mut Packer<'_>, lane: Lane) {
        self.statistics.read(&self.handle);
        packer.set_dropped(lane, self.statistics.dropped_kernel(), self.statistics.dropped_interface());
    }

    /// Interfaces come and go while `any` is captured.
    fn refresh_names(&mut self, packer: &mut Packer<'_>, lane: Lane) {
        let names = names::interfaces();
        if names != self.interface.names {
            self.interface = Arc::new(Interface { names, ..(*self.interface).clone() });
            packer.describe(lane, Arc::clone(&self.interface));
        }
    }
}

/// What comes round again, beside the packets.
struct Intervals {
    statistics: Interval,
    names: Interval,
}

impl Intervals {
    fn new(now: Timestamp) -> Self {
        Self {
            statistics: Interval { length: STATISTICS_INTERVAL, next: now },
            names: Interval { length: NAMES_INTERVAL, next: now + NAMES_INTERVAL },
        }
    }
}

struct Interval {
    length: Duration,
    next: Timestamp,
}

impl Interval {
    /// Whether its time has come; then it begins anew.
    fn is_due(&mut self, now: Timestamp) -> bool {
        // A time further ahead than the interval is long was reckoned by a clock that has been set back since.
        let due = now >= self.next || self.next > now + self.length;
        if due {
            self.next = now + self.length;
        }
        due
    }
}
