//! The capture's end: batches to a collector, as a ZeroMQ PUSH socket sends them ([`zmtp::Client`]).
//!
//! Captures hand batches to a [`RelayHandle`] and go on; the sender's thread sends them, one at a time, while there is a
//! connection. What cannot be sent at the moment waits in a queue of bounded size, which can still drop the oldest
//! batches. A batch that was being sent when the connection was lost is sent again over the next one; the collector
//! discards the part that it has.

mod buffer_pool;
mod connection;
mod connector;
mod queue;
mod retry;
mod sender;
mod state;
mod target;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use batch::Compression;
use zmtp::{PublicKey, SecretKey};

use crate::{Endpoint, Host};
use sender::Sender;
pub use state::RelayState;

pub use queue::OverflowPolicy;

/// The configuration of a relay.
#[derive(Clone, Debug)]
pub struct PushConfig {
    /// The collector's endpoint.
    pub endpoint: Endpoint,
    /// With keys, everything is encrypted, and goes to their collector only.
    pub keys: Option<PushKeys>,
    /// The most bytes of batches that wait.
    pub buffer_bytes: usize,
    /// Bytes at which a batch closes.
    pub batch_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// What happens when the buffer is full.
    pub overflow: OverflowPolicy,
}

/// The keys of a capture.
#[derive(Clone, Debug)]
pub struct PushKeys {
    /// The collector's public key.
    pub collector: PublicKey,
    /// The capture's own key.
    pub secret: SecretKey,
    /// The name under which the capture sends.
    pub source: String,
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
    /// A thread or file descriptor is not available.
    #[error("cannot start the relay: {0}")]
    Start(#[from] io::Error),
}

/// A running relay.
pub struct Push {
    state: Arc<RelayState>,
    sender: JoinHandle<()>,
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
    /// The endpoint names no host, or there is no thread or file descriptor available.
    pub fn start(config: PushConfig) -> Result<Self, RelayError> {
        let PushConfig { endpoint, keys, buffer_bytes, batch_bytes, compression, overflow } = config;
        if matches!(endpoint, Endpoint::Tcp { host: Host::Any, .. }) {
            return Err(RelayError::AnyHost { endpoint });
        }
        let state = RelayState::new(endpoint.to_string(), buffer_bytes, overflow, batch_bytes)?;
        let state = Arc::new(state);
        connector::start(&endpoint, &state)?;
        let sender = Sender::new(keys, Arc::clone(&state), compression);
        let sender = thread::Builder::new().name("relay".into()).spawn(move || sender.run())?;
        Ok(Self { state, sender })
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
        // A panic was printed already.
        let _ = self.sender.join();
        self.state.undelivered()
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
    /// Batches that are with the kernel.
    pub sent_batches: u64,
    /// Packets that are with the kernel.
    pub sent_packets: u64,
    /// Bytes of the batches that are with the kernel.
    pub sent_bytes: u64,
    /// Packets that were dropped: the buffer was full, sending failed, or the relay was abandoned.
    pub dropped_packets: u64,
    /// Packets that wait to be sent.
    pub queued_packets: u64,
    /// Bytes of memory that they use.
    pub queued_bytes: u64,
}
