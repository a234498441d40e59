//! From packets to batches: what all sources that are handed one packet after the other have in common.

use std::sync::Arc;
use std::time::Duration;

use batch::{Builder, CloseInfo, Interface, Order, Template};
use packet::{Record, Timestamp};

use crate::outlet::{HEARTBEAT, Outlet, Run, now};

/// By how much packets of a device may be out of order: each processor that receives takes the time, and puts its packets
/// into the kernel's ring, a little later. Packets are held back for so long, so that those behind them can overtake.
const DISORDER: Duration = Duration::from_micros(500);

/// Longer than any batch waits (`BATCH_DELAY` is 10 s at most).
const FURTHEST: Duration = Duration::from_secs(11);

/// One origin among those that a source feeds: a number that [`Packer::open`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane(usize);

/// How packets come to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As this machine captures them, with the times of its own clock.
    Live,
    /// As another program hands them over, with the times of who knows which clock.
    Piped,
    /// As fast as they are read: they do not grow old.
    Stored,
}

impl Pace {
    /// A file, and a pipe, keep their own order; several processors that capture have none.
    const fn order(self) -> Order {
        match self {
            Self::Live => Order::ByTime,
            Self::Piped | Self::Stored => Order::AsTheyCame,
        }
    }

    /// When a packet began to wait, by this machine's clock. A live one has waited in the kernel already.
    fn born(self, record: &Record<'_>) -> Timestamp {
        match self {
            Self::Live => record.time,
            Self::Piped => now(),
            Self::Stored => Timestamp::MAX,
        }
    }
}

/// Packs packets into batches, one at a time for each origin, and hands them over when they are full or old. An origin
/// with nothing to say gets a heartbeat.
pub struct Packer<'a> {
    outlet: &'a mut dyn Outlet,
    run: Run,
    pace: Pace,
    lanes: Vec<State>,
}

/// What is known of one origin.
struct State {
    builder: Builder,
    /// Packets that were taken in.
    captured: u64,
    dropped_kernel: u64,
    dropped_interface: u64,
    /// The latest packet of all.
    latest: Timestamp,
    /// When it is time for a sign of life.
    heartbeat: Timestamp,
}

impl State {
    fn closing(&self, watermark: Timestamp, ends: bool) -> CloseInfo {
        CloseInfo {
            watermark,
            captured: self.captured,
            dropped_kernel: self.dropped_kernel,
            dropped_interface: self.dropped_interface,
            ends,
        }
    }

    /// Hands over everything.
    fn hand_over(&mut self, outlet: &mut dyn Outlet, watermark: Timestamp) {
        let closing = self.closing(watermark, false);
        let batch = self.builder.close(closing, || outlet.spare());
        outlet.send(batch);
    }

    /// Hands over what is not later than `horizon`.
    fn hand_over_until(&mut self, outlet: &mut dyn Outlet, horizon: Timestamp, watermark: Timestamp) {
        let closing = self.closing(watermark, false);
        if let Some(batch) = self.builder.close_until(horizon, closing, || outlet.spare()) {
            outlet.send(batch);
        }
    }

    /// Hands over a batch that is full.
    fn hand_over_full(&mut self, outlet: &mut dyn Outlet, pace: Pace) {
        match pace.order() {
            Order::AsTheyCame => self.hand_over(outlet, self.latest),
            Order::ByTime => {
                let horizon = self.latest - DISORDER;
                self.hand_over_until(outlet, horizon, horizon);
            }
        }
    }

    /// Hands over what is old enough, or a sign of life.
    fn tick(&mut self, outlet: &mut dyn Outlet, pace: Pace, now: Timestamp, promise: Option<Timestamp>) {
        let due = self.builder.due().unwrap_or(self.heartbeat);
        // What lies further ahead than anything is ever put off was reckoned by a clock that has been set back since.
        if now < due && due < now + FURTHEST {
            return;
        }
        match (pace.order(), promise) {
            (Order::AsTheyCame, _) => self.hand_over(outlet, promise.unwrap_or_default().max(self.latest)),
            (Order::ByTime, Some(promise)) => {
                let horizon = now - DISORDER;
                let promise = promise.max(self.latest.min(horizon) - DISORDER);
                self.hand_over_until(outlet, horizon, promise);
            }
            (Order::ByTime, None) => {
                let horizon = self.latest - DISORDER;
                self.hand_over_until(outlet, horizon, horizon);
            }
        }
        self.heartbeat = now + HEARTBEAT;
    }
}

