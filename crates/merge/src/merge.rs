//! The merge: packets of many sources leave in timestamp order.
//!
//! Sources whose clocks have nothing to do with one another are merged apart ([`Era`]), each as [`EraMerge`] describes:
//! a packet waits for older ones of slower sources, but no longer than for the window. Nothing is ever dropped, and the
//! order within a source never changes. If a batch is not in time order itself, its older packets wait behind the newer
//! ones before them.
//!
//! A packet is *late* if it is out of order among the packets of its era: older than one handed out before it, or handed
//! out early, before packets of other sources that should have preceded it. Without the late packets of an era, the
//! others are in order.
//!
//! **When memory is short**, the sender that uses the most gives way: the first batch of a source that holds more than half
//! of all, or else of the sender that holds the most, leaves early, and the others keep their order. Only if there is one
//! sender, so that the order would be no better for it, everything up to the end of the first batch goes out in order, and
//! those that have not sent theirs are late.

use std::collections::HashMap;
use std::time::Duration;

use packet::record::Extent;
use packet::{SourceId, Timestamp};

use crate::MonotonicTime;
use crate::era::Era;
use crate::era_merge::{EraMerge, Selection};
use crate::source_queue::{QueuedBatch, SourceQueue};

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

/// A sender of batches, perhaps of many sources. Senders get equal shares of the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenderId(pub u64);

/// A batch to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<B, T = ()> {
    /// The source it comes from.
    pub source: SourceId,
    /// Who sent it.
    pub sender: SenderId,
    /// Passed on with each run of the batch, for example the output interface.
    pub tag: T,
    /// Nothing but [`packet::record`]s. Dropped after its last packet has been handed out.
    pub payload: B,
    /// The memory of the payload in bytes: what is freed when it is dropped.
    pub memory: usize,
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
    /// How many of them are late: out of order.
    pub late: u32,
}

/// Many sources in, one order out. `B` holds the records of a batch, `T` is the tag that each run of a batch carries.
#[derive(Debug)]
pub struct Merge<B, T = ()> {
    config: MergeConfig,
    /// By [`Era`].
    eras: [EraMerge<B, T>; Era::ALL.len()],
    sources: HashMap<SourceId, Place>,
    now: MonotonicTime,
}

/// Where the queue of a source is.
#[derive(Clone, Copy, Debug)]
struct Place {
    era: Era,
    slot: u32,
}

/// What a sender takes.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    bytes: usize,
    running: usize,
    /// The most that one of its sources takes, and that source.
    largest: Option<(usize, Era, u32)>,
    /// The first of the latest times of its sources' first batches, and that source.
    first_to_end: Option<(Timestamp, Era, u32)>,
}

impl<B: AsRef<[u8]>, T: Copy> Merge<B, T> {
    /// What a queued batch takes besides its payload: its place in the queue, which grows by doubling, and the
    /// allocator's share.
    pub const BATCH_OVERHEAD: usize = 2 * size_of::<QueuedBatch<B, T>>() + 32;

    /// Creates a merge without sources.
    #[must_use]
    pub fn new(config: MergeConfig) -> Self {
        Self {
            config,
            eras: Era::ALL.map(|era| EraMerge::new(era, config)),
            sources: HashMap::new(),
            now: MonotonicTime::ZERO,
        }
    }

