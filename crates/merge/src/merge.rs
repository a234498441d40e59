//! The merge: packets of many sources leave in timestamp order.
//!
//! Each source competes with its first queued packet. A source without queued packets competes with its watermark, as a
//! barrier: it may still send a packet of that time, so later packets of other sources wait. The winner is handed out.
//! While a barrier wins, everything waits until
//!
//! - that source sends a batch, ends, or has been silent for [`MergeConfig::silence`];
//! - a batch has waited for [`MergeConfig::window`]; or
//! - the queued batches take more than [`MergeConfig::max_bytes`].
//!
//! In the last two cases that batch is forced out, and the *horizon* moves to its end: barriers before the horizon no
//! longer count, and packets of slow sources from before it are handed out at once. A packet is late if it is older than
//! one handed out before it. Nothing is ever dropped.
//!
//! The order within a source never changes. If a batch is not in time order itself, its older packets wait behind the
//! newer ones before them and count as late.
//!
//! **Clocks that run ahead.** A source whose clock is an hour ahead could move the horizon an hour ahead, and the other
//! sources would not be merged during that hour. The horizon therefore never passes the time that at least half of the
//! other sources should have reached, judging by their watermarks and the time since. Packets of a source that is ahead
//! of most others wait for the window and are then handed out, out of order. Packets of the other sources count as late
//! from then on, but are still merged among themselves.

use std::collections::HashMap;
use std::time::Duration;

use packet::record::Extent;
use packet::{SourceId, Timestamp};

use crate::MonotonicTime;
use crate::source_queue::{QueuedBatch, SourceQueue};
use crate::winner_tree::{Key, Kind, WinnerTree};

/// How long packets wait, and how much memory they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeConfig {
    /// How long a packet waits for older ones of slower sources (`MERGE_WINDOW`). Zero: not at all.
    pub window: Duration,
    /// How long everything waits after the first source appears, so that sources which connect a moment later are still
    /// merged in order. Each new source extends this by half as much again. Never longer than the window.
    pub grace: Duration,
    /// Without packets or a later watermark for this long, a source is no longer waited for until it sends again.
    pub silence: Duration,
    /// The limit for the queued batches, in bytes. A batch counts in full until its last packet is handed out, because
    /// its memory is only freed then.
    pub max_bytes: usize,
}

impl Default for MergeConfig {
    /// Window 200 ms; grace 100 ms, enough for captures to find a new collector; silence 2 s, which is several
    /// heartbeats;
    /// 128 MiB, which is two batches of 256 KiB from each of 256 sources.
    fn default() -> Self {
        Self {
            window: Duration::from_millis(200),
            grace: Duration::from_millis(100),
            silence: Duration::from_secs(2),
            max_bytes: 128 << 20,
        }
    }
}

/// A batch to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<B, T = ()> {
    /// The source it comes from.
    pub source: SourceId,
    /// Passed on with each run of the batch, for example the output interface.
    pub tag: T,
    /// Nothing but [`packet::record`]s. Dropped after its last packet has been handed out.
    pub payload: B,
    /// The extent of the payload. A batch without packets is a heartbeat.
    pub extent: Extent,
    /// No later batch of this source holds an older packet.
    pub watermark: Timestamp,
}

/// Consecutive packets of one source: whole records, a slice of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRun<'a, T> {
    /// The source they come from.
    pub source: SourceId,
    /// The tag that the batch was pushed with.
    pub tag: T,
    /// The packets, as [`packet::record`]s.
    pub bytes: &'a [u8],
    /// How many packets there are.
    pub packets: u32,
    /// How many of them are late: older than a packet handed out before.
    pub late: u32,
}

