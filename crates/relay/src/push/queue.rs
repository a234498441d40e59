//! Batches that wait to be sent: bounded in bytes, oldest first out, oldest first shed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batch::Batch;
use packet::Origin;

/// What happens when there is no room for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest batches are shed, and counted: for packets that do not wait.
    Shed,
    /// Who hands it over waits: for files.
    Wait,
}

/// Batches that wait.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    when_full: WhenFull,
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    /// Memory that they take.
    bytes: usize,
    packets: u64,
    /// Packets shed, by origin.
    dropped: HashMap<Origin, u64>,
    dropped_packets: u64,
    /// Nobody is to wait for room any more.
    hurried: bool,
    /// No batch comes any more.
    closed: bool,
    /// A batch was taken out, and is not sent yet.
    one_out: bool,
    /// What is left is not to be sent any more.
    abandoned: bool,
}

/// How much waits, and how much was shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) bytes: usize,
    pub(super) packets: u64,
    pub(super) dropped_packets: u64,
}

/// What [`Queue::pop`] found.
#[derive(Debug)]
pub(super) enum Popped {
    /// The oldest batch, and how many packets of its origin have been shed so far.
    Batch(Box<Batch>, u64),
    /// Nothing, so far.
    NothingYet,
    /// Nothing, and nothing will come.
    Closed,
}

