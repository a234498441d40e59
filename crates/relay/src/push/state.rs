//! What the relay's threads share: the queue, the connection, and the wakeups.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use batch::Batch;
use packet::Origin;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{EventfdFlags, eventfd};

use super::buffer_pool::BufferPool;
use super::queue::{Dequeued, Load, Queue};
use super::target::Target;
use super::{OverflowPolicy, RelayStatus};

/// The most addresses of the endpoint to remember, found latest: two resolutions of
/// [`MAX_ADDRESSES`](super::connector::MAX_ADDRESSES).
const MAX_PEER_ADDRESSES: usize = 2 * super::connector::MAX_ADDRESSES;

/// The state of a relay. One lock guards it; nothing that may block is called while it is held.
#[derive(Debug)]
pub struct RelayState {
    /// The collector's endpoint, for the log.
    collector: String,
    guarded: Mutex<Guarded>,
    /// For callers that wait for room.
    room: Condvar,
    /// Wakes the sender, which waits for this and its socket: there may be a [`SenderTask`].
    wake: OwnedFd,
    /// For a change of the connection, the first resolution, and the end.
    lifecycle: Condvar,
    /// Incremented when [`Guarded::peer_addresses`] gets another address.
    peer_addresses_generation: AtomicU64,
    buffers: BufferPool,
}

#[derive(Debug)]
struct Guarded {
    queue: Queue,
    connection: ConnectionState,
    /// Where to connect to, until the sender takes it.
    new_target: Option<Target>,
    /// Whether the sender waits to be woken.
    sender_waits: bool,
    /// The addresses that the endpoint has resolved to, latest last.
    peer_addresses: Vec<SocketAddr>,
    /// Whether the first resolution is over.
    resolved: bool,
}

/// The connection to the collector.
#[derive(Clone, Copy, Debug, Default)]
struct ConnectionState {
    connected: bool,
    /// Connections since the start.
    connections: u64,
    /// The collector is there, but refuses this capture, which was logged.
    refused: bool,
}

/// What the sender does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SenderTask {
    /// Connect to this address instead of the one before.
    Connect(Target),
    /// There is a connection, and a batch to send.
    Send,
    /// Nothing, until [`RelayState::wake_fd`] is readable.
    Wait,
    /// The queue is closed and empty, or abandoned.
    Finish,
}

/// What the connector needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connectivity {
    Connected,
    Disconnected,
    /// The relay has ended, or no longer needs a connection.
    Ended,
}

