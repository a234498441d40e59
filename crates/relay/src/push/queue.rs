//! Batches that wait to be sent, bounded in bytes, and the accounts of what became of them.

use std::collections::{HashMap, VecDeque};

use batch::Batch;
use packet::Origin;

/// Batches that end their origin, and are not dropped: two for each TZSP router that a capture can have. Any host can make
/// up routers.
const MAX_ENDS: usize = 8192;

/// What happens when a batch does not fit into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverflowPolicy {
    /// The oldest batches are dropped and counted: for live packets.
    DropOldest,
    /// The caller blocks until there is room: for files.
    Block,
}

/// The phase of a relay's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Batches are accepted. If `blocking`, callers wait for room.
    Open { blocking: bool },
    /// No more batches are accepted, what is left is sent. If `blocking`, without a time limit.
    Draining { blocking: bool },
    /// What is left is not sent.
    Abandoned,
}

/// A queue of batches. All counts are since the start.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    policy: OverflowPolicy,
    phase: Phase,
    batches: VecDeque<Batch>,
    /// How many of them end their origin.
    ends: usize,
    queued: Load,
    /// Batches that were taken out, until the kernel has all of them.
    in_flight: Load,
    sent: Sent,
    dropped_packets: u64,
    dropped_by_origin: HashMap<Origin, u64>,
    /// Packets that the queue, or the sender, still held when it was abandoned.
    undelivered: u64,
}

/// Batches, and the memory that they use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) batches: u64,
    pub(super) packets: u64,
    pub(super) bytes: usize,
}

impl Load {
    pub(super) fn of(batch: &Batch) -> Self {
        Self { batches: 1, packets: batch.packets().into(), bytes: batch.memory() }
    }

    fn add(&mut self, other: Self) {
        self.batches += other.batches;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.batches -= other.batches;
        self.packets -= other.packets;
        self.bytes -= other.bytes;
    }
}

/// What the kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) batches: u64,
    pub(super) packets: u64,
    /// Bytes of messages.
    pub(super) bytes: u64,
}

/// What [`Queue::pop`] returns.
#[derive(Debug)]
pub(super) struct Dequeued {
    pub(super) batch: Batch,
    /// Packets of the batch's origin that were dropped so far.
    pub(super) dropped: u64,
}

impl Queue {
    /// A queue of batches that use up to `limit` bytes of memory.
    pub(super) fn new(limit: usize, policy: OverflowPolicy) -> Self {
        Self {
            limit,
            policy,
            phase: Phase::Open { blocking: policy == OverflowPolicy::Block },
            batches: VecDeque::new(),
            ends: 0,
            queued: Load::default(),
            in_flight: Load::default(),
            sent: Sent::default(),
            dropped_packets: 0,
            dropped_by_origin: HashMap::new(),
            undelivered: 0,
        }
    }

    /// Whether the caller must wait before it pushes `batch`. What is in flight does not count here: it is released
    /// without a wakeup of the caller.
    pub(super) fn must_wait(&self, batch: &Batch) -> bool {
        self.phase == Phase::Open { blocking: true }
            && !self.batches.is_empty()
            && self.queued.bytes + batch.memory() > self.limit
    }

    /// Appends a batch. Unless callers block, the oldest batches make room for it. Once the queue is closed, the batch is
    /// dropped.
    pub(super) fn push(&mut self, batch: Batch) {
        if self.is_closed() {
            self.count_dropped(&batch.interface().origin, batch.packets().into());
            return;
        }
        if self.policy == OverflowPolicy::DropOldest {
            let needed = batch.memory() + self.in_flight.bytes;
            while self.queued.bytes + needed > self.limit && self.drop_oldest() {}
        }
        // A newer heartbeat replaces an older one.
        if batch.is_heartbeat() {
            let mut newest = self.batches.iter_mut().rev().take_while(|waiting| waiting.is_heartbeat());
            if let Some(older) = newest.find(|w| w.interface().origin == batch.interface().origin) {
                self.queued.subtract(Load::of(older));
                self.queued.add(Load::of(&batch));
                *older = batch;
                return;
            }
        }
        self.queued.add(Load::of(&batch));
        self.ends += usize::from(batch.ends());
        self.batches.push_back(batch);
    }

