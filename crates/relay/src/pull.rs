//! Batches of many captures, from a ZeroMQ PULL socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use batch::MAX_MESSAGE;

/// Messages that wait at most for each connection. Memory, and what a killed collector takes with it, are connections ×
/// mark × size of a batch; higher marks are not faster.
const RECEIVE_MARK: i32 = 4;

/// Connections that wait at most until ZeroMQ has accepted them; the system's own limit may be lower
/// (`net.core.somaxconn`, 4096 since Linux 5.4).
const BACKLOG: i32 = 4096;

/// Where the events of the socket come out, within the context.
const EVENTS: &str = "inproc://packeteur.collect.events";

/// Why the collector cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// ZeroMQ does not give a socket.
    #[error("COLLECT_ENDPOINT: cannot open a socket: {0}")]
    Socket(zmq::Error),
    /// Another program listens there.
    #[error(
        "COLLECT_ENDPOINT: `{endpoint}` is in use by another program: choose another port, or end that program (`ss -ltnp` names it)"
    )]
    InUse {
        /// The endpoint.
        endpoint: String,
    },
    /// This machine cannot listen there.
    #[error("COLLECT_ENDPOINT: cannot listen at `{endpoint}`: {why}")]
    Bind {
        /// The endpoint.
        endpoint: String,
        /// What ZeroMQ says.
        why: zmq::Error,
    },
    /// Receiving failed for good.
    #[error("cannot receive: {0}")]
    Receive(zmq::Error),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A message as ZeroMQ holds it.
#[derive(Debug)]
pub struct Message(zmq::Message);

impl Message {
    /// Who sent it: the address of its connection, where it has one.
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

/// Connections, counted.
#[derive(Debug, Default)]
pub struct Connections {
    /// Accepted since the beginning.
    pub accepted: AtomicU64,
    /// Ended since the beginning.
    pub ended: AtomicU64,
}

/// The collector's end of all relays.
pub struct Pull {
    socket: zmq::Socket,
    /// Behind the socket, for it is closed after it.
    _context: zmq::Context,
    connections: Arc<Connections>,
    endpoints: Vec<String>,
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Pull {
    /// Listens. Each group holds the addresses of one endpoint, in ZeroMQ's notation and without names; of each group at
    /// least one must be there: `localhost` may stand for an IPv6 address that this machine has not got.
    ///
    /// # Errors
    /// Nothing of a group can be bound.
    pub fn bind(groups: &[Vec<String>]) -> Result<Self, PullError> {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PULL).map_err(PullError::Socket)?;
        configure(&socket).map_err(PullError::Socket)?;
        let connections = Arc::default();
        watch(&context, &socket, Arc::clone(&connections))?;
        let mut endpoints = Vec::new();
        for group in groups {
            let mut failed = None;
            let before = endpoints.len();
            for endpoint in group {
                match socket.bind(endpoint) {
                    Ok(()) => endpoints.push(endpoint.clone()),
                    Err(why) => failed = Some((endpoint.clone(), why)),
                }
            }
            match failed {
                // Somebody else has one of the addresses: half of the captures would go there.
                Some((endpoint, zmq::Error::EADDRINUSE)) => return Err(PullError::InUse { endpoint }),
                Some((endpoint, why)) if endpoints.len() == before => {
                    return Err(PullError::Bind { endpoint, why });
                }
                Some((endpoint, why)) => {
                    tracing::debug!(endpoint, %why, "this machine has not got that address");
                }
                None => {}
            }
        }
        Ok(Self { socket, _context: context, connections, endpoints })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Connections, for who wants to look at them from elsewhere.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// The next message; `None` where there is none for so long.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub fn receive(&self, patience: Duration) -> Result<Option<Message>, PullError> {
        match self.try_receive() {
            Ok(None) => {}
            done => return done,
        }
        // Rounded up: a deadline in less than a millisecond is no reason to spin.
        let millis = i64::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
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

fn configure(socket: &zmq::Socket) -> Result<(), zmq::Error> {
    socket.set_rcvhwm(RECEIVE_MARK)?;
    socket.set_maxmsgsize(MAX_MESSAGE as i64)?;
    // A whole fleet may wait for a collector, and come at once when it starts.
    socket.set_backlog(BACKLOG)?;
    socket.set_ipv6(true)?;
    socket.set_linger(0)?;
    // Captures that vanished without a word do not keep their connections for ever.
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(30)?;
    socket.set_tcp_keepalive_intvl(10)?;
    socket.set_tcp_keepalive_cnt(3)?;
    Ok(())
}

/// Starts a thread that counts connections until the socket is closed.
fn watch(
    context: &zmq::Context,
    socket: &zmq::Socket,
    connections: Arc<Connections>,
) -> Result<(), PullError> {
    let events = zmq::SocketEvent::ACCEPTED.to_raw()
        | zmq::SocketEvent::DISCONNECTED.to_raw()
        | zmq::SocketEvent::MONITOR_STOPPED.to_raw();
    socket.monitor(EVENTS, events.into()).map_err(PullError::Socket)?;
    let reader = context.socket(zmq::PAIR).map_err(PullError::Socket)?;
    reader.set_linger(0).map_err(PullError::Socket)?;
    reader.connect(EVENTS).map_err(PullError::Socket)?;
    thread::Builder::new().name("collect-link".into()).spawn(move || count(&reader, &connections))?;
    Ok(())
}

/// Reads every event up to the last: a monitor that is not drained blocks the context's I/O thread.
fn count(reader: &zmq::Socket, connections: &Connections) {
    loop {
        let parts = match reader.recv_multipart(0) {
            Ok(parts) => parts,
            Err(zmq::Error::EINTR) => continue,
            Err(_) => return,
        };
        let Some(&[low, high]) = parts.first().and_then(|event| event.first_chunk::<2>()) else { continue };
        let endpoint = parts.get(1).map(|text| String::from_utf8_lossy(text));
        match zmq::SocketEvent::from_raw(u16::from_le_bytes([low, high])) {
            zmq::SocketEvent::ACCEPTED => {
                connections.accepted.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(endpoint = endpoint.as_deref(), "a connection came in");
            }
            zmq::SocketEvent::DISCONNECTED => {
                connections.ended.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(endpoint = endpoint.as_deref(), "a connection ended");
            }
            zmq::SocketEvent::MONITOR_STOPPED => return,
            _ => {}
        }
    }
}
