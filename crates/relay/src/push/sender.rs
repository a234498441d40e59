//! The thread that sends.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use batch::{Compression, Interface, SendInfo};
use packet::Origin;

use super::message::LentMessage;
use super::state::{RelayState, SenderTask};

/// How long to wait before a failed connection attempt is repeated: ZeroMQ lacks a resource.
const CONNECT_RETRY: Duration = Duration::from_secs(1);

/// How long the sender waits for room in ZeroMQ, before it checks whether the relay was abandoned or the collector moved.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Sends batches one by one, in the order of the queue.
pub(super) struct Sender {
    socket: zmq::Socket,
    state: Arc<RelayState>,
    compression: Compression,
    /// The address that the socket is connected to.
    target: Option<String>,
    /// A batch that the socket did not take.
    unsent: Option<Outgoing>,
    /// Of the origins that have not ended.
    sent: HashMap<Origin, SentSoFar>,
}

/// What was sent of one run of an origin.
#[derive(Clone, Copy, Debug, Default)]
struct SentSoFar {
    epoch: u64,
    batches: u64,
    packets: u64,
}

/// A batch that is ready to be sent.
struct Outgoing {
    message: LentMessage,
    interface: Arc<Interface>,
    /// What was sent of its origin, if it is sent; `None` if the origin ends with it.
    then_sent: Option<SentSoFar>,
    packets: u64,
    bytes: u64,
}

impl Sender {
    pub(super) fn new(socket: zmq::Socket, state: Arc<RelayState>, compression: Compression) -> Self {
        Self { socket, state, compression, target: None, unsent: None, sent: HashMap::new() }
    }

    /// Sends until the queue is closed and empty, or abandoned. Returns once the kernel has everything, or the relay is
    /// abandoned.
    pub(super) fn run(mut self) {
        while self.step() {}
        if let Some(Outgoing { message, interface, packets, .. }) = self.unsent.take() {
            drop(message);
            self.state.count_dropped(&interface.origin, packets);
        }
        if !self.state.wait_for_release() {
            // What counts as dropped must not be sent after all.
            let _ = self.socket.set_linger(0);
        }
    }

    /// Waits for a task and does it; false if there are no more.
    fn step(&mut self) -> bool {
        match self.state.next_task(self.unsent.is_some()) {
            SenderTask::Connect(target) => self.connect(target),
            // A batch is taken only when it can be sent: in the queue it can still make room for newer ones.
            SenderTask::Send if self.is_writable() => self.send_next(),
            SenderTask::Send => {}
            SenderTask::Finish => return false,
        }
        true
    }

    fn connect(&mut self, target: String) {
        if self.target.as_ref() == Some(&target) {
            return;
        }
        if let Some(before) = self.target.take() {
            // What ZeroMQ holds for the old address is lost; the collector sees a gap.
            let _ = self.socket.disconnect(&before);
        }
        match self.socket.connect(&target) {
            Ok(()) => self.target = Some(target),
            Err(error) => {
                tracing::error!(target, %error, "cannot connect to the collector's address; retrying");
                thread::sleep(CONNECT_RETRY);
                self.state.retry_target(target);
            }
        }
    }

    fn is_writable(&self) -> bool {
        self.socket.poll(zmq::POLLOUT, POLL_TIMEOUT.as_millis() as i64).is_ok_and(|events| events > 0)
    }

    /// Sends the batch that the socket did not accept before, or the oldest of the queue.
    fn send_next(&mut self) {
        let Some(outgoing) = self.unsent.take().or_else(|| self.take_batch()) else { return };
        let Outgoing { message, interface, then_sent, packets, bytes } = outgoing;
        match message.send(&mut self.socket) {
            Ok(()) => {
                match then_sent {
                    Some(sent) => _ = self.sent.insert(interface.origin.clone(), sent),
                    None => _ = self.sent.remove(&interface.origin),
                }
                self.state.count_sent(packets, bytes);
            }
            // The connection was lost after the poll.
            Err((zmq::Error::EAGAIN | zmq::Error::EINTR, message)) => {
                self.unsent = Some(Outgoing { message, interface, then_sent, packets, bytes });
            }
            Err((error, message)) => {
                drop(message);
                self.count_failed(error, &interface, packets);
            }
        }
    }