/// Many sources in, one order out. `B` holds the records of a batch, `T` is the tag that each run of a batch carries.
#[derive(Debug)]
pub struct Merge<B, T = ()> {
    config: MergeConfig,
    /// One queue per source. The index is the source's slot in the tree.
    queues: Vec<SourceQueue<B, T>>,
    slots: HashMap<SourceId, u32>,
    tree: WinnerTree,
    /// How many sources have not ended.
    running: usize,
    /// When the first source appeared.
    started: MonotonicTime,
    /// Until then everything waits for further sources to appear.
    gathering_until: MonotonicTime,
    /// Barriers before this time no longer count.
    horizon: Timestamp,
    /// The latest time of all packets handed out.
    newest: Timestamp,
    /// How many batches with packets have been pushed.
    batches_pushed: u64,
    /// A lower bound for the arrival times of all queued batches. The exact minimum requires a look at every source, so
    /// it is computed only when this bound says that a batch may be overdue.
    oldest_arrival: MonotonicTime,
    /// The batch that is being forced out.
    forced: Option<ForcedBatch>,
    /// The batch whose last run was handed out by the latest call: the caller may still be reading it.
    departing: Option<QueuedBatch<B, T>>,
    packets: u64,
    bytes: usize,
    now: MonotonicTime,
}

/// A batch that has waited for too long, or that memory has no room for.
#[derive(Clone, Copy, Debug)]
struct ForcedBatch {
    slot: u32,
    number: u64,
}

impl<B: AsRef<[u8]>, T: Copy> Merge<B, T> {
    /// Creates a merge without sources.
    #[must_use]
    pub fn new(config: MergeConfig) -> Self {
        Self {
            config,
            queues: Vec::new(),
            slots: HashMap::new(),
            tree: WinnerTree::new(),
            running: 0,
            started: MonotonicTime::ZERO,
            gathering_until: MonotonicTime::ZERO,
            horizon: Timestamp::ZERO,
            newest: Timestamp::ZERO,
            batches_pushed: 0,
            oldest_arrival: MonotonicTime::ZERO,
            forced: None,
            departing: None,
            packets: 0,
            bytes: 0,
            now: MonotonicTime::ZERO,
        }
    }

    /// The number of queued packets.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// The total payload length of all queued batches. A batch counts in full until its last run is handed out.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything waits for further sources to appear. A caller that can hold back batches should do so while
    /// memory is short: batches above [`MergeConfig::max_bytes`] are handed out at once, in order or not.
    #[must_use]
    pub fn is_gathering(&self, now: MonotonicTime) -> bool {
        now < self.gathering_until
    }

    /// Adds a batch. A source starts with its first batch, and starts again with the first one after [`Merge::end`].
    pub fn push(&mut self, arrival: Arrival<B, T>, now: MonotonicTime) {
        let Arrival { source, tag, payload, extent, watermark } = arrival;
        self.now = self.now.max(now);
        if self.running == 0 && self.packets == 0 {
            // This also applies when all sources have ended and new ones appear, so that a second set of files is merged
            // as the first one was.
            self.started = self.now;
            self.gathering_until = self.now + self.config.grace.min(self.config.window);
            self.horizon = Timestamp::ZERO;
        }
        let slot = self.slot(source);
        let queue = &mut self.queues[slot as usize];
        let starts = queue.ended;
        if starts {
            self.running += 1;
            if self.now < self.gathering_until {
                // Where one more source appears, others may follow.
                let extended = self.now + self.config.grace / 2;
                let latest = self.started + self.config.window;
                self.gathering_until = extended.max(self.gathering_until).min(latest);
            }
        }
        // A heartbeat that repeats the watermark, such as that of an idle pipe, does not count as activity: it must not
        // keep others waiting any longer than silence does.
        if starts || extent.packets > 0 || watermark > queue.watermark {
            queue.last_active = self.now;
        }
        queue.ended = false;
        queue.watermark = watermark;
        if extent.packets > 0 {
            if self.packets == 0 {
                self.oldest_arrival = self.now;
            }
            self.batches_pushed += 1;
            self.packets += u64::from(extent.packets);
            self.bytes += payload.as_ref().len();
            queue.batches.push_back(QueuedBatch::new(self.batches_pushed, self.now, tag, payload, extent));
            if queue.batches.len() > 1 {
                return;
            }
        }
        self.tree.set(slot, queue.key(slot));
    }

