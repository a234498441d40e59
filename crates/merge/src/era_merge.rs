//! The merge of the sources of one era: packets leave in timestamp order.
//!
//! Each source competes with its first queued packet. A source without queued packets competes with its watermark, as a
//! barrier: it may still send a packet of that time, so later packets of other sources wait. The winner is handed out.
//! While a barrier wins, everything waits until
//!
//! - that source sends a batch, ends, or has been silent for [`MergeConfig::silence`]; or
//! - a batch has waited for [`MergeConfig::window`], or memory is short.
//!
//! In the latter case that batch is forced out, and the *horizon* moves to its end: barriers before the horizon no longer
//! count, and packets of slow sources from before it are handed out at once.
//!
//! **How far the horizon moves.** In the present, not beyond the time of the batch's arrival, by the collector's clock, plus
//! the window. A batch that is ahead of the collector's clock waits longer by as much, up to another window. So each
//! source has the whole window to deliver a packet, whatever the times of other sources are. In the other eras the
//! collector's clock says nothing. There the horizon never passes the time that at least half of the other sources should
//! have reached, judging by their watermarks and the time since.
//!
//! What is forced out and lies beyond that leaves *early*: it counts as late, and the other sources are merged as if it had
//! not been there.

use packet::Timestamp;
use packet::record::Extent;

use crate::MonotonicTime;
use crate::era::{CLOCK_TOLERANCE, Era};
use crate::merge::{Arrival, MergeConfig, PacketRun};
use crate::source_queue::{QueuedBatch, SourceQueue};
use crate::winner_tree::{Key, Kind, WinnerTree};

/// The sources of one era.
#[derive(Debug)]
pub(crate) struct EraMerge<B, T> {
    era: Era,
    config: MergeConfig,
    /// One queue per source. The index is the source's slot in the tree.
    queues: Vec<SourceQueue<B, T>>,
    /// Slots without a source.
    free: Vec<u32>,
    tree: WinnerTree,
    /// How many sources have not ended.
    running: usize,
    /// When the first source appeared.
    started: MonotonicTime,
    /// Until then everything waits for further sources to appear.
    gathering_until: MonotonicTime,
    /// Barriers before this time no longer count.
    horizon: Timestamp,
    /// When the horizon was last checked against the sources that are left.
    horizon_checked: MonotonicTime,
    /// The latest time of all packets handed out in order.
    newest: Timestamp,
    /// How many batches with packets have been pushed.
    batches_pushed: u64,
    /// A lower bound for the times from which all queued batches wait. The exact minimum requires a look at every
    /// source, so it is computed only when this bound says that a batch may be overdue.
    oldest_wait: MonotonicTime,
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

/// What is handed out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The first packets of a source, up to a time.
    InOrder { slot: u32, limit: Timestamp },
    /// What is left of a source's first batch, before its time.
    Early { slot: u32 },
}

impl<B: AsRef<[u8]>, T: Copy> EraMerge<B, T> {
    /// Creates a merge without sources.
    pub(crate) fn new(era: Era, config: MergeConfig) -> Self {
        Self {
            era,
            config,
            queues: Vec::new(),
            free: Vec::new(),
            tree: WinnerTree::new(),
            running: 0,
            started: MonotonicTime::ZERO,
            gathering_until: MonotonicTime::ZERO,
            horizon: Timestamp::ZERO,
            horizon_checked: MonotonicTime::ZERO,
            newest: Timestamp::ZERO,
            batches_pushed: 0,
            oldest_wait: MonotonicTime::ZERO,
            forced: None,
            departing: None,
            packets: 0,
            bytes: 0,
            now: MonotonicTime::ZERO,
        }
    }

    /// The number of queued packets.
    pub(crate) const fn packets(&self) -> u64 {
        self.packets
    }

    /// The memory of all queued batches.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is queued, and the caller has read everything.
    #[inline]
    pub(crate) const fn is_unused(&self) -> bool {
        self.packets == 0 && self.departing.is_none()
    }

    /// Whether a source has not ended.
    pub(crate) const fn is_running(&self) -> bool {
        self.running > 0
    }

    /// Whether everything waits for further sources to appear.
    pub(crate) fn is_gathering(&self, now: MonotonicTime) -> bool {
        now < self.gathering_until
    }

    /// The queues of all sources, and their slots.
    pub(crate) fn queues(&self) -> impl Iterator<Item = (u32, &SourceQueue<B, T>)> {
        (0..).zip(&self.queues)
    }

    /// The queue in a slot.
    pub(crate) fn queue(&self, slot: u32) -> Option<&SourceQueue<B, T>> {
        self.queues.get(slot as usize)
    }

    /// Adds a source, which counts as ended until its first batch arrives. Returns its slot.
    pub(crate) fn add(&mut self, queue: SourceQueue<B, T>) -> u32 {
        let Some(slot) = self.free.pop() else {
            self.queues.push(queue);
            return (self.queues.len() - 1) as u32;
        };
        self.queues[slot as usize] = queue;
        slot
    }

