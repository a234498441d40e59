//! Received messages on their way to the collector's thread, bounded in bytes.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The queue is full when its messages use this many bytes of memory: 16 batches of the default size. The last one may
/// exceed it.
pub(super) const CAPACITY: usize = 4 << 20;

/// What waits in the queue.
pub(super) trait Memory {
    /// Bytes of memory that it uses.
    fn memory(&self) -> usize;
}

/// A queue between the receiving thread and the collector's.
#[derive(Debug)]
pub(super) struct MessageQueue<M> {
    state: Mutex<State<M>>,
    /// There is a message, or no more will come.
    changed: Condvar,
}

#[derive(Debug)]
struct State<M> {
    messages: VecDeque<M>,
    bytes: usize,
    /// The receiving thread waits for room.
    paused: bool,
    /// The receiving thread has ended.
    closed: bool,
}

/// What [`MessageQueue::pop`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Popped<M> {
    /// The oldest message, if one came in time.
    pub(super) message: Option<M>,
    /// The receiving thread has to be told that there is room.
    pub(super) resume: bool,
    /// The receiving thread has ended.
    pub(super) closed: bool,
}

impl<M: Memory> MessageQueue<M> {
    pub(super) fn new() -> Self {
        let state = State { messages: VecDeque::new(), bytes: 0, paused: false, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Appends a message. False if the queue is full now: the caller has to pause until it is told to resume.
    pub(super) fn push(&self, message: M) -> bool {
        let mut state = self.state.lock();
        state.bytes += message.memory();
        state.messages.push_back(message);
        // It stays paused until `pop` says otherwise: the caller may have more messages in hand.
        state.paused |= state.bytes >= CAPACITY;
        let has_room = !state.paused;
        drop(state);
        self.changed.notify_one();
        has_room
    }

    /// Takes the oldest message, and waits for it up to `timeout`.
    pub(super) fn pop(&self, timeout: Duration) -> Popped<M> {
        let mut state = self.state.lock();
        if !timeout.is_zero() {
            let empty = |state: &mut State<M>| state.messages.is_empty() && !state.closed;
            self.changed.wait_while_for(&mut state, empty, timeout);
        }
        let message = state.messages.pop_front();
        state.bytes -= message.as_ref().map_or(0, Memory::memory);
        // With half of the room free, so that the threads do not wake each other for each message.
        let resume = state.paused && state.bytes <= CAPACITY / 2;
        state.paused &= !resume;
        Popped { message, resume, closed: state.closed }
    }

    /// Bytes of memory of the messages.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Announces that no more messages will come.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Memory for usize {
        fn memory(&self) -> usize {
            *self
        }
    }

    #[test]
    fn a_full_queue_pauses_until_half_of_it_is_taken() {
        let queue = MessageQueue::new();
        let quarter = CAPACITY / 4;
        let pushed: Vec<_> = (0..4).map(|_| queue.push(quarter)).collect();
        assert_eq!(pushed, [true, true, true, false]);
        let resumed: Vec<_> = (0..4).map(|_| queue.pop(Duration::ZERO).resume).collect();
        assert_eq!(resumed, [false, true, false, false]);
        assert_eq!(queue.pop(Duration::ZERO), Popped { message: None, resume: false, closed: false });
    }

    #[test]
    fn a_pause_lasts_until_the_caller_is_told_to_resume() {
        let queue = MessageQueue::new();
        assert!(queue.push(CAPACITY / 4));
        assert!(!queue.push(CAPACITY * 3 / 4));
        // Neither full nor half empty: the caller was not told.
        assert!(!queue.pop(Duration::ZERO).resume);
        assert!(!queue.push(1));
        assert!(queue.pop(Duration::ZERO).resume);
        assert!(queue.push(1));
    }

    #[test]
    fn what_was_pushed_before_the_end_is_still_taken() {
        let queue = MessageQueue::new();
        queue.push(1);
        queue.close();
        let hour = Duration::from_secs(3600);
        assert_eq!(queue.pop(hour), Popped { message: Some(1), resume: false, closed: true });
        assert_eq!(queue.pop(hour), Popped { message: None, resume: false, closed: true });
    }
}
