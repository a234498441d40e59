//! The capture pipeline, for the modes `capture` and `observe`: each source has a thread, which reads batches, shows
//! them to the observers, and hands them to the relay, if there is one.

mod metrics;
mod sources;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use batch::{Batch, BatchLimits, Interface};
use observe::{ObservedBatch, Observers, OriginId};
use relay::{KeyFileError, OverflowPolicy, Push, PushConfig, PushKeys, RelayError, RelayHandle};
use source::{CaptureContext, InterfaceOrder, PacketSource, Progress, Quota};
use tracing::{error, info, warn};

pub use metrics::CaptureHandle;
pub use sources::SourceError;

use crate::config::{
    CaptureConfig, CaptureKeys, CommonConfig, Input, InputConfig, ObserveConfig, RelayConfig,
};
use crate::{Ended, Stop};
use sources::{OpenSource, Sources};

/// How long a capture that was told to stop waits for the collector to receive what is queued.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum bytes captured per packet where packets are only measured: the headers, with room for tags, extension
/// headers and options. A segment of 64 KiB then takes a hundredth of the ring and of the copying.
const OBSERVE_SNAPLEN: u32 = 512;

/// The limits of batches that are not relayed: the defaults of those that are.
const OBSERVE_LIMITS: BatchLimits = BatchLimits { bytes: 256 << 10, delay: Duration::from_millis(50) };

/// Batches of a file that wait to be sent. A file is read faster than it is sent; more would only be evicted from the
/// CPU cache.
const READ_AHEAD_BATCHES: usize = 8;

/// Why a capture cannot start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The capture's own key.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl CaptureError {
    /// Whether the settings are wrong rather than the host.
    #[must_use]
    pub const fn is_setting(&self) -> bool {
        match self {
            Self::Source(error) => error.is_setting(),
            Self::KeyFile(_) => true,
            Self::Relay(_) | Self::Thread(_) => false,
        }
    }
}

/// A capture whose sources are open. It has no threads yet: see [`Capture::start`].
pub struct Capture {
    sources: Sources,
    observers: Arc<Observers>,
    relay: Option<PushConfig>,
    stop: Stop,
    /// Whether the packets can wait for the collector: those of a file.
    can_wait: bool,
}

impl Capture {
    /// Opens the sources of a capture that relays.
    ///
    /// # Errors
    /// A source cannot be opened.
    pub fn open(config: &CaptureConfig, stop: &Stop) -> Result<Self, CaptureError> {
        if config.relay.keys.is_none() && !config.relay.endpoint.is_local() {
            warn!(
                "the relay is not encrypted: anyone on the path to RELAY_ENDPOINT can read the packets (set KEY_FILE and \
                 COLLECTOR_KEY)"
            );
        }
        let keys = config.relay.keys.as_ref().map(|keys| push_keys(keys, &config.source_name)).transpose()?;
        let context = CaptureContext {
            source: config.source_name.as_str().into(),
            limits: config.relay.batch,
            ..context(&config.common, stop)
        };
        let sources = Sources::open(&config.input, u32::MAX, context)?;
        let relay = push_config(&config.relay, keys, &config.input);
        Ok(Self::new(sources, &config.common, &config.input, Some(relay), stop))
    }

    /// Opens the sources of an exporter: packets are measured, and not relayed.
    ///
    /// # Errors
    /// A source cannot be opened.
    pub fn open_observer(config: &ObserveConfig, stop: &Stop) -> Result<Self, CaptureError> {
        let context =
            CaptureContext { interface_order: InterfaceOrder::FileOrder, ..context(&config.common, stop) };
        let sources = Sources::open(&config.input, OBSERVE_SNAPLEN, context)?;
        Ok(Self::new(sources, &config.common, &config.input, None, stop))
    }

    fn new(
        sources: Sources,
        common: &CommonConfig,
        input: &InputConfig,
        relay: Option<PushConfig>,
        stop: &Stop,
    ) -> Self {
        let observers = Observers::new(common.observers.for_capture(&input.input));
        Self { sources, observers, relay, stop: stop.clone(), can_wait: input.input.can_wait() }
    }

