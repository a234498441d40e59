//! The thread that accepts connections and receives messages.

mod accept;
mod admission;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;
use zmtp::ServerEvent;

use super::connection::{Connection, Failure, Input, Read, Timeout, Turn};
use super::connections::ConnectionTable;
use super::listener::Listener;
use super::rejections::{LogLimiter, RejectReason};
use super::{Message, Security, Shared};

/// Time between two looks at timeouts and at `AUTHORIZED_KEYS`.
const TICK: Duration = Duration::from_secs(1);

/// Events of connections in their handshake that are handled before messages get their turn: a handshake with keys takes
/// a few tenths of a millisecond.
const MAX_HANDSHAKES: usize = 16;

/// Connections that get a turn before the clock is read again.
const MAX_TURNS: usize = 64;

/// Tokens of epoll events. Those of connections are their numbers, which begin at [`Token::FIRST_CONNECTION`], and those of
/// listeners lie between.
struct Token;

impl Token {
    const WAKE: u64 = 0;
    const TRAFFIC: u64 = 1;
    const FIRST_LISTENER: u64 = 2;
    const FIRST_CONNECTION: u64 = 1 << 16;
}

/// The receiving side of a collector.
///
/// Connections in their handshake are watched by one epoll instance, and those that may send messages by another, which
/// the first one watches. So messages can be paused, while the collector is behind, without a change for each connection.
pub(super) struct Reader {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    security: Option<Security>,
    max_connections: usize,
    main: OwnedFd,
    traffic: OwnedFd,
    connections: ConnectionTable,
    next_id: u64,
    input: Input,
    limiter: LogLimiter,
    now: Instant,
    /// How long messages were paused, in all: the time by which silence is measured does not include it.
    paused_for: Duration,
    /// When a tick is due.
    tick: Instant,
    /// Until when no connections are accepted.
    accept_after: Option<Instant>,
    /// Since when messages wait for room in the queue.
    paused: Option<Instant>,
}

impl Reader {
    /// # Errors
    /// There are no file descriptors left.
    pub(super) fn new(
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        security: Option<Security>,
        max_connections: usize,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let reader = Self {
            listeners,
            shared,
            security,
            max_connections,
            main: epoll::create(CreateFlags::CLOEXEC)?,
            traffic: epoll::create(CreateFlags::CLOEXEC)?,
            connections: ConnectionTable::default(),
            next_id: Token::FIRST_CONNECTION,
            input: Input::new(),
            limiter: LogLimiter::default(),
            now,
            paused_for: Duration::ZERO,
            tick: now + TICK,
            accept_after: None,
            paused: None,
        };
        let watch = |fd: &dyn AsFd, token| {
            epoll::add(&reader.main, fd.as_fd(), EventData::new_u64(token), EventFlags::IN)
        };
        watch(&reader.shared.wake, Token::WAKE)?;
        watch(&reader.traffic, Token::TRAFFIC)?;
        for (token, listener) in (Token::FIRST_LISTENER..).zip(&reader.listeners) {
            watch(listener, token)?;
        }
        Ok(reader)
    }

