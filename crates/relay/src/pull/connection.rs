//! One connection of a collector.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use socket2::Socket;
use zmtp::{Error, Server, ServerEvent};

use super::rejections::RejectReason;
use super::sender::Sender;

/// Bytes that are read at once where a message may begin. The rest of a long one is read into its own memory.
pub(super) const SCRATCH: usize = 8 << 10;

/// Bytes that are read of one connection before others get their turn. Small, so that files of many sources arrive at the
/// same pace and are merged in order: with two batches, twice as many packets were late.
const TURN: usize = 64 << 10;

/// How long a handshake may take, which is a few hundred bytes in each direction.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unfinished message may wait for its next byte.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may be silent. A capture sends heartbeats every second at most, so its peer is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A connection and its protocol.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    server: Server,
    pub(super) sender: Arc<Sender>,
    pub(super) accepted: Instant,
    /// When something arrived last, by a clock that stands still while nothing is read.
    pub(super) active: Instant,
    /// Whether the socket is registered for being writable.
    pub(super) awaits_writing: bool,
}

/// What a turn of reading led to.
#[derive(Debug)]
pub(super) enum Read {
    /// There may be more to read at once.
    More,
    /// There is no more at present.
    Blocked,
    /// An event; call again.
    Event(ServerEvent),
    /// The peer has ended the connection.
    Ended,
}

/// Why a connection has to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The network's fault, or the peer's process has ended.
    Network(Errno),
    /// The peer's fault.
    Peer(RejectReason, String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::NotZmtp => RejectReason::NotZmtp,
            Error::Mechanism { .. } | Error::Role => RejectReason::Mechanism,
            Error::SocketType { .. } => RejectReason::SocketType,
            Error::WrongServerKey => RejectReason::WrongCollectorKey,
            Error::Multipart => RejectReason::Multipart,
            Error::TooLong { .. } => RejectReason::TooLong,
            Error::Decryption
            | Error::Replay
            | Error::Frame
            | Error::Command { .. }
            | Error::UnexpectedMessage
            | Error::Refused { .. }
            | Error::NoncesExhausted => RejectReason::Protocol,
        };
        Self::Peer(reason, error.to_string())
    }
}

impl Connection {
    /// `reading`: the time by the clock of [`Self::active`].
    pub(super) fn new(
        socket: Socket,
        server: Server,
        sender: Arc<Sender>,
        now: Instant,
        reading: Instant,
    ) -> Self {
        Self { socket, server, sender, accepted: now, active: reading, awaits_writing: false }
    }

    /// Reads until there is an event, or nothing more to read, or `turn` bytes are read; they are subtracted from it.
    /// `input` holds what was read and not taken yet.
    pub(super) fn read(&mut self, input: &mut Input, turn: &mut Turn) -> Result<Read, Failure> {
        loop {
            let mut rest = input.unread();
            let event = self.server.receive(&mut rest)?;
            input.keep(rest.len());
            if let Some(event) = event {
                return Ok(Read::Event(event));
            }
            if turn.0 == 0 {
                return Ok(Read::More);
            }
            // What follows a refusal, or awaits a decision, is not read.
            let wanted;
            let read = match self.server.unfinished() {
                Some(body) => {
                    wanted = body.capacity() - body.len();
                    rustix::io::read(&self.socket, spare_capacity(body))
                }
                None => {
                    wanted = SCRATCH;
                    input.fill(&self.socket)
                }
            };
            match read {
                Ok(0) => return Ok(Read::Ended),
                Ok(count) => {
                    turn.0 = turn.0.saturating_sub(count);
                    if count < wanted {
                        // The socket is empty, most likely: epoll tells if not.
                        turn.0 = 0;
                    }
                }
                Err(Errno::AGAIN) => return Ok(Read::Blocked),
                Err(Errno::INTR) => {}
                // It has not read all that was sent to it.
                Err(Errno::CONNRESET) => return Ok(Read::Ended),
                Err(errno) => return Err(Failure::Network(errno)),
            }
        }
    }

    /// Sends what is to be sent; false if the peer does not take all of it now.
    pub(super) fn write(&mut self) -> Result<bool, Failure> {
        let outgoing = self.server.outgoing();
        while !outgoing.is_empty() {
            match rustix::net::send(&self.socket, outgoing, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => drop(outgoing.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(Failure::Network(errno)),
            }
        }
        Ok(true)
    }

    /// Accepts the peer's key.
    pub(super) fn accept(&mut self) {
        self.server.accept();
    }

    pub(super) fn set_frugal(&mut self, frugal: bool) {
        self.server.set_frugal(frugal);
    }

    /// Refuses the peer, and tells it why.
    pub(super) fn refuse(&mut self, reason: &str) {
        self.server.refuse(reason);
        // What does not fit into the socket's empty buffer is not worth waiting for.
        let _ = self.write();
    }

    /// Whether the handshake is complete.
    pub(super) fn is_ready(&self) -> bool {
        self.server.is_ready()
    }

    /// Whether the peer has begun the handshake and not completed it.
    pub(super) fn is_in_handshake(&self) -> bool {
        self.server.has_begun() && !self.is_ready()
    }

    /// Bytes of memory of an unfinished message.
    pub(super) fn memory(&self) -> usize {
        self.server.memory()
    }

    /// What the connection has waited for too long, if it has. `reading`: the time by the clock of [`Self::active`].
    pub(super) fn timeout(&self, now: Instant, reading: Instant) -> Option<Timeout> {
        if !self.is_ready() {
            let late = now.saturating_duration_since(self.accepted) >= HANDSHAKE_TIMEOUT;
            return late.then_some(Timeout::Handshake);
        }
        let silent = reading.saturating_duration_since(self.active);
        if self.server.is_within_message() {
            return (silent >= STALL_TIMEOUT).then_some(Timeout::Message);
        }
        (silent >= SILENCE_TIMEOUT).then_some(Timeout::Silence)
    }
}

/// What a connection has waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    Handshake,
    Message,
    Silence,
}

/// Bytes that may still be read in a connection's turn.
#[derive(Debug)]
pub(super) struct Turn(usize);

impl Turn {
    pub(super) fn new() -> Self {
        Self(TURN)
    }

    /// Nothing more is read from the socket; what was read is still taken.
    pub(super) fn end(&mut self) {
        self.0 = 0;
    }
}

/// Bytes that were read where a message may begin. All connections use the same memory: each takes everything in its turn.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::with_capacity(SCRATCH), taken: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unread().is_empty()
    }

    fn unread(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// Keeps the last `count` bytes for the next call.
    fn keep(&mut self, count: usize) {
        self.taken = self.bytes.len() - count;
    }

    fn fill(&mut self, socket: &Socket) -> rustix::io::Result<usize> {
        self.clear();
        rustix::io::read(socket, spare_capacity(&mut self.bytes))
    }

    /// Forgets what a connection left that has ended.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.taken = 0;
    }
}