    /// The slot of a source, known or new.
    fn slot(&mut self, source: SourceId) -> u32 {
        *self.slots.entry(source).or_insert_with(|| {
            self.queues.push(SourceQueue::new(source));
            (self.queues.len() - 1) as u32
        })
    }

    /// Marks a source as ended: its queued packets are still handed out in order, and the merge no longer waits for it.
    pub fn end(&mut self, source: SourceId) {
        if let Some(&slot) = self.slots.get(&source) {
            self.end_slot(slot);
        }
    }

    fn end_slot(&mut self, slot: u32) {
        let queue = &mut self.queues[slot as usize];
        self.running -= usize::from(!queue.ended);
        queue.ended = true;
        self.tree.set(slot, queue.key(slot));
    }

    /// Marks all sources as ended. [`Merge::next_run`] then hands out everything that is queued.
    pub fn finish(&mut self) {
        self.gathering_until = MonotonicTime::ZERO;
        for slot in 0..self.queues.len() {
            self.end_slot(slot as u32);
        }
    }

    /// The next run that is due by `now`; `None` if everything that is left has to wait.
    ///
    /// Nothing happens between two calls, so the caller may stop after any run and continue later. A batch is freed by
    /// the call after the one that handed out its last run.
    pub fn next_run(&mut self, now: MonotonicTime) -> Option<PacketRun<'_, T>> {
        self.now = self.now.max(now);
        self.departing = None;
        loop {
            if let Some((slot, limit)) = self.next_in_order() {
                return self.take_run(slot, limit);
            }
            if let Some(slot) = self.take_forced() {
                return self.take_run(slot, Timestamp::MAX);
            }
            let slot = self.overdue().or_else(|| self.over_limit())?;
            self.force(slot);
        }
    }

    /// When [`Merge::next_run`] may have a run if no batch arrives before; `None` while nothing is queued.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicTime> {
        if self.packets == 0 {
            return None;
        }
        let winner = self.tree.winner();
        if self.forced.is_some() || self.is_over_limit() || winner < Key::barrier(self.horizon, 0) {
            // The caller has not taken all runs that are due.
            return Some(self.now);
        }
        if self.is_gathering(self.now) {
            return Some(self.gathering_until);
        }
        match winner.kind() {
            Kind::Barrier => {
                let silent = self.queues[winner.slot() as usize].last_active + self.config.silence;
                Some(silent.min(self.overdue_at(self.oldest_arrival)))
            }
            Kind::Packet | Kind::Never => Some(self.now),
        }
    }

    /// The source of the next packet in order, and the time up to which its packets are in order; `None` if a barrier
    /// wins or nothing is queued.
    fn next_in_order(&mut self) -> Option<(u32, Timestamp)> {
        // While sources are gathering, only packets up to the horizon go out: those that memory had no room for.
        let bound = if self.is_gathering(self.now) { self.horizon } else { Timestamp::MAX };
        loop {
            let winner = self.tree.winner();
            let slot = winner.slot();
            match winner.kind() {
                Kind::Packet if winner.time() <= bound => {
                    return Some((slot, self.tree.runner_up(slot).limit_for(slot).min(bound)));
                }
                Kind::Packet | Kind::Never => return None,
                // The horizon has passed this barrier since it was set.
                Kind::Barrier if winner.time() < self.horizon => {
                    self.tree.set(slot, Key::barrier(self.horizon, slot));
                }
                Kind::Barrier => {
                    if self.queues[slot as usize].is_live(self.now, self.config.silence) {
                        return None;
                    }
                    self.tree.set(slot, Key::NEVER);
                }
            }
        }
    }

    /// Takes the run up to `limit` from the front of a source's queue.
    fn take_run(&mut self, slot: u32, limit: Timestamp) -> Option<PacketRun<'_, T>> {
        let queue = &mut self.queues[slot as usize];
        let first = queue.batches.front_mut()?;
        let start = first.consumed;
        let run = first.measure_run(limit, self.newest);
        self.newest = run.newest;
        self.packets -= u64::from(run.packets);
        if let Some(next) = run.next {
            first.consumed += run.len;
            first.packets -= run.packets;
            first.head = next;
        } else {
            self.bytes -= first.payload.as_ref().len();
            self.departing = queue.batches.pop_front();
        }
        self.tree.set(slot, queue.key(slot));
        let batch = if run.next.is_some() { queue.batches.front() } else { self.departing.as_ref() }?;
        Some(PacketRun {
            source: queue.source,
            tag: batch.tag,
            bytes: batch.payload.as_ref().get(start..start + run.len).unwrap_or_default(),
            packets: run.packets,
            late: run.late,
        })
    }

    /// Begins to force out the first batch of a source: in its place, as far as it has one.
    fn force(&mut self, slot: u32) {
        let Some(first) = self.queues[slot as usize].batches.front() else { return };
        let (number, head, latest) = (first.number, first.head, first.latest);
        self.forced = Some(ForcedBatch { slot, number });
        let reached = self.reached_by_others(slot);
        if head <= reached {
            self.horizon = self.horizon.max(latest.min(reached));
        }
    }

    /// Ends the forcing of a batch. Returns its source if the batch is not gone yet: what is left of it is ahead of most
    /// sources, and goes out at once.
    fn take_forced(&mut self) -> Option<u32> {
        let ForcedBatch { slot, number } = self.forced.take()?;
        let first = self.queues[slot as usize].batches.front()?;
        (first.number == number).then_some(slot)
    }

    /// The time that at least half of the other live sources should have reached; [`Timestamp::ZERO`] if there are none
    /// to keep in order with.
    fn reached_by_others(&self, slot: u32) -> Timestamp {
        let mut reached: Vec<Timestamp> = (0_u32..)
            .zip(&self.queues)
            .filter(|(other, queue)| *other != slot && queue.is_live(self.now, self.config.silence))
            .map(|(_, queue)| queue.expected_time(self.now))
            .collect();
        let half = reached.len() / 2;
        if reached.is_empty() { Timestamp::ZERO } else { *reached.select_nth_unstable(half).1 }
    }

    /// The source whose first batch has waited longest, if that is as long as a batch may wait.
    fn overdue(&mut self) -> Option<u32> {
        if self.packets == 0 || self.now < self.overdue_at(self.oldest_arrival) {
            return None;
        }
        let (arrived, slot) = self.first_batches().map(|(slot, first)| (first.arrived, slot)).min()?;
        self.oldest_arrival = arrived;
        (self.now >= self.overdue_at(arrived)).then_some(slot)
    }

    /// When a batch that arrived at `arrived` has waited for the window. The time spent gathering does not count,
    /// because no particular source was waited for.
    fn overdue_at(&self, arrived: MonotonicTime) -> MonotonicTime {
        arrived.max(self.gathering_until) + self.config.window
    }

    fn is_over_limit(&self) -> bool {
        self.bytes > self.config.max_bytes
    }

    /// The source whose first batch ends before those of all others, if the queued batches take too much memory.
    fn over_limit(&self) -> Option<u32> {
        if !self.is_over_limit() {
            return None;
        }
        self.first_batches().map(|(slot, first)| (first.latest, slot)).min().map(|(_, slot)| slot)
    }

    fn first_batches(&self) -> impl Iterator<Item = (u32, &QueuedBatch<B, T>)> {
        (0_u32..).zip(&self.queues).filter_map(|(slot, queue)| Some((slot, queue.batches.front()?)))
    }
}

#[cfg(test)]
mod tests;