    /// Removes a source that has nothing queued.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.end(slot);
        self.queues[slot as usize].batches = Default::default();
        self.free.push(slot);
    }

    /// Adds a batch of the source in `slot`, which arrived at `wall` by the collector's clock and takes `memory` bytes.
    pub(crate) fn push(
        &mut self,
        slot: u32,
        arrival: Arrival<B, T>,
        memory: usize,
        now: (MonotonicTime, Timestamp),
    ) {
        let (now, wall) = now;
        let Arrival { source: _, sender, tag, payload, extent, watermark, .. } = arrival;
        self.now = self.now.max(now);
        if self.running == 0 && self.packets == 0 {
            // This also applies when all sources have ended and new ones appear, so that a second set of files is merged
            // as the first one was.
            self.started = self.now;
            self.gathering_until = self.now + self.config.grace.min(self.config.window);
            self.horizon = Timestamp::ZERO;
        }
        let starts = self.queues[slot as usize].ended;
        if starts {
            self.running += 1;
            if self.now < self.gathering_until {
                // Where one more source appears, others may follow.
                let extended = self.now + self.config.grace / 2;
                let latest = self.started + self.config.window;
                self.gathering_until = extended.max(self.gathering_until).min(latest);
            }
        }
        let queue = &mut self.queues[slot as usize];
        // A heartbeat that repeats the watermark, such as that of an idle pipe, does not count as activity: it must not
        // keep others waiting any longer than silence does.
        if starts || extent.packets > 0 || watermark > queue.watermark {
            queue.last_active = self.now;
        }
        queue.ended = false;
        queue.watermark = watermark;
        queue.sender = sender;
        if extent.packets > 0 {
            queue.sent_packets = true;
            let (trusted, waits_from) = self.trusted(extent, wall);
            if self.packets == 0 {
                self.oldest_wait = self.now;
            }
            self.batches_pushed += 1;
            self.packets += u64::from(extent.packets);
            self.bytes += memory;
            let batch = QueuedBatch::new(self.batches_pushed, tag, payload, extent);
            self.queues[slot as usize].push(QueuedBatch { trusted, waits_from, memory, ..batch });
            self.lower_horizon(extent, wall);
        }
        if self.queues[slot as usize].batches.len() <= 1 {
            self.tree.set(slot, self.queues[slot as usize].key(slot));
        }
    }

    /// How far a batch may move the horizon, and since when it counts as waiting.
    fn trusted(&self, extent: Extent, wall: Timestamp) -> (Timestamp, MonotonicTime) {
        if self.era != Era::Present || self.config.window.is_zero() {
            return (extent.latest, self.now);
        }
        let ahead = extent.latest.since(wall).min(self.config.window);
        (extent.latest.min(wall + self.config.window), self.now + ahead)
    }

    /// Takes the horizon back if a packet arrives from before it and no source is left that has reached it: those that
    /// moved it have ended or are silent, and must not keep the others from being merged. In the present it is further
    /// ahead than by the window only if the collector's clock was set back.
    fn lower_horizon(&mut self, extent: Extent, wall: Timestamp) {
        let ahead = self.horizon.max(self.newest);
        if extent.latest >= ahead {
            return;
        }
        let reached = if self.era == Era::Present {
            if ahead <= wall + self.config.window + CLOCK_TOLERANCE {
                return;
            }
            wall
        } else {
            if extent.latest >= self.horizon || self.now.since(self.horizon_checked) < self.config.silence {
                return;
            }
            self.horizon_checked = self.now;
            let live = self.queues.iter().filter(|queue| queue.is_live(self.now, self.config.silence));
            let reached = live.map(|queue| queue.expected_time(self.now)).max().unwrap_or_default();
            if reached >= self.horizon {
                return;
            }
            reached
        };
        self.horizon = Timestamp::ZERO;
        self.newest = self.newest.min(reached);
        for (slot, queue) in (0..).zip(&self.queues) {
            self.tree.set(slot, queue.key(slot));
        }
    }

    /// Marks a source as ended: its queued packets are still handed out in order, and the merge no longer waits for it.
    pub(crate) fn end(&mut self, slot: u32) {
        let queue = &mut self.queues[slot as usize];
        self.running -= usize::from(!queue.ended);
        queue.ended = true;
        queue.sent_packets = false;
        self.tree.set(slot, queue.key(slot));
    }

    /// Marks all sources as ended. Everything that is queued is then due.
    pub(crate) fn finish(&mut self) {
        self.gathering_until = MonotonicTime::ZERO;
        for slot in 0..self.queues.len() {
            self.end(slot as u32);
        }
    }

    /// Frees the batch whose last run was handed out, and selects what is due by `now`.
    pub(crate) fn select(&mut self, now: MonotonicTime) -> Option<Selection> {
        self.now = self.now.max(now);
        self.departing = None;
        loop {
            if let Some((slot, limit)) = self.next_in_order() {
                return Some(Selection::InOrder { slot, limit });
            }
            if let Some(slot) = self.take_forced() {
                return Some(Selection::Early { slot });
            }
            let slot = self.overdue()?;
            self.force(slot);
        }
    }

    /// When there may be a run if no batch arrives before; `None` while nothing is queued.
    pub(crate) fn next_deadline(&self) -> Option<MonotonicTime> {
        if self.packets == 0 {
            return None;
        }
        let winner = self.tree.winner();
        if self.forced.is_some() || winner < Key::barrier(self.horizon, 0) {
            // The caller has not taken all runs that are due.
            return Some(self.now);
        }
        if self.is_gathering(self.now) {
            return Some(self.gathering_until);
        }
        match winner.kind() {
            Kind::Barrier => {
                let silent = self.queues[winner.slot() as usize].last_active + self.config.silence;
                Some(silent.min(self.overdue_at(self.oldest_wait)))
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

    /// Takes the selected run from the front of its source's queue.
    pub(crate) fn take_run(&mut self, selection: Selection) -> Option<PacketRun<'_, T>> {
        let (Selection::InOrder { slot, .. } | Selection::Early { slot }) = selection;
        let queue = self.queues.get_mut(slot as usize)?;
        let first = queue.batches.front_mut()?;
        let start = first.consumed;
        let run = match selection {
            Selection::InOrder { limit, .. } => first.measure_run(limit, self.newest),
            Selection::Early { .. } => first.measure_rest(self.newest),
        };
        self.newest = run.newest;
        self.packets -= u64::from(run.packets);
        if let Some(next) = run.next {
            first.consumed += run.len;
            first.packets -= run.packets;
            first.head = next;
        } else {
            self.departing = queue.pop();
            self.bytes -= self.departing.as_ref().map_or(0, |batch| batch.memory);
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
    pub(crate) fn force(&mut self, slot: u32) {
        let Some(first) = self.queues.get(slot as usize).and_then(|queue| queue.batches.front()) else {
            return;
        };
        let (number, head, trusted) = (first.number, first.head, first.trusted);
        self.forced = Some(ForcedBatch { slot, number });
        let reached = match self.era {
            Era::Present => trusted,
            Era::Past | Era::Future => self.reached_by_others(slot).min(trusted),
        };
        if head <= reached {
            self.horizon = self.horizon.max(reached);
        }
    }

    /// Ends the forcing of a batch. Returns its source if the batch is not gone yet: what is left of it goes out at once.
    fn take_forced(&mut self) -> Option<u32> {
        let ForcedBatch { slot, number } = self.forced.take()?;
        let first = self.queues[slot as usize].batches.front()?;
        (first.number == number).then_some(slot)
    }

    /// The time that at least half of the other live sources should have reached; [`Timestamp::ZERO`] if there are none
    /// to keep in order with.
    fn reached_by_others(&self, slot: u32) -> Timestamp {
        let others = self.queues().filter(|(other, _)| *other != slot).map(|(_, queue)| queue);
        let live = others.filter(|queue| queue.is_live(self.now, self.config.silence));
        let mut reached: Vec<Timestamp> = live.map(|queue| queue.expected_time(self.now)).collect();
        let half = reached.len() / 2;
        if reached.is_empty() { Timestamp::ZERO } else { *reached.select_nth_unstable(half).1 }
    }

    /// The source whose first batch has waited longest, if that is as long as a batch may wait.
    fn overdue(&mut self) -> Option<u32> {
        if self.packets == 0 || self.now < self.overdue_at(self.oldest_wait) {
            return None;
        }
        let firsts =
            self.queues().filter_map(|(slot, queue)| Some((queue.batches.front()?.waits_from, slot)));
        let (waits_from, slot) = firsts.min()?;
        self.oldest_wait = waits_from;
        (self.now >= self.overdue_at(waits_from)).then_some(slot)
    }

    /// When a batch that has been waiting since `waits_from` has waited for the window. The time spent gathering does not
    /// count, because no particular source was waited for.
    fn overdue_at(&self, waits_from: MonotonicTime) -> MonotonicTime {
        waits_from.max(self.gathering_until) + self.config.window
    }

    /// The source whose first batch ends before those of all others.
    pub(crate) fn first_to_end(&self) -> Option<u32> {
        let firsts = self.queues().filter_map(|(slot, queue)| Some((queue.batches.front()?.latest, slot)));
        firsts.min().map(|(_, slot)| slot)
    }

    #[cfg(test)]
    pub(crate) fn is_departing(&self) -> bool {
        self.departing.is_some()
    }
}