impl RelayState {
    /// # Errors
    /// There is no file descriptor left.
    pub(super) fn new(
        collector: String,
        limit: usize,
        policy: OverflowPolicy,
        batch_bytes: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            collector,
            guarded: Mutex::new(Guarded {
                queue: Queue::new(limit, policy),
                connection: ConnectionState::default(),
                new_target: None,
                sender_waits: false,
                peer_addresses: Vec::new(),
                resolved: false,
            }),
            room: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            lifecycle: Condvar::new(),
            peer_addresses_generation: AtomicU64::new(0),
            buffers: BufferPool::new(batch_bytes),
        })
    }

    /// Wakes the sender if it waits.
    fn wake_sender(&self, mut guarded: MutexGuard<'_, Guarded>) {
        let waits = std::mem::take(&mut guarded.sender_waits);
        drop(guarded);
        if waits {
            // It only fails if it was called 2^64 times without a read.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// The collector's endpoint, for the log.
    pub(super) fn collector(&self) -> &str {
        &self.collector
    }
}

/// For callers.
impl RelayState {
    /// Queues a batch. Blocks only with [`OverflowPolicy::Block`], while the queue is full. Once the relay finishes,
    /// batches are dropped and counted.
    pub fn send(&self, batch: Batch) {
        let mut guarded = self.guarded.lock();
        while guarded.queue.must_wait(&batch) {
            self.room.wait(&mut guarded);
        }
        guarded.queue.push(batch);
        self.wake_sender(guarded);
    }

    /// An empty buffer for a batch, with the memory of a sent one if there is one.
    #[must_use]
    pub fn take_buffer(&self) -> Vec<u8> {
        self.buffers.take()
    }

    /// Ends all waiting: [`RelayState::send`] does not block any more, and [`Push::finish`](super::Push::finish) has a
    /// time limit.
    pub fn stop_waiting(&self) {
        self.guarded.lock().queue.stop_waiting();
        self.room.notify_all();
        self.lifecycle.notify_all();
    }

    /// The state and the counts of the relay.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        let guarded = self.guarded.lock();
        let (sent, load) = (guarded.queue.sent(), guarded.queue.load());
        RelayStatus {
            connected: guarded.connection.connected,
            connections: guarded.connection.connections,
            sent_batches: sent.batches,
            sent_packets: sent.packets,
            sent_bytes: sent.bytes,
            dropped_packets: guarded.queue.dropped_packets(),
            queued_packets: load.packets,
            queued_bytes: load.bytes as u64,
        }
    }

    /// A number that changes whenever [`RelayState::peer_addresses`] does. Takes no lock.
    #[must_use]
    pub fn peer_addresses_generation(&self) -> u64 {
        self.peer_addresses_generation.load(Ordering::Acquire)
    }

    /// The addresses that the endpoint has resolved to, latest last. Connections to earlier ones may live on.
    #[must_use]
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        self.guarded.lock().peer_addresses.clone()
    }

    /// Closes the queue, and waits until everything is sent. Without [`OverflowPolicy::Block`], or after
    /// [`RelayState::stop_waiting`], this takes up to `grace`; then the rest is abandoned.
    pub(super) fn drain(&self, grace: Duration) {
        let mut guarded = self.guarded.lock();
        guarded.queue.close();
        self.wake_sender(guarded);
        self.lifecycle.notify_all();
        let mut guarded = self.guarded.lock();
        let mut deadline = None;
        while !guarded.queue.is_drained() {
            if guarded.queue.is_draining_without_limit() {
                self.lifecycle.wait(&mut guarded);
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + grace);
                let timed_out = self.lifecycle.wait_until(&mut guarded, deadline).timed_out();
                if timed_out && !guarded.queue.is_drained() {
                    guarded.queue.abandon();
                    break;
                }
            }
        }
        self.wake_sender(guarded);
        self.room.notify_all();
        self.lifecycle.notify_all();
    }

    /// Packets that were not sent because the queue was abandoned.
    pub(super) fn undelivered(&self) -> u64 {
        self.guarded.lock().queue.undelivered()
    }
}

/// For the sender.
impl RelayState {
    /// What to do now. `has_unsent`: the sender has a batch that is not with the kernel yet.
    pub(super) fn next_task(&self, has_unsent: bool) -> SenderTask {
        let mut guarded = self.guarded.lock();
        let has_batch = has_unsent || !guarded.queue.is_empty();
        if guarded.queue.is_abandoned() || (guarded.queue.is_closed() && !has_batch) {
            return SenderTask::Finish;
        }
        if let Some(target) = guarded.new_target.take() {
            return SenderTask::Connect(target);
        }
        if guarded.connection.connected && has_batch {
            return SenderTask::Send;
        }
        guarded.sender_waits = true;
        SenderTask::Wait
    }

    /// Readable when there may be a task.
    pub(super) fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    /// After [`Self::wake_fd`] was readable.
    pub(super) fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Takes the oldest batch, the number of dropped packets of its origin, and the mark that it is in flight.
    pub(super) fn take_batch(self: &Arc<Self>) -> Option<(Batch, u64, InFlight)> {
        let Dequeued { batch, dropped } = self.guarded.lock().queue.pop()?;
        self.room.notify_all();
        let in_flight = InFlight { load: Load::of(&batch), state: Arc::clone(self) };
        Some((batch, dropped, in_flight))
    }