    /// Takes the oldest batch of the queue, compresses and numbers it. Its number is used again if it is not sent.
    fn take_batch(&mut self) -> Option<Outgoing> {
        let (mut batch, dropped_relay, mut in_flight) = self.state.take_batch()?;
        if let Some(freed) = batch.compress(self.compression) {
            in_flight.return_buffer(freed);
            in_flight.resize(batch.memory());
        }
        let interface = Arc::clone(batch.interface());
        let (epoch, ends) = (batch.epoch(), batch.ends());
        // Another run of the origin is numbered from 0.
        let sent = self.sent.get(&interface.origin).filter(|sent| sent.epoch == epoch).copied();
        let sent = sent.unwrap_or(SentSoFar { epoch, ..SentSoFar::default() });
        let packets = batch.packets().into();
        let then_sent = (!ends).then_some(SentSoFar {
            batches: sent.batches + 1,
            packets: sent.packets + packets,
            ..sent
        });
        let buf = batch.into_message(&SendInfo {
            sequence: sent.batches,
            sent_before: sent.packets,
            sent_at: SystemTime::now().into(),
            dropped_relay,
        });
        let bytes = buf.len() as u64;
        match LentMessage::new(buf, in_flight) {
            Ok(message) => Some(Outgoing { message, interface, then_sent, packets, bytes }),
            Err(error) => {
                self.count_failed(error, &interface, packets);
                None
            }
        }
    }

    fn count_failed(&self, error: zmq::Error, interface: &Interface, packets: u64) {
        self.state.count_dropped(&interface.origin, packets);
        tracing::error!(origin = %interface.origin, packets, %error, "packets lost: cannot send a batch");
    }
}

#[cfg(test)]
mod tests {
    use batch::DecodedBatch;

    use super::super::state::tests::{batch, batch_of, state};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const ADDRESS: &str = "inproc://sender";

    fn sender(context: &zmq::Context, kind: zmq::SocketType, state: &Arc<RelayState>) -> Sender {
        Sender::new(context.socket(kind).unwrap(), Arc::clone(state), Compression::None)
    }

    /// What the receiver reads from the next batch: device, sequence number, packets sent before, packets dropped before.
    fn received(receiver: &zmq::Socket) -> (String, u64, u64, u64) {
        let message = receiver.recv_bytes(zmq::DONTWAIT).unwrap();
        let batch = DecodedBatch::decode(message).unwrap();
        let header = batch.header();
        let interface = Interface::decode(batch.fields(), header.link_type, header.snaplen).unwrap();
        let device = interface.origin.device.to_string();
        (device, header.sequence, header.sent_before, header.dropped.relay)
    }

    #[test]
    fn batches_are_numbered_per_origin_in_the_order_of_the_queue() {
        let (state, context) = (state(), zmq::Context::new());
        let receiver = context.socket(zmq::PULL).unwrap();
        receiver.bind(ADDRESS).unwrap();
        let mut sender = sender(&context, zmq::PUSH, &state);
        state.set_target(ADDRESS.to_owned());
        state.set_connected();
        for (device, packets) in [("a", 5), ("b", 3), ("a", 7), ("a", 1)] {
            state.send(batch(device, packets, false));
        }
        // One connects, four send.
        for _ in 0..5 {
            assert!(sender.step());
        }
        let got: Vec<_> = (0..4).map(|_| received(&receiver)).collect();
        let expected = [("a", 0, 0, 0), ("b", 0, 0, 0), ("a", 1, 5, 0), ("a", 2, 12, 0)];
        assert_eq!(got, expected.map(|(device, n, before, dropped)| (device.to_owned(), n, before, dropped)));
        let status = state.status();
        assert_eq!((status.sent_batches, status.sent_packets, status.queued_packets), (4, 16, 0));
        assert!(status.sent_bytes > 16 * 84);
    }

