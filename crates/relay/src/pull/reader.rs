//! The thread that accepts connections and receives messages.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use batch::MAX_MESSAGE;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;
use zmtp::{PublicKey, Server, ServerEvent};

use super::connection::{Connection, Failure, Input, Read, Timeout, Turn};
use super::connections::ConnectionTable;
use super::listener::{Accepted, Listener, PeerAddress};
use super::rejections::{LogLimiter, RejectReason};
use super::sender::Sender;
use super::{Message, Security, Shared};
use crate::Peer;
use crate::authorized_keys::Reload;
use crate::refusal::{UNAUTHORIZED_NAME, UNKNOWN_KEY};

/// Time between two looks at timeouts and at `AUTHORIZED_KEYS`.
const TICK: Duration = Duration::from_secs(1);

/// Connections that are accepted before messages get their turn.
const MAX_ACCEPTS: usize = 64;

/// Events of connections in their handshake that are handled before messages get their turn: a handshake with keys takes
/// a few tenths of a millisecond.
const MAX_HANDSHAKES: usize = 16;

/// Connections that get a turn before the clock is read again.
const MAX_TURNS: usize = 64;

/// Characters of a name in the log.
const MAX_LOGGED_NAME: usize = 255;

/// How long no connection is accepted when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

    fn authenticate(&mut self, id: u64, key: PublicKey, source: Option<&str>) -> Result<(), End> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let names = self.security.as_ref().and_then(|security| security.authorized.keys().names(&key));
        let Some(names) = names else {
            connection.refuse(UNKNOWN_KEY);
            let why = format!("has the key {key}, which is not in AUTHORIZED_KEYS");
            return Err(End::Failed(Failure::Peer(RejectReason::UnknownKey, why)));
        };
        if let Some(source) = source.filter(|source| !names.allow(source)) {
            connection.refuse(UNAUTHORIZED_NAME);
            let source: String = source.chars().take(MAX_LOGGED_NAME).collect();
            let why = format!("has the key {key}, which may not use the SOURCE_NAME {source:?}");
            return Err(End::Failed(Failure::Peer(RejectReason::UnauthorizedName, why)));
        }
        let names = Arc::clone(names);
        self.connections.update(id, |connection| {
            connection.sender.set_admitted(key, names);
            connection.accept();
        });
        self.set_ready(id)
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

    /// Accepts connections that wait.
    fn accept(&mut self, listener: usize) {
        let mut victims = None;
        for _ in 0..MAX_ACCEPTS {
            let Some(listener) = self.listeners.get(listener) else { return };
            match listener.accept() {
                Ok(Accepted::Connection(socket, peer)) => {
                    if self.make_room(peer, &mut victims) {
                        self.add(socket, peer);
                    }
                }
                Ok(Accepted::Lost(error)) => {
                    tracing::debug!(%error, "connection lost before it was accepted");
                }
                Ok(Accepted::None) => return,
                Err(error) => return self.handle_accept_error(&error),
            }
        }
    }

    /// Whether there is a place for a new connection. If not, another one gives way, unless the peer has its share.
    /// `victims`: those that may, chosen when the first is needed.
    fn make_room(&mut self, peer: PeerAddress, victims: &mut Option<VecDeque<u64>>) -> bool {
        if self.connections.len() < self.max_connections {
            return true;
        }
        let full = |whose: &str| {
            let why = format!("has {whose} connections, and there are MAX_CONNECTIONS");
            Failure::Peer(RejectReason::MaxConnections, why)
        };
        let victims = victims.get_or_insert_with(|| self.connections.dispensable().into());
        let chosen = victims.iter().position(|id| self.connections.gives_way(*id, peer.peer()));
        let Some(victim) = chosen.and_then(|at| victims.remove(at)) else {
            self.report(&peer.to_string(), full("as many as others"));
            return false;
        };
        self.close(victim, End::Failed(full("the most or unused")));
        true
    }

    fn add(&mut self, socket: socket2::Socket, peer: PeerAddress) {
        let id = self.next_id;
        self.next_id += 1;
        if epoll::add(&self.main, &socket, EventData::new_u64(id), EventFlags::IN).is_err() {
            return;
        }
        self.shared.connections.count_accepted();
        let secret = self.security.as_ref().map(|security| Arc::clone(&security.secret));
        let server = Server::new(secret, MAX_MESSAGE);
        self.connections
            .insert(id, Connection::new(socket, server, Sender::new(peer), self.now, self.reading()));
        // The greeting.
        if let Err(end) = self.write(id) {
            self.close(id, end);
        }
    }

    /// Makes room for connections that wait, or lets them wait: without this, epoll would report them for ever.
    fn handle_accept_error(&mut self, error: &io::Error) {
        if self.limiter.admits("", RejectReason::Descriptors, self.now) {
            tracing::error!(
                %error,
                connections = self.connections.len(),
                "cannot accept connections: raise the limit of file descriptors (LimitNOFILE=, ulimit -n), or lower \
                 MAX_CONNECTIONS below it; repeats suppressed for 10 min"
            );
        }
        // Others than captures may have taken the descriptors, so no capture has to go.
        match self.connections.dispensable().first().filter(|id| !self.connections.is_valid(**id)) {
            Some(victim) => {
                let why =
                    "has the most or unused connections, and there are no file descriptors left".to_owned();
                self.close(*victim, End::Failed(Failure::Peer(RejectReason::Descriptors, why)));
            }
            None => self.shared.connections.rejections.count(RejectReason::Descriptors),
        }
        self.accept_after = Some(self.now + ACCEPT_PAUSE);
        self.watch_listeners(EventFlags::empty());
    }

    fn watch_listeners(&self, flags: EventFlags) {
        for (token, listener) in (Token::FIRST_LISTENER..).zip(&self.listeners) {
            let _ = epoll::modify(&self.main, listener, EventData::new_u64(token), flags);
        }
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

    /// Reads `AUTHORIZED_KEYS` again if it has changed, and ends the connections of removed keys.
    fn reload_keys(&mut self) {
        let Some(security) = &mut self.security else { return };
        match security.authorized.reload() {
            Reload::Unchanged => return,
            Reload::Failed(error) => {
                tracing::error!("{error}; the keys read before stay in force");
                return;
            }
            Reload::Changed if security.authorized.keys().is_empty() => {
                tracing::warn!("AUTHORIZED_KEYS lists no keys: no capture is admitted until it does");
            }
            Reload::Changed => {
                tracing::info!(keys = security.authorized.keys().len(), "AUTHORIZED_KEYS read again");
            }
        }
        let mut removed = Vec::new();
        for (id, connection) in self.connections.iter() {
            let Peer::Key(key) = connection.sender.peer() else { continue };
            match security.authorized.keys().names(&key) {
                Some(names) => connection.sender.set_admitted(key, Arc::clone(names)),
                None => removed.push(id),
            }
        }
        for id in removed {
            let why = "has a key that was removed from AUTHORIZED_KEYS".to_owned();
            self.close(id, End::Failed(Failure::Peer(RejectReason::RemovedKey, why)));
        }
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
