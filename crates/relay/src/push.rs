//! The relay: batches to a collector, over a ZeroMQ PUSH socket.
//!
//! A capture hands its batches to a [`Handle`] and goes on; a thread sends them. What cannot be sent at the moment
//! waits in a buffer of bounded size (`queue`). ZeroMQ itself gets few batches at a time, and only while there is a
//! connection, so that what waits can still be shed, oldest first.
//!
//! ZeroMQ never says what became of a message. It does say when it has let go of its memory, which is when the last
//! byte is with the kernel: from that `message` tells how many packets are still on their way out of this process.

mod dial;
mod message;
mod monitor;
mod queue;
mod sender;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use batch::{Batch, Compression};

use dial::Dial;
use monitor::Link;
use queue::Queue;

pub use dial::Peer;
pub use queue::WhenFull;

/// Batches that ZeroMQ holds at most, where they are small. Marks above this are slower, and lose more when the
/// collector dies.
const MAX_IN_FLIGHT: usize = 16;

/// Bytes that ZeroMQ holds at most: [`MAX_IN_FLIGHT`] batches of the default size.
const MAX_IN_FLIGHT_BYTES: usize = 4 << 20;

/// How the relay is set up.
#[derive(Debug)]
pub struct Settings {
    /// Where the collector is.
    pub peer: Peer,
    /// Bytes of batches that may wait.
    pub buffer: usize,
    /// Bytes at which a batch closes.
    pub batch_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// What happens when the buffer is full.
    pub when_full: WhenFull,
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// ZeroMQ does not give a socket.
    #[error("RELAY_ENDPOINT: cannot open a socket to `{peer}`: {why}")]
    Socket {
        /// Where to.
        peer: String,
        /// What ZeroMQ says.
        why: zmq::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the relay's threads: {0}")]
    Thread(#[from] io::Error),
}

/// The relay, with its threads.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    sender: thread::JoinHandle<()>,
}

/// What the relay's threads, and those who hand it batches, share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    link: Link,
    pool: Arc<message::Pool>,
}

/// Where a capture hands its batches.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Hands over a batch. Returns at once, unless the relay is to wait for room.
    pub fn send(&self, batch: Batch) {
        self.0.queue.push(batch, self.0.pool.in_flight_bytes());
    }

    /// It is time to end: nobody waits for room any more.
    pub fn hurry(&self) {
        self.0.queue.hurry();
    }

    /// Memory for a batch.
    #[must_use]
    pub fn spare(&self) -> Vec<u8> {
        self.0.pool.take()
    }

    /// How the relay is.
    #[must_use]
    pub fn status(&self) -> Status {
        let queue = self.0.queue.counts();
        let pool = &self.0.pool;
        let lost = pool.lost_packets.load(Ordering::Relaxed);
        Status {
            connected: self.0.link.is_up(),
            connections: self.0.link.connections(),
            sent_batches: pool.sent_batches.load(Ordering::Relaxed),
            sent_packets: pool.sent_packets.load(Ordering::Relaxed).saturating_sub(lost),
            sent_bytes: pool.sent_bytes.load(Ordering::Relaxed),
            dropped_packets: queue.dropped_packets + lost,
            waiting_packets: queue.packets + pool.in_flight_packets(),
            waiting_bytes: (queue.bytes + pool.in_flight_bytes()) as u64,
        }
    }
}

/// How the relay is. All counts are since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether there is a connection now.
    pub connected: bool,
    /// Connections that came about.
    pub connections: u64,
    /// Batches given to ZeroMQ.
    pub sent_batches: u64,
    /// Packets in them.
    pub sent_packets: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Packets for which the buffer had no room, or, at the end, no time was left.
    pub dropped_packets: u64,
    /// Packets that wait, or are on their way through ZeroMQ.
    pub waiting_packets: u64,
    /// Bytes of memory that they take.
    pub waiting_bytes: u64,
}

impl Relay {
    /// Starts the relay. The collector need not be there yet. `resolved` is told the addresses that the peer's name
    /// stands for, each time they are looked up.
    ///
    /// # Errors
    /// There is no socket, or no thread, to be had.
    pub fn start(
        settings: Settings,
        resolved: impl Fn(&[SocketAddr]) + Send + 'static,
    ) -> Result<Self, RelayError> {
        let peer = settings.peer.to_string();
        let failed = |why| RelayError::Socket { peer: peer.clone(), why };
        let in_flight = (MAX_IN_FLIGHT_BYTES / settings.batch_bytes).clamp(2, MAX_IN_FLIGHT);
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PUSH).map_err(failed)?;
        configure(&socket, in_flight).map_err(failed)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.buffer, settings.when_full),
            link: Link::new(peer.clone()),
            pool: Arc::new(message::Pool::new(settings.batch_bytes)),
        });
        monitor::watch(&context, &socket, Arc::clone(&shared)).map_err(|error| match error {
            monitor::WatchError::Socket(why) => failed(why),
            monitor::WatchError::Thread(why) => RelayError::Thread(why),
        })?;
        let dial = Dial::start(settings.peer, Arc::clone(&shared), resolved)?;
        let sender = sender::Sender::new(context, socket, dial, settings.compression, Arc::clone(&shared));
        let sender = thread::Builder::new().name("relay".into()).spawn(move || sender.run())?;
        Ok(Self { shared, sender })
    }

    /// Where captures hand their batches.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Ends the relay once everything is on its way, or as soon as `patient` says that it has waited long enough.
    /// Returns how many packets were left behind.
    pub fn finish(self, mut patient: impl FnMut() -> bool) -> u64 {
        self.shared.queue.close();
        while !self.shared.queue.is_done(|| self.shared.pool.in_flight_batches()) {
            if !patient() {
                self.shared.queue.abandon();
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        // The sender's thread ends with its queue, and closes the socket. A panic in it has been printed already.
        let _ = self.sender.join();
        self.shared.queue.shed_all() + self.shared.pool.lost_packets.load(Ordering::Relaxed)
    }
}

/// Sets the options of the socket that do not depend on where it connects to.
fn configure(socket: &zmq::Socket, in_flight: usize) -> Result<(), zmq::Error> {
    socket.set_sndhwm(in_flight as i32)?;
    // What ZeroMQ holds outlives a lost connection, and is sent over the next one.
    socket.set_immediate(false)?;
    // The sender waits for its messages itself; this covers the last few bytes in ZeroMQ's own buffer.
    socket.set_linger(1000)?;
    socket.set_ipv6(true)?;
    // Always the same: captures that find a new collector together are merged in order from the start.
    socket.set_reconnect_ivl(50)?;
    // A collector that vanished without a word is noticed when nothing is to be sent, too. (ZMTP's own heartbeats would
    // take a slow reader for a dead one: its pongs wait behind the messages that it does not take.)
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(30)?;
    socket.set_tcp_keepalive_intvl(10)?;
    socket.set_tcp_keepalive_cnt(3)?;
    Ok(())
}
