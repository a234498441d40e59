//! Whether there is a connection to the collector: what ZeroMQ's monitor says.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::Shared;

/// Where the events come out, within the context.
const EVENTS: &str = "inproc://packeteur.relay.events";

/// The connection to the collector.
#[derive(Debug)]
pub(super) struct Link {
    peer: String,
    up: AtomicBool,
    connections: AtomicU64,
}

impl Link {
    pub(super) const fn new(peer: String) -> Self {
        Self { peer, up: AtomicBool::new(false), connections: AtomicU64::new(0) }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// How many there have been.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn came_up(&self) {
        if !self.up.swap(true, Ordering::AcqRel) {
            self.connections.fetch_add(1, Ordering::Relaxed);
            tracing::info!(collector = self.peer, "connected to the collector");
        }
    }

    fn went_down(&self) {
        if self.up.swap(false, Ordering::AcqRel) {
            tracing::warn!(
                collector = self.peer,
                "lost the connection to the collector; packets wait in RELAY_BUFFER"
            );
        }
    }
}

/// Why the socket cannot be watched.
#[derive(Debug)]
pub(super) enum WatchError {
    /// ZeroMQ says no.
    Socket(zmq::Error),
    /// The system gives no thread.
    Thread(io::Error),
}

/// Starts a thread that keeps the link up to date until the socket is closed.
pub(super) fn watch(
    context: &zmq::Context,
    socket: &zmq::Socket,
    shared: Arc<Shared>,
) -> Result<(), WatchError> {
    let events = zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw()
        | zmq::SocketEvent::DISCONNECTED.to_raw()
        | zmq::SocketEvent::HANDSHAKE_FAILED_NO_DETAIL.to_raw()
        | zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL.to_raw()
        | zmq::SocketEvent::HANDSHAKE_FAILED_AUTH.to_raw()
        | zmq::SocketEvent::MONITOR_STOPPED.to_raw();
    socket.monitor(EVENTS, events.into()).map_err(WatchError::Socket)?;
    let reader = context.socket(zmq::PAIR).map_err(WatchError::Socket)?;
    reader.set_linger(0).map_err(WatchError::Socket)?;
    reader.connect(EVENTS).map_err(WatchError::Socket)?;
    thread::Builder::new()
        .name("relay-link".into())
        .spawn(move || read(&reader, &shared))
        .map_err(WatchError::Thread)?;
    Ok(())
}

/// Reads every event up to the last: a monitor that is not drained blocks the context's I/O thread.
fn read(reader: &zmq::Socket, shared: &Shared) {
    let mut failed = false;
    loop {
        let parts = match reader.recv_multipart(0) {
            Ok(parts) => parts,
            Err(zmq::Error::EINTR) => continue,
            Err(_) => return,
        };
        let Some(&[low, high]) = parts.first().and_then(|event| event.first_chunk::<2>()) else { continue };
        let event = zmq::SocketEvent::from_raw(u16::from_le_bytes([low, high]));
        match event {
            zmq::SocketEvent::HANDSHAKE_SUCCEEDED => {
                failed = false;
                shared.link.came_up();
            }
            zmq::SocketEvent::DISCONNECTED => shared.link.went_down(),
            zmq::SocketEvent::MONITOR_STOPPED => return,
            _ if !failed => {
                failed = true;
                tracing::warn!(
                    collector = shared.link.peer,
                    "what listens at RELAY_ENDPOINT does not speak ZeroMQ as a collector does"
                );
            }
            _ => {}
        }
    }
}