    /// The number of queued packets.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.eras.iter().map(EraMerge::packets).sum()
    }

    /// The memory of all queued batches in bytes: their payloads' and [`BATCH_OVERHEAD`](Self::BATCH_OVERHEAD) for each. A
    /// batch counts in full until its last run is handed out.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.eras.iter().map(EraMerge::bytes).sum()
    }

    /// Whether everything waits for further sources to appear. A caller that can hold back batches should do so while
    /// memory is short: batches above [`MergeConfig::max_bytes`] are handed out at once, in order or not.
    #[must_use]
    pub fn is_gathering(&self, now: MonotonicTime) -> bool {
        let mut running = self.eras.iter().filter(|era| era.is_running()).peekable();
        running.peek().is_some() && running.all(|era| era.is_gathering(now))
    }

    /// Whether the queued batches take more than [`MergeConfig::max_bytes`], so that [`Merge::next_run`] has a run.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.bytes() > self.config.max_bytes
    }

    /// Adds a batch that arrived at `now`, which is `wall` by the collector's clock. A source starts with its first batch,
    /// and starts again with the first one after [`Merge::end`].
    ///
    /// Returns whether the batch is ahead of the collector's clock by more than the window and a second, so that it is
    /// merged apart.
    pub fn push(&mut self, arrival: Arrival<B, T>, now: MonotonicTime, wall: Timestamp) -> bool {
        self.now = self.now.max(now);
        let time = arrival.extent.latest.max(arrival.watermark);
        let memory = if arrival.extent.packets == 0 { 0 } else { arrival.memory + Self::BATCH_OVERHEAD };
        let (place, ahead) = self.place(arrival.source, arrival.sender, time, wall);
        self.eras[place.era as usize].push(place.slot, arrival, memory, (self.now, wall));
        ahead
    }

    /// The place for a batch of a source. A source moves to another era only while nothing of it is queued.
    fn place(
        &mut self,
        source: SourceId,
        sender: SenderId,
        time: Timestamp,
        wall: Timestamp,
    ) -> (Place, bool) {
        let place = self.sources.get(&source).copied();
        let queue = place
            .and_then(|place| self.eras[place.era as usize].queue(place.slot).map(|queue| (place, queue)));
        let current = queue.filter(|(_, queue)| queue.sent_packets).map(|(place, _)| place.era);
        let era = Era::of(time, wall, self.config.window, current);
        let is_queued = queue.is_some_and(|(_, queue)| !queue.batches.is_empty());
        let place = match place {
            Some(place) if place.era == era || is_queued => place,
            _ => {
                if let Some(place) = place {
                    self.eras[place.era as usize].remove(place.slot);
                }
                let slot = self.eras[era as usize].add(SourceQueue::new(source, sender));
                let place = Place { era, slot };
                self.sources.insert(source, place);
                place
            }
        };
        (place, era == Era::Future)
    }

    /// Marks a source as ended: its queued packets are still handed out in order, and the merge no longer waits for it.
    pub fn end(&mut self, source: SourceId) {
        if let Some(place) = self.sources.get(&source) {
            self.eras[place.era as usize].end(place.slot);
        }
    }

    /// Forgets a source. Returns false, and does nothing, if packets of it are queued.
    pub fn forget(&mut self, source: SourceId) -> bool {
        let Some(&Place { era, slot }) = self.sources.get(&source) else { return true };
        let era = &mut self.eras[era as usize];
        let is_queued = era.queue(slot).is_some_and(|queue| !queue.batches.is_empty());
        if !is_queued {
            era.remove(slot);
            self.sources.remove(&source);
        }
        !is_queued
    }

    /// Marks all sources as ended. [`Merge::next_run`] then hands out everything that is queued.
    pub fn finish(&mut self) {
        self.eras.iter_mut().for_each(EraMerge::finish);
    }

    /// The next run that is due by `now`; `None` if everything that is left has to wait.
    ///
    /// Nothing happens between two calls, so the caller may stop after any run and continue later. A batch is freed by
    /// the call after the one that handed out its last run.
    pub fn next_run(&mut self, now: MonotonicTime) -> Option<PacketRun<'_, T>> {
        self.now = self.now.max(now);
        let (era, selection) = loop {
            let due = Era::ALL.into_iter().find_map(|era| {
                let merge = &mut self.eras[era as usize];
                // Mostly there is one era. The others must not cost anything for every run.
                if merge.is_unused() { None } else { Some((era, merge.select(self.now)?)) }
            });
            match due {
                Some(due) => break due,
                None if self.is_over_limit() => {
                    if let Some(early) = self.give_way() {
                        break early;
                    }
                }
                None => return None,
            }
        };
        self.eras[era as usize].take_run(selection)
    }

    /// When [`Merge::next_run`] may have a run if no batch arrives before; `None` while nothing is queued.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicTime> {
        if self.is_over_limit() {
            return Some(self.now);
        }
        self.eras.iter().filter_map(EraMerge::next_deadline).min()
    }

    /// Makes room: selects a batch that leaves early, or begins to force one out. Something is queued.
    fn give_way(&mut self) -> Option<(Era, Selection)> {
        let shares = self.shares();
        let running: usize = shares.values().map(|share| share.running).sum();
        let most = shares.values().max_by_key(|share| share.bytes)?;
        let (bytes, era, slot) = most.largest?;
        if bytes > most.bytes / 2 && running > 1 {
            return Some((era, Selection::Early { slot }));
        }
        let (_, era, slot) = most.first_to_end?;
        if running > most.running {
            return Some((era, Selection::Early { slot }));
        }
        let era = self.eras.iter_mut().max_by_key(|era| era.bytes())?;
        let slot = era.first_to_end()?;
        era.force(slot);
        None
    }

    /// What each sender takes. It is computed only while memory is short, when each call frees a batch.
    fn shares(&self) -> HashMap<SenderId, Share> {
        let mut shares: HashMap<_, Share> = HashMap::new();
        for (era, merge) in Era::ALL.into_iter().zip(&self.eras) {
            for (slot, queue) in merge.queues() {
                let share = shares.entry(queue.sender).or_default();
                share.running += usize::from(!queue.ended);
                let Some(first) = queue.batches.front() else { continue };
                share.bytes += queue.bytes;
                if share.largest.is_none_or(|(bytes, ..)| queue.bytes > bytes) {
                    share.largest = Some((queue.bytes, era, slot));
                }
                if share.first_to_end.is_none_or(|(latest, ..)| first.latest < latest) {
                    share.first_to_end = Some((first.latest, era, slot));
                }
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests;