    pub(super) fn count_sent(&self, packets: u64, bytes: u64) {
        self.guarded.lock().queue.count_sent(packets, bytes);
    }

    pub(super) fn count_dropped(&self, origin: &Origin, packets: u64) {
        self.guarded.lock().queue.count_dropped(origin, packets);
    }
}

/// For the connector, and what the sender says of its connection.
impl RelayState {
    /// Sets the address that the sender connects to.
    pub(super) fn set_target(&self, target: Target) {
        let mut guarded = self.guarded.lock();
        guarded.new_target = Some(target);
        self.wake_sender(guarded);
    }

    /// Adds the result of a resolution. Beyond [`MAX_PEER_ADDRESSES`], those found longest ago are forgotten.
    pub(super) fn add_peer_addresses(&self, found: &[SocketAddr]) {
        let mut guarded = self.guarded.lock();
        guarded.resolved = true;
        let addresses = &mut guarded.peer_addresses;
        let changed = found.iter().any(|address| !addresses.contains(address));
        addresses.retain(|known| !found.contains(known));
        addresses.extend_from_slice(found);
        let excess = addresses.len().saturating_sub(MAX_PEER_ADDRESSES);
        addresses.drain(..excess);
        if changed {
            self.peer_addresses_generation.fetch_add(1, Ordering::Release);
        }
        drop(guarded);
        self.lifecycle.notify_all();
    }

    /// Waits until the first resolution is over.
    pub(super) fn wait_until_resolved(&self, timeout: Duration) {
        let mut guarded = self.guarded.lock();
        self.lifecycle.wait_while_for(&mut guarded, |guarded| !guarded.resolved, timeout);
    }

    /// Waits until the connectivity differs from `known`, or `timeout` has passed, and returns it.
    pub(super) fn wait_for_connectivity(
        &self,
        known: Connectivity,
        timeout: Option<Duration>,
    ) -> Connectivity {
        let mut guarded = self.guarded.lock();
        let same = |guarded: &mut Guarded| guarded.connectivity() == known;
        match timeout {
            Some(timeout) => _ = self.lifecycle.wait_while_for(&mut guarded, same, timeout),
            None => self.lifecycle.wait_while(&mut guarded, same),
        }
        guarded.connectivity()
    }

    pub(super) fn set_connected(&self) {
        let mut guarded = self.guarded.lock();
        if std::mem::replace(&mut guarded.connection.connected, true) {
            return;
        }
        guarded.connection.connections += 1;
        guarded.connection.refused = false;
        drop(guarded);
        self.lifecycle.notify_all();
        tracing::info!(collector = self.collector, "connected to the collector");
    }

    pub(super) fn set_refused(&self) {
        self.guarded.lock().connection.refused = true;
    }

    pub(super) fn is_refused(&self) -> bool {
        self.guarded.lock().connection.refused
    }

    pub(super) fn set_disconnected(&self) {
        let mut guarded = self.guarded.lock();
        let was_connected = std::mem::replace(&mut guarded.connection.connected, false);
        let ended = guarded.connectivity() == Connectivity::Ended;
        drop(guarded);
        self.lifecycle.notify_all();
        if was_connected && !ended {
            tracing::warn!(
                collector = self.collector,
                "disconnected from the collector; queueing packets in RELAY_BUFFER"
            );
        }
    }
}

impl Guarded {
    fn connectivity(&self) -> Connectivity {
        if self.queue.is_abandoned() || self.queue.is_drained() {
            Connectivity::Ended
        } else if self.connection.connected {
            Connectivity::Connected
        } else {
            Connectivity::Disconnected
        }
    }
}

/// A batch between the queue and the kernel. It is in flight until this is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    state: Arc<RelayState>,
    load: Load,
}

