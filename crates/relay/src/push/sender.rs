//! The thread that sends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use batch::{Compression, Interface, SendInfo};
use packet::Origin;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zmtp::ClientSecurity;

use super::PushKeys;
use super::connection::{Connection, ConnectionError, Write};
use super::retry::Retry;
use super::state::{InFlight, RelayState, SenderTask};
use super::target::Target;

/// How long the sender waits for a collector that does not read, before it checks whether the relay was abandoned or the
/// collector moved.
const BLOCKED_TIMEOUT: Duration = Duration::from_millis(100);

/// Sends batches one by one, in the order of the queue.
pub(super) struct Sender {
    security: Option<ClientSecurity>,
    state: Arc<RelayState>,
    compression: Compression,
    target: Option<Target>,
    connection: Option<Connection>,
    retry: Retry,
    /// A batch that is not with the kernel yet.
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
    message: Vec<u8>,
    interface: Arc<Interface>,
    /// What was sent of its origin, if it is sent; `None` if the origin ends with it.
    then_sent: Option<SentSoFar>,
    packets: u64,
    in_flight: InFlight,
}

impl Sender {
    pub(super) fn new(keys: Option<PushKeys>, state: Arc<RelayState>, compression: Compression) -> Self {
        let security = keys.map(|PushKeys { collector, secret, source }| ClientSecurity {
            server: collector,
            secret: secret.into(),
            source,
        });
        Self {
            security,
            state,
            compression,
            target: None,
            connection: None,
            retry: Retry::new(),
            unsent: None,
            sent: HashMap::new(),
        }
    }

    /// Sends until the queue is closed and empty, or abandoned.
    pub(super) fn run(mut self) {
        while self.step() {}
        if let Some(Outgoing { interface, packets, .. }) = self.unsent.take() {
            // A connection that is closed in the middle of a message takes it back.
            self.state.count_dropped(&interface.origin, packets);
        }
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }

    /// Does what there is to do, and waits for more; false if there is no more.
    fn step(&mut self) -> bool {
        let mut timeout = None;
        match self.state.next_task(self.unsent.is_some()) {
            SenderTask::Finish => return false,
            SenderTask::Connect(target) => {
                self.connect_to(target);
                timeout = Some(Duration::ZERO);
            }
            SenderTask::Send => {
                timeout = Some(match self.send_next() {
                    Write::Complete => Duration::ZERO,
                    Write::Blocked => BLOCKED_TIMEOUT,
                });
            }
            SenderTask::Wait => {}
        }
        self.connect_when_due();
        self.wait(timeout);
        true
    }

    /// Leaves the address before, unless it is the same.
    fn connect_to(&mut self, target: Target) {
        if self.target.as_ref() == Some(&target) {
            return;
        }
        self.target = Some(target);
        self.retry.reset();
        if self.connection.take().is_some() {
            self.state.set_disconnected();
        }
    }

    fn connect_when_due(&mut self) {
        let now = Instant::now();
        let (None, Some(target)) = (&self.connection, &self.target) else { return };
        if self.retry.at().is_some_and(|at| at > now) {
            return;
        }
        match target.connect() {
            Ok(socket) => self.connection = Some(Connection::new(socket, self.security.clone(), now)),
            Err(error) => self.handle_error(&ConnectionError::Network(error)),
        }
    }

    /// Waits up to `timeout` for the connection, or without one also for a task, and lets the connection do what it can.
    fn wait(&mut self, timeout: Option<Duration>) {
        let now = Instant::now();
        let due = match &self.connection {
            Some(connection) => connection.deadline(),
            None => self.target.is_some().then(|| self.retry.at().unwrap_or(now)),
        };
        let due = due.map(|at| at.saturating_duration_since(now));
        let timeout = [timeout, due].into_iter().flatten().min();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(self.state.wake_fd(), PollFlags::IN)];
        fds.extend(self.connection.as_mut().map(Connection::poll_fd));
        // Interrupted or not: what there is to do shows.
        let _ = poll(&mut fds, timeout.as_ref());
        let events: Vec<_> = fds.iter().map(PollFd::revents).collect();
        if events.first().is_some_and(|events| !events.is_empty()) {
            self.state.clear_wake();
        }
        let now = Instant::now();
        if let (Some(connection), Some(events)) = (&mut self.connection, events.get(1)) {
            match connection.handle(*events, now) {
                Ok(true) => self.state.set_connected(),
                Ok(false) => {}
                Err(error) => self.handle_error(&error),
            }
        }
    }

    /// Sends the batch that was begun, or the oldest of the queue.
    fn send_next(&mut self) -> Write {
        if self.connection.as_ref().is_none_or(|connection| !connection.is_ready()) {
            return Write::Blocked;
        }
        let Some(outgoing) = self.unsent.take().or_else(|| self.take_batch()) else { return Write::Complete };
        let Some(connection) = &mut self.connection else { return Write::Blocked };
        match connection.write(&outgoing.message) {
            Ok(Write::Complete) => {
                self.count_sent(outgoing);
                return Write::Complete;
            }
            Ok(Write::Blocked) => self.unsent = Some(outgoing),
            Err(error) => {
                self.unsent = Some(outgoing);
                self.handle_error(&error);
            }
        }
        Write::Blocked
    }

    fn count_sent(&mut self, outgoing: Outgoing) {
        let Outgoing { message, interface, then_sent, packets, in_flight } = outgoing;
        match then_sent {
            Some(sent) => match self.sent.get_mut(&interface.origin) {
                Some(before) => *before = sent,
                None => _ = self.sent.insert(interface.origin.clone(), sent),
            },
            None => _ = self.sent.remove(&interface.origin),
        }
        self.state.count_sent(packets, message.len() as u64);
        in_flight.return_buffer(message);
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
        let message = batch.into_message(&SendInfo {
            sequence: sent.batches,
            sent_before: sent.packets,
            sent_at: SystemTime::now().into(),
            dropped_relay,
        });
        Some(Outgoing { message, interface, then_sent, packets, in_flight })
    }

    /// Ends the connection, and says why if that is not the network's fault.
    fn handle_error(&mut self, error: &ConnectionError) {
        let now = Instant::now();
        let lasted = self.connection.take().map_or(Duration::ZERO, |connection| connection.ready_for(now));
        tracing::debug!(collector = self.state.collector(), ?error, "connection ended");
        self.state.set_disconnected();
        let own_key = self.security.as_ref().map(|security| security.secret.public());
        if let Some(refusal) = self.retry.failed(error, own_key.as_ref(), lasted, now) {
            self.state.set_refused();
            tracing::warn!(
                collector = self.state.collector(),
                "{refusal}; queueing packets in RELAY_BUFFER and retrying"
            );
        }
    }
}

#[cfg(test)]
mod tests;