    /// Drops the oldest batch that does not end its source: an end uses next to no memory, and must arrive, unless there
    /// are very many. False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let too_many = self.ends > MAX_ENDS;
        let Some(at) = self.batches.iter().position(|batch| too_many || !batch.ends()) else { return false };
        let Some(batch) = self.batches.remove(at) else { return false };
        self.ends -= usize::from(batch.ends());
        self.queued.subtract(Load::of(&batch));
        self.count_dropped(&batch.interface().origin, batch.packets().into());
        if batch.ends() {
            // Nothing of the origin is left to report it with.
            self.dropped_by_origin.remove(&batch.interface().origin);
        }
        true
    }

    /// Takes the oldest batch out. It is in flight until [`Queue::release`].
    pub(super) fn pop(&mut self) -> Option<Dequeued> {
        let batch = self.batches.pop_front()?;
        self.queued.subtract(Load::of(&batch));
        self.in_flight.add(Load::of(&batch));
        let origin = &batch.interface().origin;
        let dropped = if batch.ends() {
            self.ends -= 1;
            // The next run of the origin counts from 0.
            self.dropped_by_origin.remove(origin)
        } else {
            self.dropped_by_origin.get(origin).copied()
        };
        Some(Dequeued { batch, dropped: dropped.unwrap_or(0) })
    }

    /// A batch in flight now uses other memory than before.
    pub(super) fn resize_in_flight(&mut self, before: usize, after: usize) {
        self.in_flight.bytes = self.in_flight.bytes - before + after;
    }

    /// A batch is no longer in flight.
    pub(super) fn release(&mut self, load: Load) {
        self.in_flight.subtract(load);
    }

    /// Counts a batch that is with the kernel.
    pub(super) fn count_sent(&mut self, packets: u64, bytes: u64) {
        self.sent.batches += 1;
        self.sent.packets += packets;
        self.sent.bytes += bytes;
    }

    /// Counts packets that were never sent.
    pub(super) fn count_dropped(&mut self, origin: &Origin, packets: u64) {
        if packets == 0 {
            return;
        }
        self.dropped_packets += packets;
        match self.dropped_by_origin.get_mut(origin) {
            Some(dropped) => *dropped += packets,
            None => _ = self.dropped_by_origin.insert(origin.clone(), packets),
        }
        if self.phase == Phase::Abandoned {
            self.undelivered += packets;
        }
    }

    /// Callers no longer wait for room, and a draining queue no longer waits for its collector.
    pub(super) fn stop_waiting(&mut self) {
        if let Phase::Open { blocking } | Phase::Draining { blocking } = &mut self.phase {
            *blocking = false;
        }
    }

    /// No more batches are accepted.
    pub(super) fn close(&mut self) {
        if let Phase::Open { blocking } = self.phase {
            self.phase = Phase::Draining { blocking };
        }
    }

    /// What is left is dropped.
    pub(super) fn abandon(&mut self) {
        self.phase = Phase::Abandoned;
        (self.queued, self.ends) = (Load::default(), 0);
        for batch in std::mem::take(&mut self.batches) {
            self.count_dropped(&batch.interface().origin, batch.packets().into());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.phase, Phase::Open { .. })
    }

    /// Whether a closed queue waits for its collector without a time limit.
    pub(super) fn is_draining_without_limit(&self) -> bool {
        self.phase == Phase::Draining { blocking: true }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.phase == Phase::Abandoned
    }

    /// Whether the queue is closed, and everything in it is with the kernel.
    pub(super) fn is_drained(&self) -> bool {
        self.is_closed() && self.batches.is_empty() && self.in_flight.batches == 0
    }

    /// What waits, in the queue and in the sender.
    pub(super) fn load(&self) -> Load {
        let mut load = self.queued;
        load.add(self.in_flight);
        load
    }

    pub(super) fn in_flight(&self) -> Load {
        self.in_flight
    }

    pub(super) fn sent(&self) -> Sent {
        self.sent
    }

    pub(super) fn dropped_packets(&self) -> u64 {
        self.dropped_packets
    }

    pub(super) fn undelivered(&self) -> u64 {
        self.undelivered
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::batch;
    use super::*;

    /// What the next batch is: packets, whether it ends its source, packets of its origin dropped so far.
    fn pop(queue: &mut Queue) -> Option<(u32, bool, u64)> {
        let Dequeued { batch, dropped } = queue.pop()?;
        queue.release(Load::of(&batch));
        Some((batch.packets(), batch.ends(), dropped))
    }

    fn queue_of(limit: usize, policy: OverflowPolicy, packets: &[usize]) -> Queue {
        let mut queue = Queue::new(limit, policy);
        for &packets in packets {
            queue.push(batch("a", packets, false));
        }
        queue
    }

    #[test]
    fn oldest_batch_is_dropped_and_counted() {
        let one = batch("a", 10, false).memory();
        let mut queue = queue_of(3 * one, OverflowPolicy::DropOldest, &[10, 9, 8, 7]);
        assert_eq!((queue.dropped_packets(), queue.load().packets), (10, 24));
        assert_eq!(pop(&mut queue), Some((9, false, 10)));
        assert_eq!(pop(&mut queue), Some((8, false, 10)));
        assert_eq!(pop(&mut queue), Some((7, false, 10)));
        assert_eq!(pop(&mut queue), None);
        assert_eq!((queue.dropped_packets(), queue.load()), (10, Load::default()));
    }

    #[test]
    fn batches_in_flight_take_room() {
        let one = batch("a", 10, false).memory();
        let mut queue = queue_of(3 * one, OverflowPolicy::DropOldest, &[10, 9]);
        let in_flight = queue.pop().unwrap();
        queue.push(batch("a", 8, false));
        queue.push(batch("a", 7, false));
        assert_eq!((queue.dropped_packets(), queue.load().packets), (9, 10 + 8 + 7));
        queue.release(Load::of(&in_flight.batch));
        queue.push(batch("a", 6, false));
        assert_eq!((queue.dropped_packets(), queue.load().packets), (9, 8 + 7 + 6));
    }

    #[test]
    fn a_compressed_batch_takes_less_room() {
        let mut queue = queue_of(usize::MAX, OverflowPolicy::DropOldest, &[10]);
        let mut load = Load::of(&queue.pop().unwrap().batch);
        queue.resize_in_flight(load.bytes, 100);
        load.bytes = 100;
        assert_eq!(queue.load(), load);
        queue.release(load);
        assert_eq!(queue.load(), Load::default());
    }

    #[test]
    fn drops_are_counted_per_origin_and_an_end_is_never_dropped() {
        let mut queue = Queue::new(1, OverflowPolicy::DropOldest);
        queue.push(batch("a", 2, true));
        queue.push(batch("b", 3, false));
        queue.push(batch("b", 4, false));
        queue.push(batch("c", 5, false));
        assert_eq!(pop(&mut queue), Some((2, true, 0)));
        assert_eq!(pop(&mut queue), Some((5, false, 0)));
        queue.push(batch("b", 6, false));
        assert_eq!(pop(&mut queue), Some((6, false, 7)));
        assert_eq!(queue.dropped_packets(), 7);
    }

    #[test]
    fn ends_of_made_up_origins_do_not_pile_up() {
        let mut queue = Queue::new(1, OverflowPolicy::DropOldest);
        for number in 0..MAX_ENDS + 100 {
            queue.push(batch(&number.to_string(), 1, true));
        }
        assert_eq!(queue.load().batches, MAX_ENDS as u64 + 1);
        assert_eq!(queue.dropped_packets(), 99);
        assert!(queue.dropped_by_origin.is_empty());
        assert!(queue.pop().is_some_and(|dequeued| &*dequeued.batch.interface().origin.device == "99"));
    }

    #[test]
    fn an_origin_that_starts_again_has_not_dropped_anything() {
        let mut queue = Queue::new(1, OverflowPolicy::DropOldest);
        queue.push(batch("a", 3, false));
        queue.push(batch("a", 0, true));
        assert_eq!(pop(&mut queue), Some((0, true, 3)));
        queue.push(batch("a", 4, false));
        assert_eq!(pop(&mut queue), Some((4, false, 0)));
        assert!(queue.dropped_by_origin.is_empty());
    }

    #[test]
    fn a_heartbeat_replaces_the_one_before() {
        let mut queue = Queue::new(1 << 20, OverflowPolicy::DropOldest);
        for device in ["a", "a", "b", "a", "b"] {
            queue.push(batch(device, 0, false));
        }
        queue.push(batch("a", 1, false));
        queue.push(batch("a", 0, false));
        assert_eq!(std::iter::from_fn(|| pop(&mut queue)).count(), 4);
        assert_eq!(queue.load(), Load::default());
    }

    #[test]
    fn callers_wait_only_while_the_queue_blocks() {
        let next = batch("a", 10, false);
        let limit = 2 * next.memory() - 1;
        let mut queue = queue_of(limit, OverflowPolicy::Block, &[]);
        assert!(!queue.must_wait(&next), "an empty queue has room for any batch");
        queue.push(batch("a", 10, false));
        assert!(queue.must_wait(&next));
        queue.stop_waiting();
        assert!(!queue.must_wait(&next));
        queue.push(next.clone());
        assert_eq!((queue.load().packets, queue.dropped_packets()), (20, 0));

        let queue = queue_of(limit, OverflowPolicy::DropOldest, &[10]);
        assert!(!queue.must_wait(&next));
    }

    #[test]
    fn a_closed_queue_drains_what_it_has_and_drops_what_comes() {
        let mut queue = queue_of(1 << 20, OverflowPolicy::DropOldest, &[1]);
        queue.close();
        queue.push(batch("a", 2, false));
        assert!(!queue.is_drained());
        let in_flight = queue.pop().unwrap();
        assert!(!queue.is_drained());
        queue.release(Load::of(&in_flight.batch));
        assert!(queue.is_drained());
        assert_eq!((queue.dropped_packets(), queue.undelivered()), (2, 0));
    }

    #[test]
    fn only_a_blocking_queue_drains_without_limit() {
        let mut queue = queue_of(1, OverflowPolicy::Block, &[]);
        assert!(!queue.is_draining_without_limit());
        queue.close();
        assert!(queue.is_draining_without_limit());
        queue.stop_waiting();
        assert!(!queue.is_draining_without_limit());

        let mut queue = queue_of(1, OverflowPolicy::DropOldest, &[]);
        queue.close();
        assert!(!queue.is_draining_without_limit());
    }

    #[test]
    fn an_abandoned_queue_counts_what_is_left_as_undelivered() {
        let mut queue = queue_of(1 << 20, OverflowPolicy::DropOldest, &[1, 2, 4, 8]);
        queue.count_dropped(&batch("b", 0, false).interface().origin, 100);
        let sent = queue.pop().unwrap();
        queue.count_sent(1, 1000);
        queue.release(Load::of(&sent.batch));
        let unsent = queue.pop().unwrap();
        queue.close();
        queue.abandon();
        assert!(queue.is_abandoned() && queue.is_closed() && queue.is_empty() && !queue.is_drained());
        assert_eq!(queue.undelivered(), 4 + 8);
        queue.count_dropped(&unsent.batch.interface().origin, 2);
        queue.release(Load::of(&unsent.batch));
        assert_eq!((queue.undelivered(), queue.dropped_packets()), (14, 114));
        assert_eq!((queue.sent().packets, queue.load()), (1, Load::default()));
    }
}
