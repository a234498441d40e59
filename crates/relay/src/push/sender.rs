//! The thread that sends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};

use batch::{Batch, Compression, SendInfo};
use packet::Origin;

use super::Shared;
use super::dial::Dial;
use super::message::Message;
use super::queue::Popped;

/// How long at most the sender waits before it looks around again.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long it waits where there is no connection.
const UNCONNECTED: Duration = Duration::from_millis(10);

/// Sends batch by batch, in the order of the queue.
pub(super) struct Sender {
    socket: zmq::Socket,
    /// Behind the socket, for it is closed after it.
    _context: zmq::Context,
    dial: Dial,
    compression: Compression,
    shared: Arc<Shared>,
    connected_to: Option<String>,
    sent: HashMap<Origin, Sent>,
}

/// What has been sent of one origin.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    batches: u64,
    packets: u64,
}

impl Sender {
    pub(super) fn new(
        context: zmq::Context,
        socket: zmq::Socket,
        dial: Dial,
        compression: Compression,
        shared: Arc<Shared>,
    ) -> Self {
        let sent = HashMap::new();
        Self { socket, _context: context, dial, compression, shared, connected_to: None, sent }
    }

    /// Sends until the queue is closed and empty, or abandoned.
    pub(super) fn run(mut self) {
        loop {
            self.connect();
            // A batch is taken out only when it can be sent: what waits in the queue can still be shed.
            if !self.is_writable() {
                if self.shared.queue.is_abandoned() {
                    break;
                }
                continue;
            }
            match self.shared.queue.pop(PATIENCE) {
                Popped::Batch(batch, dropped) => {
                    self.send(*batch, dropped);
                    self.shared.queue.sent();
                }
                Popped::NothingYet => {}
                Popped::Closed => break,
            }
        }
        self.drain();
    }

    /// Connects to the peer's present address.
    fn connect(&mut self) {
        let target = self.dial.target();
        if target == self.connected_to {
            return;
        }
        if let Some(before) = self.connected_to.take() {
            // What ZeroMQ still held for the old address is lost with it; the collector sees it as a gap.
            let _ = self.socket.disconnect(&before);
        }
        if let Some(target) = target {
            match self.socket.connect(&target) {
                Ok(()) => self.connected_to = Some(target),
                Err(error) => {
                    tracing::error!(target, %error, "cannot connect to the collector's address");
                    thread::sleep(PATIENCE);
                }
            }
        }
    }

    fn is_writable(&self) -> bool {
        if !self.shared.link.is_up() {
            thread::sleep(UNCONNECTED);
            return false;
        }
        self.socket.poll(zmq::POLLOUT, PATIENCE.as_millis() as i64).is_ok_and(|events| events > 0)
    }

    fn send(&mut self, mut batch: Batch, dropped_relay: u64) {
        let packets = u64::from(batch.packets());
        if let Some(freed) = batch.compress(self.compression) {
            self.shared.pool.give(freed);
        }
        let sent = self.sent.entry(batch.interface().origin.clone()).or_default();
        let send = SendInfo {
            sequence: sent.batches,
            sent_before: sent.packets,
            sent_at: SystemTime::now().into(),
            dropped_relay,
        };
        sent.batches += 1;
        sent.packets += packets;
        let mut message = Message::new(batch.into_message(&send), packets, &self.shared.pool);
        // The socket had room just now; it has none where the connection was lost in between.
        while let Err((error, unsent)) = message.send(&mut self.socket) {
            if error != zmq::Error::EAGAIN && error != zmq::Error::EINTR {
                tracing::error!(%error, packets, "cannot send a batch");
                return;
            }
            if self.shared.queue.is_abandoned() {
                // It is dropped here, and counts among those in flight no more.
                self.shared.pool.lost_packets.fetch_add(packets, Ordering::Relaxed);
                return;
            }
            let _ = self.socket.poll(zmq::POLLOUT, PATIENCE.as_millis() as i64);
            message = unsent;
        }
    }

    /// Waits until the kernel has everything, or the relay is abandoned. Then ZeroMQ's linger is cut short.
    fn drain(&self) {
        while self.shared.pool.in_flight_batches() > 0 {
            if self.shared.queue.is_abandoned() {
                let left = self.shared.pool.in_flight_packets();
                self.shared.pool.lost_packets.fetch_add(left, Ordering::Relaxed);
                let _ = self.socket.set_linger(0);
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