    #[test]
    fn another_run_of_an_origin_is_numbered_from_0() {
        let (state, context) = (state(), zmq::Context::new());
        let receiver = context.socket(zmq::PULL).unwrap();
        receiver.bind(ADDRESS).unwrap();
        let mut sender = sender(&context, zmq::PUSH, &state);
        state.set_target(ADDRESS.to_owned());
        state.set_connected();
        let run = |secs| packet::Timestamp::from_parts(secs, 0);
        // The second run has an end, the first one has lost it.
        for (epoch, ends) in [(1, false), (1, false), (2, false), (2, true), (3, false)] {
            state.send(batch_of(run(epoch), "a", 5, ends));
        }
        assert!(sender.step());
        let mut numbers = Vec::new();
        for _ in 0..5 {
            assert!(sender.step());
            let (_, sequence, sent_before, _) = received(&receiver);
            numbers.push((sequence, sent_before));
            // Origins that have ended are forgotten.
            assert_eq!(sender.sent.len(), usize::from(numbers.len() != 4));
        }
        assert_eq!(numbers, [(0, 0), (1, 5), (0, 0), (1, 5), (0, 0)]);
    }

    #[test]
    fn a_batch_that_the_socket_does_not_take_is_sent_later_once() {
        let (state, context) = (state(), zmq::Context::new());
        let mut sender = sender(&context, zmq::PUSH, &state);
        state.send(batch("a", 5, false));
        state.send(batch("a", 1, false));
        sender.send_next();
        sender.send_next();
        assert_eq!((state.status().sent_packets, state.status().queued_packets), (0, 6));
        let receiver = context.socket(zmq::PULL).unwrap();
        receiver.bind(ADDRESS).unwrap();
        sender.connect(ADDRESS.to_owned());
        sender.send_next();
        sender.send_next();
        assert_eq!(received(&receiver), ("a".to_owned(), 0, 0, 0));
        assert_eq!(received(&receiver), ("a".to_owned(), 1, 5, 0));
        assert_eq!((state.status().sent_packets, state.status().queued_packets), (6, 0));
    }

    #[test]
    fn a_batch_that_cannot_be_sent_is_counted_as_dropped_and_its_number_used_again() {
        let (state, context) = (state(), zmq::Context::new());
        // A PULL socket refuses every message.
        let mut sender = sender(&context, zmq::PULL, &state);
        state.send(batch("a", 5, false));
        sender.send_next();
        let status = state.status();
        assert_eq!((status.sent_packets, status.sent_batches, status.sent_bytes), (0, 0, 0));
        assert_eq!((status.dropped_packets, status.queued_packets), (5, 0));

        sender.socket = context.socket(zmq::PUSH).unwrap();
        let receiver = context.socket(zmq::PULL).unwrap();
        receiver.bind(ADDRESS).unwrap();
        sender.connect(ADDRESS.to_owned());
        state.send(batch("a", 1, false));
        sender.send_next();
        assert_eq!(received(&receiver), ("a".to_owned(), 0, 0, 5));
    }

    #[test]
    fn what_is_abandoned_is_counted_wherever_it_waits() {
        let (state, context) = (state(), zmq::Context::new());
        let mut sender = sender(&context, zmq::PUSH, &state);
        let receiver = context.socket(zmq::PULL).unwrap();
        receiver.bind(ADDRESS).unwrap();
        sender.connect(ADDRESS.to_owned());
        state.send(batch("a", 1, false));
        sender.send_next();
        sender.socket.disconnect(ADDRESS).unwrap();
        for packets in [2, 4, 8] {
            state.send(batch("a", packets, false));
        }
        sender.send_next();
        assert!(sender.unsent.is_some());
        // The first is with ZeroMQ, the second with the sender, the others are in the queue.
        let first = receiver.recv_msg(zmq::DONTWAIT);
        state.drain(Duration::ZERO);
        sender.run();
        drop(first);
        assert_eq!(state.undelivered(), 15);
        let status = state.status();
        assert_eq!((status.sent_packets, status.dropped_packets, status.queued_packets), (0, 15, 0));
    }

    #[test]
    fn a_closed_queue_is_sent_to_its_end() {
        let (state, context) = (state(), zmq::Context::new());
        let receiver = context.socket(zmq::PULL).unwrap();
        receiver.bind(ADDRESS).unwrap();
        let sender = sender(&context, zmq::PUSH, &state);
        state.set_target(ADDRESS.to_owned());
        state.set_connected();
        state.send(batch("a", 1, false));
        state.send(batch("a", 0, true));
        std::thread::scope(|scope| {
            scope.spawn(move || sender.run());
            scope.spawn(|| state.drain(HOUR));
            for _ in 0..2 {
                drop(receiver.recv_msg(0).unwrap());
            }
        });
        assert_eq!((state.undelivered(), state.status().sent_batches), (0, 2));
    }
}
