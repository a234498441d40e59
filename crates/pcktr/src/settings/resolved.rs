//! The settings of each mode, checked and in their final types. Plain data.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use super::Endpoint;

/// Settings of mode `capture`.
#[derive(Debug)]
pub(crate) struct CaptureSettings {
    /// Where packets come from.
    pub(crate) input: InputSettings,
    /// This capture's name at the collector.
    pub(crate) source_name: String,
    /// How packets are sent to the collector.
    pub(crate) relay: RelaySettings,
    /// Settings of every mode.
    pub(crate) common: CommonSettings,
}

/// Settings of mode `collect`.
#[derive(Debug)]
pub(crate) struct CollectSettings {
    /// Where to listen. Never empty.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Where to write packets.
    pub(crate) output: FileOrStdio,
    /// The format to write.
    pub(crate) format: OutputFormat,
    /// How long a packet waits for older ones; 0 to one minute.
    pub(crate) merge_window: Duration,
    /// Whether to exit when all sources seen so far have ended.
    pub(crate) exit_on_end: bool,
    /// Settings of every mode.
    pub(crate) common: CommonSettings,
}

/// Settings of mode `observe`.
#[derive(Debug)]
pub(crate) struct ObserveSettings {
    /// Where packets come from.
    pub(crate) input: InputSettings,
    /// Settings of every mode.
    pub(crate) common: CommonSettings,
}

/// Settings that every mode has.
#[derive(Debug)]
pub(crate) struct CommonSettings {
    /// Stop after this many packets.
    pub(crate) max_packets: Option<NonZeroU64>,
    /// What is measured.
    pub(crate) observers: ObserverSettings,
}

/// Where packets come from, and which are captured.
#[derive(Debug)]
pub(crate) struct InputSettings {
    /// The origin of packets.
    pub(crate) input: Input,
    /// A pcap-filter(7) expression. It is compiled later, when the link type is known.
    pub(crate) filter: Option<String>,
    /// Maximum bytes captured per packet; 1 to 262144.
    pub(crate) snaplen: u32,
    /// Size of the kernel's capture buffer in bytes, per device.
    pub(crate) buffer_size: u32,
    /// Whether devices are put into promiscuous mode.
    pub(crate) promiscuous: bool,
}

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
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
pub(crate) type Ports = Vec<u16>;

/// How packets are sent to the collector.
#[derive(Debug)]
pub(crate) struct RelaySettings {
    /// The collector.
    pub(crate) endpoint: Endpoint,
    /// Size of the send buffer in bytes; at least one batch.
    pub(crate) buffer: usize,
    /// When a batch is closed.
    pub(crate) batch: batch::Limits,
    /// Compression of batches.
    pub(crate) compression: batch::Compression,
}

/// The format of the collector's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Classic pcap with nanosecond timestamps.
    Pcap,
    /// pcapng.
    Pcapng,
}

/// A file, or standard input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileOrStdio {
    /// Standard input or output; written `-`.
    Stdio,
    /// A file.
    File(PathBuf),
}

/// What is measured, and the bounds of each observer; `None` disables one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObserverSettings {
    /// Packet sizes.
    pub(crate) sizes: bool,
    /// Bytes and packets by addresses and protocol.
    pub(crate) flows: Option<FlowSettings>,
    /// The health of each TCP stream.
    pub(crate) streams: Option<StreamSettings>,
    /// TCP between pairs of hosts.
    pub(crate) pairs: Option<PairSettings>,
}

/// Bounds of the flow observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowSettings {
    /// Idle time after which a flow is forgotten, in packet time.
    pub(crate) age: Duration,
    /// Maximum number of flows.
    pub(crate) max: NonZeroU32,
}

/// Bounds of the TCP stream observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamSettings {
    /// Idle time after which a stream is forgotten, in packet time.
    pub(crate) age: Duration,
    /// Time after which a closed stream is forgotten, in packet time.
    pub(crate) finalized_age: Duration,
    /// Maximum number of streams; each direction counts.
    pub(crate) max: NonZeroU32,
    /// Maximum number of streams in one scrape.
    pub(crate) export: u32,
}

/// Bounds of the host pair observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairSettings {
    /// Idle time after which a pair is forgotten, in packet time.
    pub(crate) age: Duration,
    /// Maximum number of pairs.
    pub(crate) max: NonZeroU32,
}
