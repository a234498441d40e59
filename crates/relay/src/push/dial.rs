//! Which address the relay connects to.
//!
//! ZeroMQ looks a name up on its I/O thread, where a silent name server holds up everything, and takes the first address
//! even where nobody listens there. So names are looked up here, on a thread of its own, and where one stands for
//! several addresses, the first that answers is taken.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;

/// How long an address has to answer, where there are several.
const ANSWER: Duration = Duration::from_secs(1);

/// How often addresses are tried while there is no connection. Captures that find a new collector together are merged in
/// order from the start.
const RETRY: Duration = Duration::from_millis(50);

/// How often at most the name is looked up while there is no connection.
const LOOK_UP: Duration = Duration::from_secs(1);

/// How long ZeroMQ has to find back to an address, before others are tried.
const LOYALTY: Duration = Duration::from_secs(3);

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Behind TCP: a name or an address (IPv6 without brackets), and a port.
    Tcp {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system, or (`@…`) in the abstract namespace.
    Ipc {
        /// Its path.
        path: String,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ipc { path } => write!(f, "ipc://{path}"),
        }
    }
}

/// The address to connect to, as it is known at present.
#[derive(Clone, Debug, Default)]
pub(super) struct Dial {
    target: Arc<Mutex<Option<String>>>,
}

impl Dial {
    /// Begins to look for the peer. The first look-up of a name is over when this returns, unless it takes longer than a
    /// second.
    pub(super) fn start(
        peer: Peer,
        shared: Arc<Shared>,
        resolved: impl Fn(&[SocketAddr]) + Send + 'static,
    ) -> io::Result<Self> {
        let dial = Self::default();
        match peer {
            Peer::Ipc { .. } => dial.set(peer.to_string()),
            Peer::Tcp { host, port } => {
                let (first, looked_up) = std::sync::mpsc::channel();
                let search = Search { host, port, dial: dial.clone(), shared };
                thread::Builder::new().name("relay-dial".into()).spawn(move || {
                    search.run(|addresses| {
                        resolved(addresses);
                        // Nobody listens any more after the first time.
                        let _ = first.send(());
                    });
                })?;
                let _ = looked_up.recv_timeout(Duration::from_secs(1));
            }
        }
        Ok(dial)
    }

    /// The address to connect to, in ZeroMQ's notation.
    pub(super) fn target(&self) -> Option<String> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, target: String) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }
}

struct Search {
    host: String,
    port: u16,
    dial: Dial,
    shared: Arc<Shared>,
}

impl Search {
    /// Looks for the peer whenever there is no connection, until the relay is closed.
    fn run(&self, resolved: impl Fn(&[SocketAddr])) {
        let mut down_since: Option<Instant> = None;
        let mut looked_up: Option<Instant> = None;
        let mut addresses = Vec::new();
        let mut silent = true;
        while !self.shared.queue.is_done(|| 0) && !self.shared.queue.is_abandoned() {
            if self.shared.link.is_up() {
                (down_since, looked_up, silent) = (None, None, true);
                thread::sleep(RETRY);
                continue;
            }
            let down_since = *down_since.get_or_insert_with(Instant::now);
            if looked_up.is_none_or(|at| at.elapsed() >= LOOK_UP) {
                looked_up = Some(Instant::now());
                addresses = self.look_up(&mut silent);
                resolved(&addresses);
            }
            if (self.dial.target().is_none() || down_since.elapsed() > LOYALTY)
                && let Some(address) = choose(&addresses)
            {
                self.dial.set(format!("tcp://{address}"));
            }
            if silent && down_since.elapsed() > LOYALTY {
                silent = false;
                tracing::warn!(
                    host = self.host,
                    port = self.port,
                    "no collector there so far; packets wait in RELAY_BUFFER"
                );
            }
            thread::sleep(RETRY);
        }
    }

    /// The addresses that the name stands for. Where there are none, the log says so once.
    fn look_up(&self, silent: &mut bool) -> Vec<SocketAddr> {
        match (self.host.as_str(), self.port).to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                if std::mem::take(silent) {
                    tracing::warn!(host = self.host, %error, "cannot look up the collector's name; trying on");
                }
                Vec::new()
            }
        }
    }
}

/// The only address, or the first that answers.
fn choose(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    match addresses {
        [only] => Some(*only),
        several => {
            several.iter().copied().find(|address| TcpStream::connect_timeout(address, ANSWER).is_ok())
        }
    }
}
