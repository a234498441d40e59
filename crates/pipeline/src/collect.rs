//! The collect pipeline: batches of many captures become one capture in timestamp order.
//!
//! One thread does it all, so that each packet is handled while it is in the processor's cache, and a slow reader of the
//! output slows down the receiving: TCP then slows down the captures, each of which decides what to drop.

mod clock;
mod collector;
mod interfaces;
mod log_limiter;
mod metrics;
mod outcomes;
mod peer;
mod rejections;
mod run;
mod sources;

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::Exposition;
use ledger::Ledger;
use observe::Observers;
use parking_lot::Mutex;
use prometheus::Registry;
use relay::{
    AuthorizedKeysError, AuthorizedKeysFile, Connections, Endpoint, KeyFileError, Message, Pull, PullConfig,
    PullError, Receiver, ResolveError, Security,
};
use sink::{CaptureWriter, Stream, StreamError};
use tracing::{info, warn};

use crate::config::{CollectConfig, CollectorKeys, FileOrStdio};
use crate::{PipelineHandle, Stop, Totals};
use clock::{MergeClock, SystemClocks};
use collector::Collector;
use rejections::Rejections;
use run::CollectLoop;

/// Why a collector does not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The host name of an endpoint cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Listening or receiving failed.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The output cannot be opened or written.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The collector's own key.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The captures' keys.
    #[error(transparent)]
    AuthorizedKeys(#[from] AuthorizedKeysError),
}

impl CollectError {
    /// Whether the settings are wrong rather than the host.
    #[must_use]
    pub const fn is_setting(&self) -> bool {
        matches!(self, Self::KeyFile(_) | Self::AuthorizedKeys(_))
    }
}

/// What the collector's thread shares with the metrics.
struct Shared {
    ledger: Mutex<Ledger>,
    observers: Arc<Observers>,
    /// The most sources at a time.
    max_sources: u32,
    rejections: Rejections,
    /// Packets in the merge.
    merge_packets: AtomicU64,
    /// Bytes of the batches in the merge.
    merge_bytes: AtomicU64,
}

impl Shared {
    fn new(observers: Arc<Observers>, max_sources: u32) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::new(Ledger::new(max_sources)),
            observers,
            max_sources,
            rejections: Rejections::default(),
            merge_packets: AtomicU64::new(0),
            merge_bytes: AtomicU64::new(0),
        })
    }
}

/// A collector that listens. Its output is opened later, by the user that the program runs as.
#[derive(Debug)]
pub struct Listener {
    pull: Pull,
}

impl Listener {
    /// Reads the keys, and listens.
    ///
    /// # Errors
    /// The keys cannot be used, or an endpoint cannot be resolved or is not available.
    pub fn open(config: &CollectConfig) -> Result<Self, CollectError> {
        let security = config.keys.as_ref().map(security).transpose()?;
        if security.is_none() && !config.endpoints.iter().all(Endpoint::is_local) {
            warn!(
                "the relay is not encrypted, and everybody who reaches COLLECT_ENDPOINT can send packets (set KEY_FILE and \
                 AUTHORIZED_KEYS)"
            );
        }
        let addresses =
            config.endpoints.iter().map(Endpoint::bind_addresses).collect::<Result<Vec<_>, _>>()?;
        let config = PullConfig { security, max_connections: config.max_connections };
        Ok(Self { pull: Pull::bind(&addresses, config)? })
    }
}

/// A collector that has opened its output. It has no threads yet: see [`Collect::start`].
pub struct Collect {
    listener: Listener,
    collector: Collector<Message, File>,
    exit_on_end: bool,
    stop: Stop,
    shared: Arc<Shared>,
}

impl fmt::Debug for Collect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Collect {
    /// Opens the output. Setting `stop` ends [`StartedCollect::run`].
    ///
    /// # Errors
    /// The output cannot be opened.
    pub fn open(listener: Listener, config: &CollectConfig, stop: &Stop) -> Result<Self, CollectError> {
        // The list is read again by this user.
        listener.pull.check_readable()?;
        let stream = match &config.output {
            FileOrStdio::File(path) => Stream::create(path)?,
            FileOrStdio::Stdio => Stream::stdout()?,
        };
        let writer = CaptureWriter::new(stream, config.format)?;
        let shared =
            Shared::new(Observers::new(config.common.observers.for_collector()), config.max_sources.get());
        let merge = merge::MergeConfig {
            window: config.merge_window,
            grace: config.merge_window / 2,
            ..merge::MergeConfig::default()
        };
        Ok(Self {
            listener,
            collector: Collector::new(merge, writer, config.common.max_packets, Arc::clone(&shared)),
            exit_on_end: config.exit_on_end,
            stop: stop.clone(),
            shared,
        })
    }

