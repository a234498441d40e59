//! The collector's end: messages of many captures.
//!
//! One thread accepts connections and speaks ZMTP with them ([`zmtp::Server`]); the collector's thread takes messages
//! from a queue of bounded size. When it is full, no more messages are read, and TCP slows down the captures.

mod connection;
mod connections;
mod listener;
mod queue;
mod reader;
mod rejections;
mod sender;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};
use zmtp::SecretKey;

use crate::authorized_keys::{AuthorizedKeysError, AuthorizedKeysFile};
use crate::endpoint::BindAddress;
use listener::Listener;
use queue::{Memory, MessageQueue};
use reader::Reader;
pub use rejections::{RejectReason, Rejections};
pub use sender::Sender;

/// Why the collector cannot listen or receive.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The address is taken.
    #[error(
        "COLLECT_ENDPOINT: `{endpoint}` is in use by another program: choose another port, or stop that program (`ss -ltnp` shows it)"
    )]
    InUse {
        /// The endpoint.
        endpoint: String,
    },
    /// There is something else than a socket at the path.
    #[error("COLLECT_ENDPOINT: `{path}` is a file, but no socket: choose another path, or remove the file")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The address cannot be used.
    #[error("COLLECT_ENDPOINT: cannot listen at `{endpoint}`: {why}")]
    Bind {
        /// The endpoint.
        endpoint: String,
        /// The reason.
        why: io::Error,
    },
    /// There is no thread or file descriptor available.
    #[error("cannot start receiving: {0}")]
    Start(io::Error),
    /// The receiving thread has ended, after it logged why.
    #[error("cannot receive any more")]
    Ended,
}

/// Whom a collector admits.
#[derive(Debug)]
pub struct Security {
    /// The collector's own key.
    pub secret: Arc<SecretKey>,
    /// The captures' keys.
    pub authorized: AuthorizedKeysFile,
}

/// The configuration of the collector's end.
#[derive(Debug)]
pub struct PullConfig {
    /// With keys, only their owners are admitted, and everything is encrypted.
    pub security: Option<Security>,
    /// The most connections at a time.
    pub max_connections: usize,
}

/// A message and its sender.
#[derive(Debug)]
pub struct Message {
    payload: zmtp::Message,
    sender: Arc<Sender>,
}

impl Message {
    /// The connection that it came from.
    #[must_use]
    pub fn sender(&self) -> &Sender {
        &self.sender
    }
}

impl Memory for Message {
    fn memory(&self) -> usize {
        size_of::<Self>() + self.payload.memory()
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.payload.as_ref()
    }
}

/// Counts of the connections of captures.
#[derive(Debug, Default)]
pub struct Connections {
    /// Connections accepted since the start.
    accepted: AtomicU64,
    /// Connections ended since the start.
    ended: AtomicU64,
    /// Connections refused or ended by this side, by reason.
    pub rejections: Rejections,
}

impl Connections {
    fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    fn count_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections accepted since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections at present.
    #[must_use]
    pub fn current(&self) -> u64 {
        // Read first: what is accepted in between must not make it negative.
        let ended = self.ended.load(Ordering::Relaxed);
        self.accepted().saturating_sub(ended)
    }
}

