//! The merge: packets of many sources leave in the order of their times.
//!
//! Each source competes with its first waiting packet. One that has none competes with its watermark, as a barrier: a
//! packet older than that may still come, so younger ones of others wait. Whatever wins, leaves; when a barrier wins,
//! everybody waits, until
//!
//! - the source behind the barrier speaks, ends, or has been silent for [`Config::silence`]; or
//! - a batch has waited for [`Config::window`]; or
//! - the batches that wait take more than [`Config::max_bytes`].
//!
//! In the latter two cases the *horizon* moves to the end of that batch: nobody waits any more for what is older, and a
//! slow source's packets from behind the horizon leave at once. A packet counts as late when it is older than one that
//! has left before it. Nothing is ever dropped.
//!
//! A source's own order stays as it is. Packets that a batch has out of order leave in their turn, and count as late
//! too.
//!
//! **Clocks that run ahead.** A source whose clock is an hour ahead would move the horizon an hour ahead, and no other
//! two sources would be merged for that hour. Therefore the horizon never goes further than at least half of the other
//! sources should have come, by what they said and the time since: the packets of a source that is ahead of most wait
//! for the window, then leave alone. The others, now older than what has left, count as late, which they are, but still
//! wait for one another.

use std::collections::HashMap;
use std::time::Duration;

use packet::Timestamp;
use packet::record::Extent;

use crate::lane::{Lane, Waiting};
use crate::tournament::{Key, Kind, Tournament};
use crate::{Mono, Run, SourceId};

/// How long packets wait, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a packet waits for older ones of slower sources (`MERGE_WINDOW`). Zero: not at all.
    pub window: Duration,
    /// How long everything waits at a beginning, so that sources which connect a moment later still come in order; half as
    /// long again after each that does. Never longer than the window.
    pub grace: Duration,
    /// After this long without a packet or a later watermark nobody waits for a source, until there is one again.
    pub silence: Duration,
    /// The most bytes of batches that wait. Memory comes free by the batch, so this is what batches take as long as any
    /// packet of theirs is here.
    pub max_bytes: usize,
}

impl Default for Config {
    /// 200 ms; 100 ms, in which captures find a new collector; 2 s, which is several heartbeats; 128 MiB, which is two batches of 256 KiB from each of 256 sources.
    fn default() -> Self {
        Self {
            window: Duration::from_millis(200),
            grace: Duration::from_millis(100),
            silence: Duration::from_secs(2),
            max_bytes: 128 << 20,
        }
    }
}

/// A batch that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<B, T = ()> {
    /// Whose it is.
    pub source: SourceId,
    /// What its runs shall carry: the link type, the interface.
    pub tag: T,
    /// Records from the first byte to the last, as [`packet::record`] has them. It is dropped when the last of them has
    /// left.
    pub payload: B,
    /// What a walk over the records finds. Without packets it is a heartbeat.
    pub extent: Extent,
    /// No later batch of this source holds an older packet.
    pub watermark: Timestamp,
}

/// Many sources in, one order out. `B` is what holds a batch's records, `T` what each run of a batch carries along.
#[derive(Debug)]
pub struct Merge<B, T = ()> {
    config: Config,
    /// The sources; a source's place is its slot.
    lanes: Vec<Lane<B, T>>,
    slots: HashMap<SourceId, u32>,
    /// Slots of removed sources.
    free: Vec<u32>,
    tree: Tournament,
    /// How many sources have not ended.
    running: usize,
    /// Until then everything waits, so that sources which connect a moment later still come in order.
    opens: Option<Mono>,
    /// When the beginning was.
    began: Mono,
    /// Nobody waits for what is older.
    horizon: Timestamp,
    /// The latest time of all packets that have left.
    newest: Timestamp,
    /// Batches with packets that ever came.
    numbered: u64,
    /// No batch that waits came before. Looking for the one that came first takes a look at every source, so that is
    /// done only when this says that one may be overdue.
    oldest: Mono,
    packets: u64,
    bytes: usize,
    now: Mono,
}