impl Queue {
    /// Of batches that take `limit` bytes at most.
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Self {
        Self { limit, when_full, state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Puts a batch behind the others. `in_flight` bytes have left the queue, and still take memory.
    pub(super) fn push(&self, batch: Batch, in_flight: usize) {
        let mut state = self.lock();
        let needed = batch.memory() + in_flight;
        match self.when_full {
            WhenFull::Shed => while state.bytes + needed > self.limit && state.shed_oldest() {},
            WhenFull::Wait => {
                // Memory in flight comes free without our doing; the wait is only for what we hold.
                while state.bytes + batch.memory() > self.limit && !state.batches.is_empty() && !state.hurried
                {
                    state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        state.push(batch);
        drop(state);
        self.filled.notify_one();
    }

    /// Takes the oldest batch out, and waits for one for so long at most.
    pub(super) fn pop(&self, patience: Duration) -> Popped {
        let mut state = self.lock();
        if state.batches.is_empty() && !state.closed {
            let waited = self.filled.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.abandoned {
            return Popped::Closed;
        }
        let Some(batch) = state.batches.pop_front() else {
            return if state.closed { Popped::Closed } else { Popped::NothingYet };
        };
        state.bytes -= batch.memory();
        state.packets -= u64::from(batch.packets());
        state.one_out = true;
        let dropped = state.dropped.get(&batch.interface().origin).copied().unwrap_or(0);
        drop(state);
        self.emptied.notify_all();
        Popped::Batch(Box::new(batch), dropped)
    }

    /// The batch that was taken out has been sent.
    pub(super) fn sent(&self) {
        self.lock().one_out = false;
    }

    /// Nobody is to wait for room any more: those who do put their last batch in, and go on.
    pub(super) fn hurry(&self) {
        self.lock().hurried = true;
        self.emptied.notify_all();
    }

    /// No batch comes any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// What is left is not to be sent any more.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        (state.abandoned, state.hurried) = (true, true);
        drop(state);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Whether the queue was closed, and nothing of it is left, nor in flight.
    pub(super) fn is_done(&self, in_flight: impl Fn() -> usize) -> bool {
        let state = self.lock();
        // Asked last: what has been taken out is in flight before it counts as sent.
        state.closed && state.batches.is_empty() && !state.one_out && in_flight() == 0
    }

    /// Sheds everything: nothing is sent any more. Returns how many packets that were.
    pub(super) fn shed_all(&self) -> u64 {
        let mut state = self.lock();
        let packets = std::mem::take(&mut state.packets);
        (state.bytes, state.dropped_packets) = (0, state.dropped_packets + packets);
        state.batches.clear();
        packets
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { bytes: state.bytes, packets: state.packets, dropped_packets: state.dropped_packets }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, batch: Batch) {
        // A heartbeat that still waits says less than the one that comes now.
        if batch.is_heartbeat() {
            let mut newest = self.batches.iter_mut().rev().take_while(|waiting| waiting.is_heartbeat());
            if let Some(before) = newest.find(|w| w.interface().origin == batch.interface().origin) {
                self.bytes = self.bytes - before.memory() + batch.memory();
                *before = batch;
                return;
            }
        }
        self.bytes += batch.memory();
        self.packets += u64::from(batch.packets());
        self.batches.push_back(batch);
    }

    /// Sheds the oldest batch, unless it is the end of its source, which takes next to no memory. False where there is
    /// none to shed.
    fn shed_oldest(&mut self) -> bool {
        let Some(at) = self.batches.iter().position(|batch| !batch.ends()) else { return false };
        let Some(batch) = self.batches.remove(at) else { return false };
        let packets = u64::from(batch.packets());
        self.bytes -= batch.memory();
        self.packets -= packets;
        if packets > 0 {
            self.dropped_packets += packets;
            *self.dropped.entry(batch.interface().origin.clone()).or_default() += packets;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use batch::{Builder, CloseInfo, Interface, Limits, Order, Template};
    use packet::{LinkType, Record, Timestamp};

    use super::*;

    fn batch(device: &str, packets: usize, ends: bool) -> Batch {
        let origin = Origin { source: "s".into(), device: device.into(), listen_port: None };
        let interface = Arc::new(Interface::new(origin, LinkType::ETHERNET, 96));
        let limits = Limits { bytes: 4096, delay: Duration::ZERO };
        let mut builder = Builder::new(Template::new(interface, Timestamp::ZERO), limits, Order::ByTime);
        for nanos in 0..packets {
            let time = Timestamp::from_nanos(nanos as u64);
            builder.push(&Record { time, original: 84, bytes: &[0; 84] }, || time);
        }
        builder.close(CloseInfo { ends, ..CloseInfo::default() }, Vec::new)
    }

    fn pop(queue: &Queue) -> Option<(u32, bool, u64)> {
        match queue.pop(Duration::ZERO) {
            Popped::Batch(batch, dropped) => Some((batch.packets(), batch.ends(), dropped)),
            Popped::NothingYet | Popped::Closed => None,
        }
    }

    #[test]
    fn the_oldest_is_shed_and_counted() {
        let one = batch("a", 10, false).memory();
        let queue = Queue::new(3 * one, WhenFull::Shed);
        for packets in [10, 9, 8, 7] {
            queue.push(batch("a", packets, false), 0);
        }
        assert_eq!(queue.counts().dropped_packets, 10);
        queue.push(batch("a", 6, false), one / 2);
        assert_eq!(queue.counts().dropped_packets, 19, "what is in flight takes room as well");
        assert_eq!(pop(&queue), Some((8, false, 19)));
        assert_eq!(pop(&queue), Some((7, false, 19)));
        assert_eq!(pop(&queue), Some((6, false, 19)));
        assert_eq!(pop(&queue), None);
        assert_eq!(queue.counts(), Counts { bytes: 0, packets: 0, dropped_packets: 19 });
    }

    #[test]
    fn origins_are_counted_apart_and_an_end_is_never_shed() {
        let queue = Queue::new(1, WhenFull::Shed);
        queue.push(batch("a", 2, true), 0);
        queue.push(batch("b", 3, false), 0);
        queue.push(batch("b", 4, false), 0);
        queue.push(batch("c", 5, false), 0);
        assert_eq!(pop(&queue), Some((2, true, 0)));
        assert_eq!(pop(&queue), Some((5, false, 0)));
        assert_eq!(queue.counts().dropped_packets, 7);
    }

    #[test]
    fn heartbeats_do_not_pile_up() {
        let queue = Queue::new(1 << 20, WhenFull::Shed);
        for device in ["a", "a", "b", "a", "b"] {
            queue.push(batch(device, 0, false), 0);
        }
        queue.push(batch("a", 1, false), 0);
        queue.push(batch("a", 0, false), 0);
        assert_eq!((0..9).filter_map(|_| pop(&queue)).count(), 4);
    }

    #[test]
    fn a_file_waits_for_room() {
        let queue = Queue::new(batch("a", 10, false).memory(), WhenFull::Wait);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (0..100).for_each(|_| queue.push(batch("a", 10, false), 0)));
            let mut popped = 0;
            while popped < 100 {
                if let Popped::Batch(..) = queue.pop(Duration::from_secs(1)) {
                    popped += 1;
                }
                assert!(queue.counts().packets <= 10);
            }
            writer.join().unwrap();
        });
        assert_eq!(queue.counts().dropped_packets, 0);
    }

    #[test]
    fn who_waits_can_be_hurried() {
        let queue = Queue::new(1, WhenFull::Wait);
        queue.push(batch("a", 1, false), 0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| queue.push(batch("a", 2, false), 0));
            queue.hurry();
            writer.join().unwrap();
        });
        assert_eq!((queue.counts().packets, queue.counts().dropped_packets), (3, 0));
    }

    #[test]
    fn it_is_done_when_the_last_is_sent() {
        let queue = Queue::new(1 << 20, WhenFull::Shed);
        queue.push(batch("a", 1, false), 0);
        queue.close();
        assert!(!queue.is_done(|| 0));
        assert!(pop(&queue).is_some());
        assert!(!queue.is_done(|| 0));
        queue.sent();
        assert!(!queue.is_done(|| 1));
        assert!(queue.is_done(|| 0));
        assert!(matches!(queue.pop(Duration::from_secs(9)), Popped::Closed));
    }
}
