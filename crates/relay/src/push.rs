//! The capture's end: batches to a collector, over a ZeroMQ PUSH socket.
//!
//! Captures hand batches to a [`RelayHandle`] and go on; the sender's thread sends them. What cannot be sent at the
//! moment waits in a queue of bounded size. ZeroMQ gets few batches at a time, and only while there is a connection,
//! because the queue can still drop the oldest batches, and ZeroMQ cannot.
//!
//! ZeroMQ never says what became of a message. But it releases the message's memory once the kernel has the last byte,
//! and that tells how many packets have not left this process yet.

mod buffer_pool;
mod connector;
mod message;
mod queue;
mod sender;
mod state;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use batch::Compression;

use crate::monitor::{self, MonitorError, MonitorEvent};
use crate::{Endpoint, Host, socket};
use sender::Sender;
pub use state::RelayState;

pub use queue::OverflowPolicy;

/// The most batches that ZeroMQ holds. Higher marks are slower, and lose more when the collector is killed.
const MAX_IN_FLIGHT: usize = 16;

/// The most bytes that ZeroMQ holds: [`MAX_IN_FLIGHT`] batches of the default size.
const MAX_IN_FLIGHT_BYTES: usize = 4 << 20;

/// The configuration of a relay.
#[derive(Clone, Debug)]
pub struct PushConfig {
    /// The collector's endpoint.
    pub endpoint: Endpoint,
    /// The most bytes of batches that wait.
    pub buffer_bytes: usize,
    /// Bytes at which a batch closes.
    pub batch_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// What happens when the buffer is full.
    pub overflow: OverflowPolicy,
}

/// Why the relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The endpoint's host is `*`.
    #[error("RELAY_ENDPOINT: `{endpoint}` names no host to send to")]
    AnyHost {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// ZeroMQ cannot open the socket.
    #[error("RELAY_ENDPOINT: cannot open a socket to `{endpoint}`: {why}")]
    Socket {
        /// The endpoint.
        endpoint: Endpoint,
        /// ZeroMQ's error.
        why: zmq::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start the relay's threads: {0}")]
    Thread(#[from] io::Error),
}

/// A running relay.
pub struct Push {
    state: Arc<RelayState>,
    sender: JoinHandle<()>,
    monitor: JoinHandle<()>,
    /// Closed last, by [`Push::finish`].
    context: zmq::Context,
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Push").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Push {
    /// Starts the relay. The collector may start later. The first resolution of its name has finished when this
    /// returns, unless it takes longer than a second.
    ///
    /// # Errors
    /// The endpoint names no host, or there is no socket or thread available.
    pub fn start(config: PushConfig) -> Result<Self, RelayError> {
        let PushConfig { endpoint, buffer_bytes, batch_bytes, compression, overflow } = config;
        if matches!(endpoint, Endpoint::Tcp { host: Host::Any, .. }) {
            return Err(RelayError::AnyHost { endpoint });
        }
        let failed = |why| RelayError::Socket { endpoint: endpoint.clone(), why };
        let context = zmq::Context::new();
        let in_flight = (MAX_IN_FLIGHT_BYTES / batch_bytes.max(1)).clamp(2, MAX_IN_FLIGHT);
        let socket = socket::push(&context, in_flight).map_err(failed)?;
        let state = Arc::new(RelayState::new(endpoint.to_string(), buffer_bytes, overflow, batch_bytes));
        let monitor =
            monitor::start(&context, &socket, "relay-monitor", record_events(&state)).map_err(|error| {
                match error {
                    MonitorError::Socket(why) => failed(why),
                    MonitorError::Thread(why) => RelayError::Thread(why),
                }
            })?;
        connector::start(&endpoint, &state)?;
        let sender = Sender::new(socket, Arc::clone(&state), compression);
        let sender = thread::Builder::new().name("relay".into()).spawn(move || sender.run())?;
        Ok(Self { state, sender, monitor, context })
    }

    /// A handle for captures and metrics.
    #[must_use]
    pub fn handle(&self) -> RelayHandle {
        Arc::clone(&self.state)
    }

    /// Ends the relay when all batches are with the kernel. With [`OverflowPolicy::Block`] that may take any time,
    /// until [`RelayState::stop_waiting`]; from then on, or at once with [`OverflowPolicy::DropOldest`], it takes up
    /// to `grace`.
    ///
    /// Returns the number of packets that were not delivered. They count as dropped.
    pub fn finish(self, grace: Duration) -> u64 {
        self.state.drain(grace);
        // The sender closes the socket, which ends the monitor. A panic was printed already.
        let _ = self.sender.join();
        let _ = self.monitor.join();
        // Blocks until ZeroMQ's own buffer is empty, for the time of the socket's linger option.
        drop(self.context);
        self.state.undelivered()
    }
}

/// Follows the monitor's events.
fn record_events(state: &Arc<RelayState>) -> impl FnMut(MonitorEvent, &str) + Send + 'static {
    let state = Arc::clone(state);
    let mut reported = false;
    move |event, _| match event {
        MonitorEvent::HandshakeSucceeded => {
            reported = false;
            state.set_connected();
        }
        MonitorEvent::Disconnected => state.set_disconnected(),
        MonitorEvent::HandshakeFailed => {
            if !std::mem::replace(&mut reported, true) {
                tracing::warn!(
                    collector = state.collector(),
                    "the peer at RELAY_ENDPOINT is not a ZeroMQ collector"
                );
            }
        }
        MonitorEvent::Accepted | MonitorEvent::Stopped => {}
    }
}

/// A relay, as captures and metrics see it. All clones are one relay.
pub type RelayHandle = Arc<RelayState>;

/// The state of a relay. All counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// Whether there is a connection to the collector.
    pub connected: bool,
    /// Connections to the collector.
    pub connections: u64,
    /// Batches that ZeroMQ accepted.
    pub sent_batches: u64,
    /// Packets that ZeroMQ accepted, less those that it still held when the relay was abandoned.
    pub sent_packets: u64,
    /// Bytes of the batches that ZeroMQ accepted.
    pub sent_bytes: u64,
    /// Packets that were dropped: the buffer was full, sending failed, or the relay was abandoned.
    pub dropped_packets: u64,
    /// Packets that wait to be sent, or that ZeroMQ holds.
    pub queued_packets: u64,
    /// Bytes of memory that they use.
    pub queued_bytes: u64,
}
