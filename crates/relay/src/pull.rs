//! The collector's end: messages of many captures, from a ZeroMQ PULL socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::monitor::{self, MonitorError, MonitorEvent};
use crate::socket;

/// Why the collector cannot listen or receive.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// ZeroMQ cannot open the socket.
    #[error("COLLECT_ENDPOINT: cannot open a socket: {0}")]
    Socket(zmq::Error),
    /// The address is taken.
    #[error(
        "COLLECT_ENDPOINT: `{endpoint}` is in use by another program: choose another port, or stop that program (`ss -ltnp` shows it)"
    )]
    InUse {
        /// The endpoint.
        endpoint: String,
    },
    /// ZeroMQ cannot bind the socket.
    #[error("COLLECT_ENDPOINT: cannot listen at `{endpoint}`: {why}")]
    Bind {
        /// The endpoint.
        endpoint: String,
        /// ZeroMQ's error.
        why: zmq::Error,
    },
    /// The socket is unusable.
    #[error("cannot receive: {0}")]
    Receive(zmq::Error),
    /// The monitor's thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A message in ZeroMQ's memory.
#[derive(Debug)]
pub struct Message(zmq::Message);

impl Message {
    /// The sender's address; `unknown` for a connection without one.
    #[must_use]
    pub fn peer(&mut self) -> &str {
        self.0.gets("Peer-Address").unwrap_or("unknown")
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Counts of the connections of captures.
#[derive(Debug, Default)]
pub struct Connections {
    /// Connections accepted since the start.
    pub accepted: AtomicU64,
    /// Connections ended since the start.
    pub ended: AtomicU64,
}

impl Connections {
    fn record(&self, event: MonitorEvent, endpoint: &str) {
        match event {
            MonitorEvent::Accepted => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(endpoint, "connection accepted");
            }
            MonitorEvent::Disconnected => {
                self.ended.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(endpoint, "connection ended");
            }
            MonitorEvent::HandshakeSucceeded | MonitorEvent::HandshakeFailed | MonitorEvent::Stopped => {}
        }
    }
}

/// The collector's socket.
pub struct Pull {
    socket: zmq::Socket,
    connections: Arc<Connections>,
    endpoints: Vec<String>,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Pull {
    /// Listens. Each group holds the addresses of one endpoint, as
    /// [`Endpoint::bind_addresses`](crate::Endpoint::bind_addresses) lists them. Of each group at least one must be
    /// available: `localhost` may stand for an IPv6 address that this host does not have.
    ///
    /// # Errors
    /// An address is in use, or none of a group is available.
    pub fn bind(groups: &[Vec<String>]) -> Result<Self, PullError> {
        let context = zmq::Context::new();
        let socket = socket::pull(&context).map_err(PullError::Socket)?;
        let connections = Arc::new(Connections::default());
        monitor::start(&context, &socket, "pull-monitor", {
            let connections = Arc::clone(&connections);
            move |event, endpoint| connections.record(event, endpoint)
        })
        .map_err(|error| match error {
            MonitorError::Socket(why) => PullError::Socket(why),
            MonitorError::Thread(why) => PullError::Thread(why),
        })?;
        let mut endpoints = Vec::new();
        for group in groups {
            endpoints.extend(bind_group(&socket, group)?);
        }
        Ok(Self { socket, connections, endpoints })
    }

    /// The addresses it listens on.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The counts of connections, shared.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// The next message, or `None` if none arrives within `timeout`.
    ///
    /// # Errors
    /// The socket is unusable.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Message>, PullError> {
        match self.try_receive() {
            Ok(None) => {}
            done => return done,
        }
        // Rounded up: a timeout below a millisecond must not make the caller spin.
        let millis = i64::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
        match self.socket.poll(zmq::POLLIN, millis) {
            Ok(0) | Err(zmq::Error::EINTR) => Ok(None),
            Ok(_) => self.try_receive(),
            Err(error) => Err(PullError::Receive(error)),
        }
    }

    fn try_receive(&self) -> Result<Option<Message>, PullError> {
        match self.socket.recv_msg(zmq::DONTWAIT) {
            Ok(message) => Ok(Some(Message(message))),
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => Ok(None),
            Err(error) => Err(PullError::Receive(error)),
        }
    }
}

/// Binds the addresses of one endpoint; returns those that this host has.
fn bind_group(socket: &zmq::Socket, group: &[String]) -> Result<Vec<String>, PullError> {
    let mut bound = Vec::new();
    let mut unavailable = None;
    for endpoint in group {
        match socket.bind(endpoint) {
            Ok(()) => bound.push(endpoint.clone()),
            // Even if another address of the group is free: some captures would reach the other program.
            Err(zmq::Error::EADDRINUSE) => return Err(PullError::InUse { endpoint: endpoint.clone() }),
            Err(why) => {
                tracing::debug!(endpoint, %why, "address not available on this host");
                unavailable = Some(PullError::Bind { endpoint: endpoint.clone(), why });
            }
        }
    }
    match unavailable {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_ended_connections_are_counted() {
        let connections = Connections::default();
        for event in [
            MonitorEvent::Accepted,
            MonitorEvent::HandshakeSucceeded,
            MonitorEvent::Accepted,
            MonitorEvent::HandshakeFailed,
            MonitorEvent::Disconnected,
        ] {
            connections.record(event, "tcp://127.0.0.1:7386");
        }
        assert_eq!(connections.accepted.load(Ordering::Relaxed), 2);
        assert_eq!(connections.ended.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_group_needs_one_available_address() {
        let group = |addresses: &[&str]| addresses.iter().map(|&a| a.to_owned()).collect::<Vec<_>>();
        let pull = Pull::bind(&[group(&["inproc://a", "nonsense"])]).unwrap();
        assert_eq!(pull.endpoints(), ["inproc://a"]);
        assert!(pull.receive(Duration::ZERO).unwrap().is_none());
        let error = Pull::bind(&[group(&["inproc://a"]), group(&["nonsense"])]).unwrap_err();
        assert_eq!(error.to_string(), "COLLECT_ENDPOINT: cannot listen at `nonsense`: Invalid argument");
        let error = Pull::bind(&[group(&["inproc://a", "inproc://a"])]).unwrap_err();
        assert!(error.to_string().starts_with("COLLECT_ENDPOINT: `inproc://a` is in use"), "{error}");
    }
}
