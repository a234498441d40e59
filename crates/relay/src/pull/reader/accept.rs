//! New connections, and who gives way to them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use batch::MAX_MESSAGE;
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::Socket;
use zmtp::Server;

use super::super::connection::{Connection, Failure};
use super::super::listener::{Accepted, PeerAddress};
use super::super::rejections::RejectReason;
use super::super::sender::Sender;
use super::{End, Reader, Token};

/// Connections that are accepted before messages get their turn.
const MAX_ACCEPTS: usize = 64;

/// How long no connection is accepted when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Reader {
    /// Accepts connections that wait.
    pub(super) fn accept(&mut self, listener: usize) {
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

    fn add(&mut self, socket: Socket, peer: PeerAddress) {
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

    /// Makes room for connections that wait, or lets them wait. Otherwise epoll would keep reporting them.
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

    pub(super) fn watch_listeners(&self, flags: EventFlags) {
        for (token, listener) in (Token::FIRST_LISTENER..).zip(&self.listeners) {
            let _ = epoll::modify(&self.main, listener, EventData::new_u64(token), flags);
        }
    }
}
