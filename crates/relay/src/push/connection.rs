//! A connection to the collector.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::Socket;
use zmtp::{Client, ClientEvent, ClientSecurity, Error, Rest};

/// How long it may take to connect, and then to complete the handshake.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a finished capture waits for the collector to close the connection: it does so when it has read everything.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads before other things get their turn.
const MAX_READS: usize = 16;

/// Memory of an encrypted message that is kept for the next one, in bytes: batches of the default size fit.
const MAX_KEPT: usize = 512 << 10;

/// Bytes that are read at once. A collector sends a handshake, and little else.
const SCRATCH: usize = 1024;

/// A connection, from the first attempt to its end.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    client: Client,
    stage: Stage,
    /// When this stage began.
    since: Instant,
    /// What is sent before the payload of the current message.
    head: Vec<u8>,
    /// Bytes that are sent of the current message, if there is one.
    sent: Option<usize>,
    /// Whether the payload follows the head.
    rest: Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Handshake,
    Ready,
}

/// Why a connection has ended.
#[derive(Debug)]
pub(super) enum ConnectionError {
    /// The network's fault, or the collector is not there.
    Network(io::Error),
    /// The collector has closed the connection.
    Closed {
        /// After its greeting, and before the handshake was complete: a collector with another key gives up then.
        during_handshake: bool,
    },
    /// The two sides do not match.
    Protocol(Error),
}

impl From<Errno> for ConnectionError {
    fn from(errno: Errno) -> Self {
        Self::Network(errno.into())
    }
}

impl From<Error> for ConnectionError {
    fn from(error: Error) -> Self {
        Self::Protocol(error)
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// The kernel has all of it.
    Complete,
    /// The kernel does not take more at present.
    Blocked,
}

impl Connection {
    /// A connection whose socket is being connected.
    pub(super) fn new(socket: Socket, security: Option<ClientSecurity>, now: Instant) -> Self {
        Self {
            socket,
            client: Client::new(security),
            stage: Stage::Connecting,
            since: now,
            head: Vec::new(),
            sent: None,
            rest: Rest::Nothing,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// For how long messages could be sent.
    pub(super) fn ready_for(&self, now: Instant) -> Duration {
        if self.is_ready() { now.saturating_duration_since(self.since) } else { Duration::ZERO }
    }

    /// Whether a message was begun and is not complete.
    pub(super) fn is_sending(&self) -> bool {
        self.sent.is_some()
    }

    /// When this stage has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.is_ready()).then(|| self.since + SETUP_TIMEOUT)
    }

    /// What to wait for.
    pub(super) fn poll_fd(&mut self) -> PollFd<'_> {
        let writes =
            self.stage == Stage::Connecting || self.is_sending() || !self.client.outgoing().is_empty();
        let flags = if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        PollFd::new(&self.socket, flags)
    }

    /// Does what the socket is ready for. True if the handshake was completed by that.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn handle(&mut self, events: PollFlags, now: Instant) -> Result<bool, ConnectionError> {
        if self.stage == Stage::Connecting {
            if !events.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP) {
                return self.check_deadline(now);
            }
            if let Some(error) = self.socket.take_error().map_err(ConnectionError::Network)? {
                return Err(ConnectionError::Network(error));
            }
            (self.stage, self.since) = (Stage::Handshake, now);
        }
        let ready = events.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP) && self.read(now)?;
        if !self.is_sending() {
            self.write_commands()?;
        }
        Ok(self.check_deadline(now)? || ready)
    }

    fn check_deadline(&self, now: Instant) -> Result<bool, ConnectionError> {
        match self.deadline() {
            Some(deadline) if deadline <= now => Err(Errno::TIMEDOUT.into()),
            _ => Ok(false),
        }
    }

    /// Reads what the collector sent. True if the handshake was completed by that.
    fn read(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        let mut scratch = [0; SCRATCH];
        let mut ready = false;
        // What is left shows at the next poll: a collector that never stops must not keep this thread.
        for _ in 0..MAX_READS {
            let count = match rustix::io::read(&self.socket, &mut scratch) {
                Ok(0) | Err(Errno::CONNRESET) => {
                    let during_handshake = !self.is_ready() && self.client.has_greeting();
                    return Err(ConnectionError::Closed { during_handshake });
                }
                Ok(count) => count,
                Err(Errno::AGAIN) => return Ok(ready),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let mut input = scratch.get(..count).unwrap_or_default();
            while let Some(ClientEvent::Ready) = self.client.receive(&mut input)? {
                (self.stage, self.since) = (Stage::Ready, now);
                ready = true;
            }
        }
        Ok(ready)
    }

    /// Sends commands of the handshake, and answers to PING.
    fn write_commands(&mut self) -> Result<(), ConnectionError> {
        let outgoing = self.client.outgoing();
        while !outgoing.is_empty() {
            match rustix::io::write(&self.socket, outgoing) {
                Ok(count) => drop(outgoing.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // What the collector said before it closed the connection is yet to be read.
                Err(Errno::PIPE | Errno::CONNRESET) => outgoing.clear(),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Sends a message, or what is left of it. `payload` is the same until it is complete.
    ///
    /// # Errors
    /// The connection has ended. The collector discards what it has of the message.
    pub(super) fn write(&mut self, payload: &[u8]) -> Result<Write, ConnectionError> {
        let mut sent = match self.sent {
            Some(sent) => sent,
            None => {
                // A command that was begun comes first, and so do its nonces.
                self.write_commands()?;
                if !self.client.outgoing().is_empty() {
                    return Ok(Write::Blocked);
                }
                self.head.clear();
                self.rest = self.client.begin_message(payload, &mut self.head)?;
                0
            }
        };
        let payload = if self.rest == Rest::Payload { payload } else { &[] };
        loop {
            let head = self.head.get(sent..).unwrap_or_default();
            let body = payload.get(sent.saturating_sub(self.head.len())..).unwrap_or_default();
            if head.is_empty() && body.is_empty() {
                self.sent = None;
                self.head.clear();
                self.head.shrink_to(MAX_KEPT);
                return Ok(Write::Complete);
            }
            match rustix::io::writev(&self.socket, &[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.sent = Some(sent);
                    return Ok(Write::Blocked);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Ends the connection after the last message, and waits until the collector has read everything, for up to
    /// [`CLOSE_TIMEOUT`]. A socket that is closed with unread bytes in it discards what is not delivered yet: RFC 2525,
    /// section 2.17.
    pub(super) fn close(mut self) {
        if !self.is_ready() || self.is_sending() || self.socket.shutdown(std::net::Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let polled = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
            if left.is_zero() || polled == Ok(0) || self.read(deadline).is_err() {
                return;
            }
        }
    }
}