    /// Receives until it is stopped.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(MAX_HANDSHAKES);
        while !self.shared.is_stopped() {
            let timeout = self.timeout();
            events.clear();
            match epoll::wait(&self.main, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "cannot wait for connections");
                    break;
                }
            }
            self.now = Instant::now();
            for event in events.iter().copied() {
                match event.data.u64() {
                    Token::WAKE => self.resume(),
                    // It has its turn below, also if so many others are ready that it was not reported.
                    Token::TRAFFIC => {}
                    id if id >= Token::FIRST_CONNECTION => self.handle_event(id, event),
                    listener => self.accept((listener - Token::FIRST_LISTENER) as usize),
                }
            }
            // Strangers in their handshake take no more than half of the time.
            let until = Instant::now() + self.now.elapsed();
            while self.receive_traffic() && Instant::now() < until {}
            if self.accept_after.is_some_and(|at| at <= self.now) {
                self.accept_after = None;
                self.watch_listeners(EventFlags::IN);
            }
            if self.now >= self.tick {
                self.handle_tick();
            }
        }
    }

    fn timeout(&self) -> Timespec {
        let next = self.accept_after.map_or(self.tick, |at| at.min(self.tick));
        let timeout = next.saturating_duration_since(Instant::now());
        Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() }
    }

    /// Gives each connection that has something to read a turn, unless the queue is full. False if there was nothing to
    /// read, or the queue is full.
    fn receive_traffic(&mut self) -> bool {
        if self.paused.is_some() {
            return false;
        }
        let mut events: Vec<Event> = Vec::with_capacity(MAX_TURNS);
        let _ = epoll::wait(&self.traffic, spare_capacity(&mut events), Some(&Timespec::default()));
        for event in &events {
            if self.paused.is_some() {
                return false;
            }
            self.handle_event(event.data.u64(), *event);
        }
        !events.is_empty()
    }

    fn handle_event(&mut self, id: u64, event: Event) {
        let flags = event.flags;
        let result = if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(id)
        } else {
            Ok(())
        };
        let result = result.and_then(|()| self.write(id));
        if let Err(end) = result {
            self.close(id, end);
        }
        while let Some(victim) = self.connections.too_large(self.reading()) {
            let why = "has the most memory in unfinished messages, and there is no more".to_owned();
            self.close(victim, End::Failed(Failure::Peer(RejectReason::Memory, why)));
        }
    }

    /// The time by the clock that stands still while messages are paused.
    fn reading(&self) -> Instant {
        let paused = self.paused_for + self.paused.map_or(Duration::ZERO, |since| self.now - since);
        self.now.checked_sub(paused).unwrap_or(self.now)
    }

    fn read(&mut self, id: u64) -> Result<(), End> {
        let mut turn = Turn::new();
        self.input.clear();
        loop {
            let (reading, input) = (self.reading(), &mut self.input);
            let read = self.connections.update(id, |connection| {
                connection.active = reading;
                connection.read(input, &mut turn)
            });
            match read {
                None => return Ok(()),
                Some(Err(failure)) => return Err(End::Failed(failure)),
                Some(Ok(Read::More | Read::Blocked)) => return Ok(()),
                Some(Ok(Read::Ended)) => return Err(self.ended_by_peer(id)),
                Some(Ok(Read::Event(event))) => {
                    let completes_handshake = !matches!(event, ServerEvent::Message(_));
                    self.handle_protocol_event(id, event)?;
                    if self.paused.is_some() {
                        turn.end();
                        // The others are not even looked at while messages are paused.
                        if completes_handshake && !self.input.is_empty() {
                            let why = "sent messages before the handshake was answered".to_owned();
                            return Err(End::Failed(Failure::Peer(RejectReason::Protocol, why)));
                        }
                    }
                }
            }
        }
    }

    /// What it means that the peer has ended the connection. libzmq does so without a word if one side uses keys and the
    /// other does not.
    fn ended_by_peer(&mut self, id: u64) -> End {
        match self.connections.get_mut(id) {
            Some(connection) if connection.is_in_handshake() => {
                let keys = if self.security.is_some() {
                    "KEY_FILE and COLLECTOR_KEY are set there"
                } else {
                    "no keys are set there"
                };
                let why = format!("ended the handshake: check that {keys}");
                End::Failed(Failure::Peer(RejectReason::Handshake, why))
            }
            _ => End::ByPeer,
        }
    }

    fn handle_protocol_event(&mut self, id: u64, event: ServerEvent) -> Result<(), End> {
        match event {
            ServerEvent::Ready => self.set_ready(id),
            ServerEvent::Authenticate { key, source } => self.authenticate(id, key, source.as_deref()),
            ServerEvent::Message(payload) => {
                let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
                if connection.sender.is_impostor() {
                    return Err(End::impostor());
                }
                let sender = Arc::clone(&connection.sender);
                if !self.shared.queue.push(Message { payload, sender }) {
                    self.pause();
                }
                Ok(())
            }
        }
    }

    /// The handshake is complete: from now on, the connection is paused with the others.
    fn set_ready(&mut self, id: u64) -> Result<(), End> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let socket = &connection.socket;
        epoll::delete(&self.main, socket)
            .and_then(|()| epoll::add(&self.traffic, socket, EventData::new_u64(id), EventFlags::IN))
            .map_err(|errno| End::Failed(Failure::Network(errno)))?;
        connection.awaits_writing = false;
        tracing::debug!(peer = connection.sender.address(), "connection established");
        Ok(())
    }

    /// Sends what a connection has to send, and waits until the rest can be sent.
    fn write(&mut self, id: u64) -> Result<(), End> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let awaits = !connection.write().map_err(End::Failed)?;
        if awaits != connection.awaits_writing {
            let flags = if awaits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let epoll = if connection.is_ready() { &self.traffic } else { &self.main };
            epoll::modify(epoll, &connection.socket, EventData::new_u64(id), flags)
                .map_err(|errno| End::Failed(Failure::Network(errno)))?;
            connection.awaits_writing = awaits;
        }
        Ok(())
    }

    /// Reads no more messages until [`Self::resume`].
    fn pause(&mut self) {
        self.paused.get_or_insert(self.now);
        let token = EventData::new_u64(Token::TRAFFIC);
        let _ = epoll::modify(&self.main, &self.traffic, token, EventFlags::empty());
    }

    fn resume(&mut self) {
        self.shared.clear_wake();
        if let Some(since) = self.paused.take() {
            self.paused_for += self.now.saturating_duration_since(since);
            let token = EventData::new_u64(Token::TRAFFIC);
            let _ = epoll::modify(&self.main, &self.traffic, token, EventFlags::IN);
        }
    }

    fn handle_tick(&mut self) {
        self.tick = self.now + TICK;
        self.reload_keys();
        let ends =
            self.connections.iter().filter_map(|(id, connection)| Some((id, self.overdue(connection)?)));
        let ends: Vec<_> = ends.collect();
        for (id, end) in ends {
            self.close(id, end);
        }
    }

    /// Why a connection ends now, if it does.
    fn overdue(&self, connection: &Connection) -> Option<End> {
        if connection.sender.is_impostor() {
            return Some(End::impostor());
        }
        let (reason, why) = match connection.timeout(self.now, self.reading())? {
            Timeout::Handshake => (RejectReason::HandshakeTimeout, "did not complete the handshake"),
            Timeout::Message => (RejectReason::UnfinishedMessage, "did not finish a message"),
            Timeout::Silence => return Some(End::Silent),
        };
        Some(End::Failed(Failure::Peer(reason, why.to_owned())))
    }

    fn close(&mut self, id: u64, end: End) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.shared.connections.count_ended();
        let peer = connection.sender.address();
        match end {
            End::ByPeer => tracing::debug!(peer, "connection ended by the peer"),
            End::Silent => tracing::debug!(peer, "silent connection ended"),
            End::Failed(failure) => self.report(&peer, failure),
        }
    }

    /// Counts and logs why a connection was refused or ended.
    fn report(&mut self, peer: &str, failure: Failure) {
        match failure {
            Failure::Network(errno) => tracing::debug!(peer, %errno, "connection lost"),
            Failure::Peer(reason, why) => {
                self.shared.connections.rejections.count(reason);
                if self.limiter.admits(peer, reason, self.now) {
                    tracing::warn!(
                        peer,
                        reason = reason.label(),
                        "connection closed: the peer {why}; repeats suppressed for 10 min"
                    );
                }
            }
        }
    }
}

/// Why a connection is closed.
#[derive(Debug)]
enum End {
    /// The peer closed it.
    ByPeer,
    /// Nothing arrived for a long time.
    Silent,
    Failed(Failure),
}

impl End {
    fn impostor() -> Self {
        let why = "used a SOURCE_NAME that its key may not use".to_owned();
        Self::Failed(Failure::Peer(RejectReason::UnauthorizedName, why))
    }
}