    /// Starts the relay and its threads, then the capture: from here on packets are kept. It needs no privileges.
    ///
    /// # Errors
    /// The relay cannot start, or a device is gone.
    pub fn start(self) -> Result<StartedCapture, CaptureError> {
        let Self { mut sources, observers, relay, stop, can_wait } = self;
        let push = relay.map(Push::start).transpose()?;
        let relay = push.as_ref().map(Push::handle);
        // The relay's addresses are known now, or will be excluded when they are.
        sources.begin(&relay.as_ref().map(|relay| relay.peer_addresses()).unwrap_or_default())?;
        if can_wait && let Some(relay) = relay.clone() {
            // A file waits for room in the relay's buffer. Once told to stop, it must not wait.
            let stop = stop.clone();
            thread::Builder::new().name("stop-waiting".into()).spawn(move || {
                stop.wait_timeout(Duration::MAX);
                relay.stop_waiting();
            })?;
        }
        let Sources { sources, devices, tzsp } = sources;
        let handle = CaptureHandle::new(Arc::clone(&observers), devices, tzsp, relay);
        Ok(StartedCapture { sources, observers, push, handle, stop, can_wait })
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("relay", &self.relay).finish_non_exhaustive()
    }
}

/// A capture that keeps packets, and whose relay runs.
#[derive(Debug)]
pub struct StartedCapture {
    sources: Vec<OpenSource>,
    observers: Arc<Observers>,
    push: Option<Push>,
    handle: CaptureHandle,
    stop: Stop,
    /// Whether the packets can wait for the collector: those of a file.
    can_wait: bool,
}

impl StartedCapture {
    /// A handle to read the capture's figures while it runs.
    #[must_use]
    pub fn handle(&self) -> CaptureHandle {
        self.handle.clone()
    }

    /// Captures until the sources end or the stop is requested, then waits for the relay.
    ///
    /// # Errors
    /// A source's thread cannot be started.
    pub fn run(self) -> Result<Ended, CaptureError> {
        let Self { sources, observers, push, stop, can_wait, .. } = self;
        let relay = push.as_ref().map(Push::handle);
        let consumer = || Consumer::new(Arc::clone(&observers), relay.clone());
        let ended = run_sources(sources, consumer, &stop);
        if let Some(push) = push {
            finish(push, can_wait && !stop.is_set());
        }
        Ok(ended?)
    }
}

/// What the sources of one capture share. The name is set by a capture that relays.
fn context(common: &CommonConfig, stop: &Stop) -> CaptureContext {
    CaptureContext {
        source: "".into(),
        epoch: SystemTime::now().into(),
        limits: OBSERVE_LIMITS,
        stop: stop.flag(),
        quota: Arc::new(Quota::new(common.max_packets.map(NonZero::get))),
        interface_order: InterfaceOrder::Interleaved,
    }
}

/// Reads the key of a capture that has one.
fn push_keys(keys: &CaptureKeys, source_name: &str) -> Result<PushKeys, KeyFileError> {
    let CaptureKeys { key_file, collector } = keys;
    let secret = relay::read_secret_key(key_file)?;
    info!(public_key = %secret.public(), "the relay is encrypted");
    Ok(PushKeys { collector: *collector, secret, source: source_name.to_owned() })
}

fn push_config(relay: &RelayConfig, keys: Option<PushKeys>, input: &InputConfig) -> PushConfig {
    let (overflow, buffer_bytes) = if input.input.can_wait() {
        (OverflowPolicy::Block, relay.buffer.min(READ_AHEAD_BATCHES * relay.batch.bytes))
    } else {
        (OverflowPolicy::DropOldest, relay.buffer)
    };
    PushConfig {
        endpoint: relay.endpoint.clone(),
        keys,
        buffer_bytes,
        batch_bytes: relay.batch.bytes,
        compression: relay.compression,
        overflow,
    }
}

/// Runs each source on its own thread until the last one has ended.
fn run_sources(sources: Vec<OpenSource>, consumer: impl Fn() -> Consumer, stop: &Stop) -> io::Result<Ended> {
    let mut threads = Vec::new();
    for source in sources {
        let (consumer, stop) = (consumer(), StopOnPanic(stop.clone()));
        let builder = thread::Builder::new().name("capture".into());
        threads.push(builder.spawn(move || {
            let _stop = stop;
            match source {
                OpenSource::Device(device) => log_end(run_source(*device, consumer)),
                OpenSource::File(file) => log_end(run_source(*file, consumer)),
                OpenSource::Tzsp(listener) => log_end(run_source(*listener, consumer)),
            }
        })?);
    }
    let mut all = Ended::Well;
    for thread in threads {
        match thread.join() {
            Ok(Ended::Well) => {}
            Ok(Ended::Badly) => all = Ended::Badly,
            // The panic's message is on standard error.
            Err(_) => {
                error!("a capture thread panicked: this is a defect of the program");
                all = Ended::Badly;
            }
        }
    }
    Ok(all)
}

/// Stops the capture when the thread that holds it panics: the other threads would go on, and nothing would tell that one
/// of them is missing.
struct StopOnPanic(Stop);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set();
        }
    }
}

