//! The configuration of each mode: its settings, checked and in their final types.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use observe::{FlowsConfig, PairsConfig, Scope, StreamsConfig};
use relay::{Endpoint, PublicKey};
use sink::CaptureFormat;

/// The configuration of mode `capture`.
#[derive(Debug)]
pub struct CaptureConfig {
    /// Where packets come from.
    pub input: InputConfig,
    /// This capture's name at the collector.
    pub source_name: String,
    /// How packets are sent to the collector.
    pub relay: RelayConfig,
    /// What every mode has.
    pub common: CommonConfig,
}

/// The configuration of mode `collect`.
#[derive(Debug)]
pub struct CollectConfig {
    /// Where to listen. Never empty.
    pub endpoints: Vec<Endpoint>,
    /// Where to write packets.
    pub output: FileOrStdio,
    /// The format to write.
    pub format: CaptureFormat,
    /// How long a packet waits for older ones; 0 to one minute.
    pub merge_window: Duration,
    /// The most sources at a time.
    pub max_sources: NonZeroU32,
    /// Whether to exit when all sources seen so far have ended.
    pub exit_on_end: bool,
    /// Whom to admit. Without keys, everybody.
    pub keys: Option<CollectorKeys>,
    /// The most connections of captures.
    pub max_connections: usize,
    /// What every mode has.
    pub common: CommonConfig,
}

/// The keys of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorKeys {
    /// The file of its secret key.
    pub key_file: PathBuf,
    /// The file that lists the captures' keys and names.
    pub authorized_keys: PathBuf,
}

/// The keys of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureKeys {
    /// The file of its secret key.
    pub key_file: PathBuf,
    /// The collector's public key.
    pub collector: PublicKey,
}

/// The configuration of mode `observe`.
#[derive(Debug)]
pub struct ObserveConfig {
    /// Where packets come from.
    pub input: InputConfig,
    /// What every mode has.
    pub common: CommonConfig,
}

/// What every mode has.
#[derive(Debug)]
pub struct CommonConfig {
    /// Stop after this many packets.
    pub max_packets: Option<NonZeroU64>,
    /// What is measured.
    pub observers: EnabledObservers,
}

/// Where packets come from, and which are captured.
#[derive(Debug)]
pub struct InputConfig {
    /// The origin of packets.
    pub input: Input,
    /// A pcap-filter(7) expression. It is compiled later, when the link type is known.
    pub filter: Option<String>,
    /// Maximum bytes captured per packet; 1 to 262144.
    pub snaplen: u32,
    /// Size of the kernel's capture buffer in bytes, per device.
    pub buffer_size: u32,
    /// Whether devices are put into promiscuous mode.
    pub promiscuous: bool,
}

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Capture devices. Never empty; `any` is the only element if present.
    Devices(Vec<String>),
    /// A capture file.
    File(FileOrStdio),
    /// TZSP received on UDP sockets.
    TzspSockets(Ports),
    /// TZSP extracted from the packets of capture devices.
    TzspDevices(Vec<String>, Ports),
    /// TZSP extracted from the packets of a capture file.
    TzspFile(FileOrStdio, Ports),
}

/// UDP ports on which TZSP is received. Never empty.
pub type Ports = Vec<u16>;

/// How packets are sent to the collector.
#[derive(Debug)]
pub struct RelayConfig {
    /// The collector.
    pub endpoint: Endpoint,
    /// With keys, packets are encrypted, and go to their collector only.
    pub keys: Option<CaptureKeys>,
    /// Size of the send buffer in bytes; at least one batch.
    pub buffer: usize,
    /// When a batch is closed.
    pub batch: batch::BatchLimits,
    /// Compression of batches.
    pub compression: batch::Compression,
}

/// A file, or standard input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOrStdio {
    /// Standard input or output; written `-`.
    Stdio,
    /// A file.
    File(PathBuf),
}

/// What is measured, and the bounds of each observer; `None` disables one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnabledObservers {
    /// Packet sizes.
    pub sizes: bool,
    /// Bytes and packets by addresses and protocol.
    pub flows: Option<FlowBounds>,
    /// The health of each TCP stream.
    pub streams: Option<StreamBounds>,
    /// TCP between pairs of hosts.
    pub pairs: Option<PairBounds>,
}

/// Bounds of the flow observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowBounds {
    /// Idle time after which a flow is forgotten, in packet time.
    pub age: Duration,
    /// Maximum number of flows.
    pub max: NonZeroU32,
}

/// Bounds of the TCP stream observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamBounds {
    /// Idle time after which a stream is forgotten, in packet time.
    pub age: Duration,
    /// Time after which a closed stream is forgotten, in packet time.
    pub finalized_age: Duration,
    /// Maximum number of streams; each direction counts.
    pub max: NonZeroU32,
    /// Maximum number of streams in one scrape.
    pub export: u32,
}

/// Bounds of the host pair observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairBounds {
    /// Idle time after which a pair is forgotten, in packet time.
    pub age: Duration,
    /// Maximum number of pairs.
    pub max: NonZeroU32,
}

impl fmt::Display for FileOrStdio {
    /// `-` for standard input or output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl EnabledObservers {
    /// The observers of a capture. Several devices of one capture are distinguished by a label.
    pub(crate) fn for_capture(&self, input: &Input) -> observe::ObserversConfig {
        let scope = match input {
            Input::Devices(devices) if devices.len() > 1 => Scope::Device,
            _ => Scope::None,
        };
        self.with_scope(scope)
    }

    /// The observers of a collector, whose sources may see the same packets.
    pub(crate) fn for_collector(&self) -> observe::ObserversConfig {
        self.with_scope(Scope::SourceAndDevice)
    }

    fn with_scope(&self, scope: Scope) -> observe::ObserversConfig {
        let streams = self.streams.map(|config| StreamsConfig {
            age: config.age,
            finalized_age: config.finalized_age,
            max_streams: config.max.get() as usize,
            export: config.export as usize,
        });
        observe::ObserversConfig {
            scope,
            sizes: self.sizes,
            flows: self
                .flows
                .map(|config| FlowsConfig { max_flows: config.max.get() as usize, age: config.age }),
            streams,
            pairs: self.pairs.map(|config| PairsConfig {
                age: config.age,
                max_pairs: config.max.get() as usize,
                streams: streams.unwrap_or_default(),
            }),
        }
    }
}