impl InFlight {
    /// The batch now uses this many bytes of memory.
    pub(super) fn resize(&mut self, bytes: usize) {
        self.state.guarded.lock().queue.resize_in_flight(self.load.bytes, bytes);
        self.load.bytes = bytes;
    }

    /// Returns memory of the batch for later ones.
    pub(super) fn return_buffer(&self, buf: Vec<u8>) {
        self.state.buffers.give(buf);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut guarded = self.state.guarded.lock();
        guarded.queue.release(self.load);
        let last = guarded.queue.is_closed() && guarded.queue.in_flight().batches == 0;
        drop(guarded);
        if last {
            self.state.lifecycle.notify_all();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread;

    use batch::{BatchLimits, Builder, CloseInfo, Interface, Order, Template};
    use packet::{LinkType, Record, Timestamp};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    pub(crate) fn batch(device: &str, packets: usize, ends: bool) -> Batch {
        batch_of(Timestamp::ZERO, device, packets, ends)
    }

    /// A batch of the run that began at `epoch`.
    pub(crate) fn batch_of(epoch: Timestamp, device: &str, packets: usize, ends: bool) -> Batch {
        let origin = Origin { source: "s".into(), device: device.into(), listen_port: None };
        let interface = Arc::new(Interface::new(origin, LinkType::ETHERNET, 96));
        let limits = BatchLimits { bytes: 4096, delay: Duration::ZERO };
        let mut builder = Builder::new(Template::new(interface, epoch), limits, Order::ByTime);
        for nanos in 0..packets {
            let time = Timestamp::from_nanos(nanos as u64);
            builder.push(&Record { time, original: 84, bytes: &[0; 84] }, || time);
        }
        builder.close(CloseInfo { ends, ..CloseInfo::default() }, Vec::new)
    }

    fn state_of(limit: usize, policy: OverflowPolicy) -> Arc<RelayState> {
        Arc::new(RelayState::new("tcp://collector:1".to_owned(), limit, policy, 1000).unwrap())
    }

    /// A state with room for every batch.
    pub(crate) fn state() -> Arc<RelayState> {
        state_of(1 << 20, OverflowPolicy::DropOldest)
    }

    #[test]
    fn a_full_blocking_queue_never_exceeds_its_limit_and_drops_nothing() {
        let state = state_of(batch("a", 10, false).memory(), OverflowPolicy::Block);
        state.set_connected();
        thread::scope(|scope| {
            scope.spawn(|| (0..100).for_each(|_| state.send(batch("a", 10, false))));
            for _ in 0..100 {
                while state.next_task(false) != SenderTask::Send {
                    thread::yield_now();
                }
                drop(state.take_batch().unwrap());
                assert!(state.status().queued_packets <= 10);
            }
        });
        assert_eq!(state.status().dropped_packets, 0);
    }

    #[test]
    fn stop_waiting_releases_callers_with_their_batch_queued() {
        let state = state_of(1, OverflowPolicy::Block);
        state.send(batch("a", 1, false));
        thread::scope(|scope| {
            scope.spawn(|| state.send(batch("a", 2, false)));
            state.stop_waiting();
        });
        assert_eq!((state.status().queued_packets, state.status().dropped_packets), (3, 0));
    }

    fn target(text: &str) -> Target {
        Target::Tcp(text.parse().unwrap())
    }

    /// Whether the sender would be woken.
    fn is_woken(state: &RelayState) -> bool {
        rustix::io::read(state.wake_fd(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn sender_connects_then_sends_then_finishes() {
        let state = state();
        state.set_target(target("192.0.2.1:1"));
        state.set_target(target("192.0.2.2:1"));
        state.send(batch("a", 1, false));
        state.set_connected();
        assert_eq!(state.next_task(false), SenderTask::Connect(target("192.0.2.2:1")));
        assert_eq!(state.next_task(false), SenderTask::Send);
        let in_flight = state.take_batch().unwrap();
        assert_eq!(state.next_task(true), SenderTask::Send);
        assert_eq!(state.next_task(false), SenderTask::Wait);
        assert!(!is_woken(&state));
        thread::scope(|scope| {
            let drained = scope.spawn(|| state.drain(HOUR));
            while !is_woken(&state) {
                thread::yield_now();
            }
            assert_eq!(state.next_task(false), SenderTask::Finish);
            assert!(!drained.is_finished());
            drop(in_flight);
        });
        assert_eq!(state.undelivered(), 0);
    }

    #[test]
    fn sender_waits_for_a_connection_and_a_batch_and_is_woken_once() {
        let state = state();
        assert_eq!(state.next_task(false), SenderTask::Wait);
        state.send(batch("a", 1, false));
        assert!(is_woken(&state));
        state.send(batch("a", 1, false));
        assert!(!is_woken(&state));
        assert_eq!(state.next_task(false), SenderTask::Wait);
        state.set_target(target("192.0.2.1:1"));
        assert!(is_woken(&state));
        state.set_connected();
        state.set_connected();
        assert_eq!(state.status().connections, 1);
    }

    #[test]
    fn draining_without_time_abandons_the_rest() {
        let state = state();
        state.send(batch("a", 1, false));
        state.send(batch("a", 2, false));
        let (sent, _, in_flight) = state.take_batch().unwrap();
        state.drain(Duration::ZERO);
        assert_eq!(state.next_task(true), SenderTask::Finish);
        state.count_dropped(&sent.interface().origin, 1);
        drop(in_flight);
        assert_eq!(state.undelivered(), 3);
        assert_eq!((state.status().sent_packets, state.status().dropped_packets), (0, 3));
    }

    #[test]
    fn a_draining_blocking_queue_waits_until_it_is_told_to_stop() {
        let state = state_of(1 << 20, OverflowPolicy::Block);
        state.send(batch("a", 1, false));
        thread::scope(|scope| {
            let drained = scope.spawn(|| state.drain(Duration::ZERO));
            assert!(!drained.is_finished());
            state.stop_waiting();
        });
        assert_eq!(state.undelivered(), 1);
    }

    #[test]
    fn connectivity_follows_the_connection_and_the_end() {
        let state = state();
        let now = |known| state.wait_for_connectivity(known, Some(Duration::ZERO));
        assert_eq!(now(Connectivity::Disconnected), Connectivity::Disconnected);
        state.set_connected();
        assert_eq!(now(Connectivity::Disconnected), Connectivity::Connected);
        state.set_disconnected();
        assert_eq!(now(Connectivity::Connected), Connectivity::Disconnected);
        state.drain(Duration::ZERO);
        assert_eq!(state.wait_for_connectivity(Connectivity::Disconnected, None), Connectivity::Ended);
    }

    #[test]
    fn the_latest_peer_addresses_are_kept() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let state = state();
        state.add_peer_addresses(&[address("192.0.2.1:1")]);
        state.add_peer_addresses(&[]);
        state.add_peer_addresses(&[address("192.0.2.1:1")]);
        assert_eq!(state.peer_addresses_generation(), 1);
        state.add_peer_addresses(&[address("192.0.2.2:1"), address("192.0.2.1:1")]);
        assert_eq!(state.peer_addresses_generation(), 2);
        assert_eq!(state.peer_addresses(), [address("192.0.2.2:1"), address("192.0.2.1:1")]);
        // Those found longest ago are forgotten.
        for port in 2..=MAX_PEER_ADDRESSES as u16 {
            state.add_peer_addresses(&[SocketAddr::from(([192, 0, 2, 3], port))]);
        }
        assert_eq!(state.peer_addresses().len(), MAX_PEER_ADDRESSES);
        assert_eq!(state.peer_addresses()[0], address("192.0.2.1:1"));
        state.wait_until_resolved(HOUR);
    }
}