/// Reads one source to its end.
fn run_source<S: PacketSource>(mut source: S, mut consumer: Consumer) -> Result<(), S::Error> {
    loop {
        if let Some(addresses) = consumer.new_peer_addresses() {
            source.exclude(&addresses);
        }
        while source.wants_buffer() {
            source.recycle(consumer.take_buffer());
        }
        let progress = source.poll();
        while let Some(batch) = source.poll_batch() {
            consumer.consume(batch);
        }
        if progress? == Progress::Ended {
            return Ok(());
        }
    }
}

/// Logs at once how a source ended, while others go on.
fn log_end(ended: Result<(), impl Into<SourceError>>) -> Ended {
    match ended.map_err(Into::into) {
        Ok(()) => Ended::Well,
        // All whole packets of a truncated file have been read.
        Err(error) if error.is_truncated_file() => {
            warn!("{error}");
            Ended::Well
        }
        Err(error) => {
            error!("{error}");
            Ended::Badly
        }
    }
}

/// Waits until the collector has received what is queued.
fn finish(push: Push, end_of_file: bool) {
    let handle = push.handle();
    let status = handle.status();
    if end_of_file && status.queued_bytes > 0 && !status.connected {
        info!("end of file; waiting for the collector to receive the remaining packets");
    }
    let left = push.finish(STOP_TIMEOUT);
    let status = handle.status();
    if left > 0 {
        error!(packets = left, "packets lost: the collector did not receive them in time");
    }
    info!(packets = status.sent_packets, dropped = status.dropped_packets, "relay finished");
}

/// What happens to the batches of one source.
struct Consumer {
    observers: Arc<Observers>,
    relay: Option<RelayHandle>,
    /// The generation of the relay's peer addresses that the source was given.
    peer_generation: u64,
    /// The memory of batches that were only observed.
    spare: Vec<Vec<u8>>,
    /// The observers' numbers of the interfaces.
    origins: Vec<(Arc<Interface>, OriginId)>,
}

impl Consumer {
    fn new(observers: Arc<Observers>, relay: Option<RelayHandle>) -> Self {
        Self { observers, relay, peer_generation: 0, spare: Vec::new(), origins: Vec::new() }
    }

    /// Observes a batch, then relays it.
    fn consume(&mut self, batch: Batch) {
        let (origin, watermark) = (self.origin(batch.interface()), batch.close_info().watermark);
        let ended = batch.ends().then(|| Arc::clone(batch.interface()));
        self.observers.observe(&ObservedBatch {
            origin,
            link_type: batch.interface().link_type,
            packets: batch.packets(),
            records: batch.payload(),
            watermark,
        });
        match &self.relay {
            Some(relay) => relay.send(batch),
            None => self.spare.push(batch.into_spare()),
        }
        if let Some(ended) = ended {
            // A router that sends again has another interface. Any host can make up routers.
            self.origins.retain(|(known, _)| !Arc::ptr_eq(known, &ended));
            self.observers.release(origin);
        }
    }

    /// Memory for a later batch: that of an earlier one, or none.
    fn take_buffer(&mut self) -> Vec<u8> {
        match &self.relay {
            Some(relay) => relay.take_buffer(),
            None => self.spare.pop().unwrap_or_default(),
        }
    }

    /// The observers' number of an interface.
    fn origin(&mut self, interface: &Arc<Interface>) -> OriginId {
        if let Some((_, id)) = self.origins.iter().find(|(known, _)| Arc::ptr_eq(known, interface)) {
            return *id;
        }
        let id = self.observers.register(&interface.origin, &interface.names);
        // A changed description replaces the one before.
        if let Some((known, _)) = self.origins.iter_mut().find(|(_, known)| *known == id) {
            *known = Arc::clone(interface);
            self.observers.release(id);
        } else {
            self.origins.push((Arc::clone(interface), id));
        }
        id
    }

    /// The addresses of the relay's peer, if they have changed since the last call.
    fn new_peer_addresses(&mut self) -> Option<Vec<SocketAddr>> {
        let relay = self.relay.as_ref()?;
        let generation = relay.peer_addresses_generation();
        (generation != self.peer_generation).then(|| {
            self.peer_generation = generation;
            relay.peer_addresses()
        })
    }
}

impl Input {
    /// Whether packets can wait for room: those of a file or a pipe can, those of a device cannot.
    const fn can_wait(&self) -> bool {
        matches!(self, Self::File(_) | Self::TzspFile(..))
    }
}

#[cfg(test)]
mod tests;