    /// Starts to receive, on threads of its own.
    ///
    /// # Errors
    /// There is no thread or file descriptor available.
    pub fn start(self) -> Result<StartedCollect, CollectError> {
        let Self { listener, collector, exit_on_end, stop, shared } = self;
        let Listener { pull } = listener;
        let (connections, endpoints) = (pull.connections(), pull.endpoints().to_vec());
        let receiver = pull.start()?;
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        info!(?endpoints, "waiting for captures");
        let clock = MergeClock::new(SystemClocks::start());
        let inner = CollectLoop { receiver, collector, clock, stop, exit_on_end, shared };
        Ok(StartedCollect { inner, connections })
    }
}

/// A collector that receives.
pub struct StartedCollect {
    inner: CollectLoop<Receiver, File, SystemClocks>,
    connections: Arc<Connections>,
}

impl fmt::Debug for StartedCollect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedCollect").field("receiver", &self.inner.receiver).finish_non_exhaustive()
    }
}

impl StartedCollect {
    /// Collects until it is stopped, `MAX_PACKETS` are written, all sources have ended (with `EXIT_ON_END`), or the
    /// output's reader has gone. None of these is an error.
    ///
    /// # Errors
    /// Receiving or writing failed.
    pub fn run(self) -> Result<(), CollectError> {
        self.inner.run()
    }

    /// A handle to read the collector's figures while it runs.
    #[must_use]
    pub fn handle(&self) -> CollectHandle {
        CollectHandle { shared: Arc::clone(&self.inner.shared), connections: Arc::clone(&self.connections) }
    }
}

/// Reads the keys.
fn security(keys: &CollectorKeys) -> Result<Security, CollectError> {
    let secret = Arc::new(relay::read_secret_key(&keys.key_file)?);
    let authorized = AuthorizedKeysFile::open(&keys.authorized_keys)?;
    if authorized.keys().is_empty() {
        warn!(
            "AUTHORIZED_KEYS: `{}` lists no keys: no capture is admitted until it does",
            keys.authorized_keys.display()
        );
    }
    info!(public_key = %secret.public(), authorized = authorized.keys().len(), "the relay is encrypted");
    Ok(Security { secret, authorized })
}

/// Reads a collector's figures. All clones refer to the same collector.
#[derive(Clone)]
pub struct CollectHandle {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
}

impl PipelineHandle for CollectHandle {
    fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(metrics::collector(Arc::clone(&self.shared), Arc::clone(&self.connections))?)?;
        self.shared.observers.collectors()?.into_iter().try_for_each(|collector| registry.register(collector))
    }

    fn write_tables(&self, out: &mut Exposition) {
        self.shared.observers.write_tables(out);
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals { packets: self.shared.observers.packets(), ..Totals::default() };
        // The figures come from other hosts: they may be anything.
        for (_, source) in self.shared.ledger.lock().sources() {
            for packets in [source.dropped.kernel, source.dropped.interface] {
                totals.dropped = totals.dropped.saturating_add(packets);
            }
            for packets in [source.dropped.relay, source.lost.packets] {
                totals.lost = totals.lost.saturating_add(packets);
            }
        }
        totals
    }

    fn unfinished(&self) -> String {
        format!("{} packets are not written", self.shared.merge_packets.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for CollectHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectHandle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use packet::{LinkType, Timestamp};
    use prometheus::TextEncoder;

    use super::collector::tests::Batches;
    use super::*;

    /// A collector that has received two of four batches of a source that dropped packets.
    fn handle() -> CollectHandle {
        let observers =
            Observers::new(observe::ObserversConfig { sizes: true, ..observe::ObserversConfig::default() });
        let shared = Shared::new(observers, 4096);
        {
            let batch = Batches::new("a", LinkType::ETHERNET).decoded(&[1, 2]);
            let mut header = *batch.header();
            let mut ledger = shared.ledger.lock();
            let interface = batch::Interface::decode(batch.fields(), header.link_type, 96).unwrap();
            let (source, _) = ledger.register(&interface.origin).unwrap();
            let _ = ledger.record(source, &header, 100, Timestamp::ZERO);
            header.dropped = batch::Dropped { kernel: 1, interface: 2, relay: 4 };
            (header.sequence, header.sent_before) = (3, 10);
            let _ = ledger.record(source, &header, 100, Timestamp::ZERO);
            ledger.settle(Timestamp::MAX);
        }
        shared.merge_packets.store(5, Ordering::Relaxed);
        CollectHandle { shared, connections: Arc::default() }
    }

    #[test]
    fn totals_sum_up_all_sources() {
        assert_eq!(handle().totals(), Totals { packets: 0, dropped: 3, lost: 12, queue_freezes: 0 });
        assert_eq!(handle().unfinished(), "5 packets are not written");
    }

    #[test]
    fn metrics_of_collector_sources_and_observers_are_registered_once() {
        let (registry, handle) = (Registry::new(), handle());
        handle.register_metrics(&registry).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for sample in [
            "packeteur_collector_connections 0",
            "packeteur_source_lost_packets_total{source=\"a\",device=\"eth0\"} 8",
            "packeteur_merge_buffered_packets 5",
            "packeteur_capture_bytes_count{",
        ] {
            assert!(text.contains(&format!("\n{sample}")), "{sample} in {text}");
        }
        assert!(handle.register_metrics(&registry).is_err());
    }
}