impl<'a> Packer<'a> {
    /// Hands over to `outlet`.
    pub fn new(outlet: &'a mut dyn Outlet, run: Run, pace: Pace) -> Self {
        Self { outlet, run, pace, lanes: Vec::new() }
    }

    /// A further origin. Its first heartbeat is due at once, so that the collector hears of it before it has packets.
    pub fn open(&mut self, interface: Arc<Interface>) -> Lane {
        let builder =
            Builder::new(Template::new(interface, self.run.epoch), self.run.limits, self.pace.order());
        self.lanes.push(State {
            builder,
            captured: 0,
            dropped_kernel: 0,
            dropped_interface: 0,
            latest: Timestamp::ZERO,
            heartbeat: Timestamp::ZERO,
        });
        Lane(self.lanes.len() - 1)
    }

    /// How many origins there are.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Takes a packet in; false where no more packets are wanted.
    #[inline]
    pub fn push(&mut self, lane: Lane, record: &Record<'_>) -> bool {
        let Some(state) = self.lanes.get_mut(lane.0) else { return false };
        if !self.run.take() {
            return false;
        }
        if state.builder.is_full_for(record.bytes.len()) {
            state.hand_over_full(self.outlet, self.pace);
        }
        state.builder.push(record, || self.pace.born(record));
        state.captured += 1;
        state.latest = state.latest.max(record.time);
        true
    }

    /// Whether the next packet of this length would begin a new batch.
    #[must_use]
    pub fn is_full_for(&self, lane: Lane, len: usize) -> bool {
        self.lanes.get(lane.0).is_some_and(|state| state.builder.is_full_for(len))
    }

    /// Packets that the kernel and the interface have dropped so far.
    pub fn set_dropped(&mut self, lane: Lane, kernel: u64, interface: u64) {
        if let Some(state) = self.lanes.get_mut(lane.0) {
            state.dropped_kernel = kernel;
            state.dropped_interface = interface;
        }
    }

    /// The source is known by another description from here on, such as when interfaces came or went.
    pub fn describe(&mut self, lane: Lane, interface: Arc<Interface>) {
        if let Some(state) = self.lanes.get_mut(lane.0) {
            if !state.builder.is_empty() {
                state.hand_over(self.outlet, state.latest - DISORDER);
            }
            state.builder =
                Builder::new(Template::new(interface, self.run.epoch), self.run.limits, self.pace.order());
        }
    }

    /// Hands over what is old enough, and signs of life. No packet older than `promise` comes any more, of any origin;
    /// `None` where nothing of the kind is known, for more has come than could be read yet.
    pub fn tick(&mut self, now: Timestamp, promise: Option<Timestamp>) {
        for state in &mut self.lanes {
            state.tick(self.outlet, self.pace, now, promise);
        }
    }

    /// The same for one origin, of which alone the promise is made.
    pub fn tick_lane(&mut self, lane: Lane, now: Timestamp, promise: Option<Timestamp>) {
        if let Some(state) = self.lanes.get_mut(lane.0) {
            state.tick(self.outlet, self.pace, now, promise);
        }
    }

    /// Hands over all that there is, whatever its age: for files, whose origins come to the collector at one pace.
    pub fn flush(&mut self, watermark: Timestamp) {
        for state in &mut self.lanes {
            state.hand_over(self.outlet, watermark);
        }
    }

    /// How long it is until [`Packer::tick`] has something to do: never longer than a heartbeat.
    #[must_use]
    pub fn patience(&self, now: Timestamp) -> Duration {
        let due = |state: &State| state.builder.due().unwrap_or(state.heartbeat);
        let next = self.lanes.iter().map(due).min().unwrap_or(Timestamp::MAX);
        next.since(now).min(HEARTBEAT)
    }

    /// Ends every origin: the last batches say so.
    pub fn end(mut self, watermark: Timestamp) {
        for state in &mut self.lanes {
            let closing = state.closing(watermark.max(state.latest), true);
            let batch = state.builder.close(closing, Vec::new);
            self.outlet.send(batch);
        }
    }
}