impl<B: AsRef<[u8]>, T: Copy> Merge<B, T> {
    /// Without a source.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            lanes: Vec::new(),
            slots: HashMap::new(),
            free: Vec::new(),
            tree: Tournament::new(),
            running: 0,
            opens: None,
            began: Mono::ZERO,
            horizon: Timestamp::ZERO,
            newest: Timestamp::ZERO,
            numbered: 0,
            oldest: Mono::ZERO,
            packets: 0,
            bytes: 0,
            now: Mono::ZERO,
        }
    }

    /// Packets that wait.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes of the batches that wait: as much as their payloads have, until their last packet has left.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this is a beginning, and everything waits for sources that are still to come. Who need not take more batches
    /// in just now does better to wait until it is over: what memory has no room for leaves, in order or not.
    #[must_use]
    pub fn is_gathering(&self, now: Mono) -> bool {
        self.opens.is_some_and(|opens| now < opens)
    }

    /// Takes a batch in. A source begins with its first batch, and begins again with one after [`Merge::end`].
    pub fn push(&mut self, arrival: Arrival<B, T>, now: Mono) {
        let Arrival { source, tag, payload, extent, watermark } = arrival;
        self.now = self.now.max(now);
        if self.running == 0 && self.packets == 0 {
            // A beginning, and not only the first one: files that are replayed a second time are merged like the first.
            self.began = self.now;
            self.opens = Some(self.now + self.config.grace.min(self.config.window));
            self.horizon = Timestamp::ZERO;
        }
        let slot = self.slot(source);
        let lane = &mut self.lanes[slot as usize];
        self.running += usize::from(lane.ended);
        if lane.ended
            && let Some(opens) = &mut self.opens
        {
            // Where one comes, more may: as long as this is a beginning, they are waited for.
            let longer = self.now + self.config.grace / 2;
            if self.now < *opens {
                *opens = longer.max(*opens).min(self.began + self.config.window);
            }
        }
        // A source that only repeats itself, such as a pipe on which nothing comes, says nothing: nobody waits for it longer
        // than for one that is silent.
        if lane.ended || extent.packets > 0 || watermark > lane.watermark {
            lane.heard = self.now;
        }
        (lane.ended, lane.removed, lane.watermark) = (false, false, watermark);
        if extent.packets > 0 {
            if self.packets == 0 {
                self.oldest = self.now;
            }
            self.numbered += 1;
            self.packets += u64::from(extent.packets);
            self.bytes += payload.as_ref().len();
            lane.queue.push_back(Waiting::new(self.numbered, self.now, tag, payload, extent));
            if lane.queue.len() > 1 {
                return;
            }
        }
        self.tree.set(slot, lane.key(slot));
    }

    /// The slot of a source, known or new.
    fn slot(&mut self, source: SourceId) -> u32 {
        *self.slots.entry(source).or_insert_with(|| {
            if let Some(slot) = self.free.pop() {
                self.lanes[slot as usize] = Lane::new(source);
                return slot;
            }
            self.lanes.push(Lane::new(source));
            (self.lanes.len() - 1) as u32
        })
    }

    /// A source has ended: what it sent still leaves in order, and nobody waits for more.
    pub fn end(&mut self, source: SourceId) {
        if let Some(&slot) = self.slots.get(&source) {
            let lane = &mut self.lanes[slot as usize];
            self.running -= usize::from(!lane.ended);
            lane.ended = true;
            self.tree.set(slot, lane.key(slot));
        }
    }

    /// A source has ended and is forgotten, once what it sent has left.
    pub fn remove(&mut self, source: SourceId) {
        self.end(source);
        if let Some(&slot) = self.slots.get(&source) {
            self.lanes[slot as usize].removed = true;
            self.reap(slot);
        }
    }

    /// Frees the slot of a removed source without packets.
    fn reap(&mut self, slot: u32) {
        let lane = &self.lanes[slot as usize];
        if lane.removed && lane.queue.is_empty() {
            self.slots.remove(&lane.source);
            self.free.push(slot);
        }
    }

    /// Hands out what may leave by now.
    pub fn poll(&mut self, now: Mono, out: &mut impl FnMut(Run<'_, T>)) {
        self.now = self.now.max(now);
        self.leave(out);
        while let Some(slot) = self.overdue() {
            self.force(slot, out);
        }
        while self.bytes > self.config.max_bytes {
            let Some(slot) = self.first_to_end() else { break };
            self.force(slot, out);
        }
    }

    /// Ends all sources, and hands out everything.
    pub fn finish(&mut self, out: &mut impl FnMut(Run<'_, T>)) {
        self.opens = None;
        for slot in 0..self.lanes.len() {
            let source = self.lanes[slot].source;
            self.end(source);
        }
        self.leave(out);
    }

    /// When [`Merge::poll`] must be called if no batch comes before; `None` while nothing waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.packets == 0 {
            return None;
        }
        if let Some(opens) = self.opens.filter(|opens| self.now < *opens) {
            return Some(opens);
        }
        let winner = self.tree.winner();
        match winner.kind() {
            Kind::Barrier => {
                let silent = self.lanes[winner.slot() as usize].heard + self.config.silence;
                Some(silent.min(self.patient_until(self.oldest)))
            }
            Kind::Packet | Kind::Never => Some(self.now),
        }
    }

    /// Hands out packets until a barrier wins.
    fn leave(&mut self, out: &mut impl FnMut(Run<'_, T>)) {
        // Before the merge opens, only what is behind the horizon leaves: what memory had no room for.
        let bound =
            if self.opens.is_some_and(|opens| self.now < opens) { self.horizon } else { Timestamp::MAX };
        loop {
            let winner = self.tree.winner();
            let slot = winner.slot();
            match winner.kind() {
                Kind::Packet if winner.time() <= bound => {
                    let limit = self.tree.best_but(slot).limit_for(slot).min(bound);
                    self.emit(slot, limit, out);
                }
                Kind::Packet | Kind::Never => return,
                // Nobody waits for what is behind the horizon. It may have moved there since; now is when it matters.
                Kind::Barrier if winner.time() < self.horizon => {
                    self.tree.set(slot, Key::barrier(self.horizon, slot));
                }
                Kind::Barrier => {
                    if self.lanes[slot as usize].is_live(self.now, self.config.silence) {
                        return;
                    }
                    self.tree.set(slot, Key::NEVER);
                }
            }
        }
    }

    /// Hands out the run at the front of a source, which has packets: up to `limit`.
    fn emit(&mut self, slot: u32, limit: Timestamp, out: &mut impl FnMut(Run<'_, T>)) {
        let lane = &mut self.lanes[slot as usize];
        let Some(first) = lane.queue.front_mut() else { return };
        let stretch = first.stretch(limit, self.newest);
        out(Run {
            source: lane.source,
            tag: first.tag,
            bytes: first.rest().get(..stretch.len).unwrap_or_default(),
            packets: stretch.packets,
            late: stretch.late,
        });
        self.newest = stretch.newest;
        self.packets -= u64::from(stretch.packets);
        if let Some(next) = stretch.next {
            first.gone += stretch.len;
            first.packets -= stretch.packets;
            first.head = next;
        } else {
            self.bytes -= first.payload.as_ref().len();
            lane.queue.pop_front();
        }
        self.tree.set(slot, lane.key(slot));
        if lane.removed {
            self.reap(slot);
        }
    }

    /// Lets the first batch of a source leave now, in its place if it has one.
    fn force(&mut self, slot: u32, out: &mut impl FnMut(Run<'_, T>)) {
        let Some(first) = self.lanes[slot as usize].queue.front() else { return };
        let (number, head, latest) = (first.number, first.head, first.latest);
        let reach = self.reach_of_others(slot);
        if head <= reach {
            self.horizon = self.horizon.max(latest.min(reach));
            self.leave(out);
        }
        // What is left of it is ahead of most sources, and leaves alone.
        if self.lanes[slot as usize].queue.front().is_some_and(|first| first.number == number) {
            self.emit(slot, Timestamp::MAX, out);
            self.leave(out);
        }
    }

    /// How far at least half of the other live sources should have come; without others, there is nobody to keep in
    /// order with.
    fn reach_of_others(&self, slot: u32) -> Timestamp {
        let mut reached: Vec<Timestamp> = (0_u32..)
            .zip(&self.lanes)
            .filter(|(other, lane)| *other != slot && lane.is_live(self.now, self.config.silence))
            .map(|(_, lane)| lane.reach(self.now))
            .collect();
        let half = reached.len() / 2;
        if reached.is_empty() { Timestamp::ZERO } else { *reached.select_nth_unstable(half).1 }
    }

    /// The source whose first batch has waited longest, if that is as long as a batch may.
    fn overdue(&mut self) -> Option<u32> {
        if self.packets == 0 || self.now < self.patient_until(self.oldest) {
            return None;
        }
        let (arrived, slot) = self.first_batches().map(|(slot, first)| (first.arrived, slot)).min()?;
        self.oldest = arrived;
        (self.now >= self.patient_until(arrived)).then_some(slot)
    }

    /// When a batch that arrived then has waited long enough. What came at a beginning waits from its end on: until then it
    /// was not waiting for anybody in particular.
    fn patient_until(&self, arrived: Mono) -> Mono {
        self.opens.map_or(arrived, |opens| arrived.max(opens)) + self.config.window
    }

    /// The source whose first batch ends before those of all others.
    fn first_to_end(&self) -> Option<u32> {
        self.first_batches().map(|(slot, first)| (first.latest, slot)).min().map(|(_, slot)| slot)
    }

    fn first_batches(&self) -> impl Iterator<Item = (u32, &Waiting<B, T>)> {
        (0_u32..).zip(&self.lanes).filter_map(|(slot, lane)| Some((slot, lane.queue.front()?)))
    }
}

#[cfg(test)]
mod tests;