/// What the receiving thread and the collector's thread share.
#[derive(Debug)]
struct Shared {
    queue: MessageQueue<Message>,
    connections: Arc<Connections>,
    stopped: AtomicBool,
    /// Wakes the receiving thread: there is room in the queue, or it has to end.
    wake: OwnedFd,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        // It only fails if it was called 2^64 times without a read.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn clear_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

/// A collector's end that listens, but receives nothing yet.
#[derive(Debug)]
pub struct Pull {
    listeners: Vec<Listener>,
    endpoints: Vec<BindAddress>,
    config: PullConfig,
    shared: Arc<Shared>,
}

impl Pull {
    /// Listens. Each group holds the addresses of one endpoint, as
    /// [`Endpoint::bind_addresses`](crate::Endpoint::bind_addresses) lists them. Of each group at least one must be
    /// available: `localhost` may stand for an IPv6 address that this host does not have.
    ///
    /// # Errors
    /// An address is in use, or none of a group is available.
    pub fn bind(groups: &[Vec<BindAddress>], config: PullConfig) -> Result<Self, PullError> {
        let (mut listeners, mut endpoints) = (Vec::new(), Vec::new());
        for group in groups {
            for (address, listener) in bind_group(group)? {
                endpoints.push(address);
                listeners.push(listener);
            }
        }
        let shared = Shared {
            queue: MessageQueue::new(),
            connections: Arc::default(),
            stopped: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| PullError::Start(errno.into()))?,
        };
        Ok(Self { listeners, endpoints, config, shared: Arc::new(shared) })
    }

    /// The addresses it listens on.
    #[must_use]
    pub fn endpoints(&self) -> &[BindAddress] {
        &self.endpoints
    }

    /// The counts of connections, shared.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.shared.connections)
    }

    /// Whether the list of keys can be read again, perhaps as another user than the one that opened it.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_readable(&self) -> Result<(), AuthorizedKeysError> {
        self.config.security.as_ref().map_or(Ok(()), |security| security.authorized.check_readable())
    }

    /// Starts the receiving thread.
    ///
    /// # Errors
    /// There is no thread or file descriptor available.
    pub fn start(self) -> Result<Receiver, PullError> {
        let Self { listeners, config: PullConfig { security, max_connections }, shared, .. } = self;
        let max_connections = affordable(max_connections);
        let reader = Reader::new(listeners, Arc::clone(&shared), security, max_connections);
        let reader = reader.map_err(PullError::Start)?;
        let closing = CloseOnDrop(Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("receiver".into())
            .spawn(move || {
                let _closing = closing;
                reader.run();
            })
            .map_err(PullError::Start)?;
        Ok(Receiver { shared, thread: Some(thread) })
    }
}

/// File descriptors that are left for everything but the connections of captures: devices, files and metrics.
const RESERVED_DESCRIPTORS: u64 = 128;

/// As many connections as there are file descriptors for.
fn affordable(max_connections: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return max_connections };
    let affordable = limit.saturating_sub(RESERVED_DESCRIPTORS).max(limit / 2);
    let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
    if affordable < max_connections {
        tracing::warn!(
            connections = affordable,
            "the limit of file descriptors ({limit}) allows fewer connections than MAX_CONNECTIONS: raise it \
             (LimitNOFILE=, ulimit -Hn)"
        );
    }
    affordable.min(max_connections)
}

/// Closes the queue when the receiving thread ends, also by a panic: the collector must not wait for messages that cannot come.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// A collector's end that receives. When it is dropped, the connections are closed.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// The next message, or `None` if none arrives within `timeout`.
    ///
    /// # Errors
    /// No more messages can come.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Message>, PullError> {
        let popped = self.shared.queue.pop(timeout);
        if popped.resume {
            self.shared.wake();
        }
        if popped.message.is_none() && popped.closed { Err(PullError::Ended) } else { Ok(popped.message) }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic was printed already.
            let _ = thread.join();
        }
    }
}

/// Listens on the addresses of one endpoint that this host has.
fn bind_group(group: &[BindAddress]) -> Result<Vec<(BindAddress, Listener)>, PullError> {
    let mut bound = Vec::new();
    let mut unavailable = None;
    for address in group {
        match Listener::bind(address) {
            Ok(listener) => bound.push((address.clone(), listener)),
            Err(error @ PullError::Bind { .. }) => {
                tracing::debug!("{error}");
                unavailable = Some(error);
            }
            // Even if another address of the group is free: some captures would reach the other program.
            Err(error) => return Err(error),
        }
    }
    match unavailable {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

#[cfg(test)]
mod tests;
