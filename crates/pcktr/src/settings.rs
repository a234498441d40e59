//! What the user wants: the settings, from the environment and from flags, read once, before anything opens.
//!
//! The way is from texts ([`Raw`]) to what they mean for the chosen mode ([`Settings`]): whoever holds one of these
//! structs need not check anything again. What can't be right is a [`SettingError`]; all of them are told at once.

mod error;
mod metrics_address;
mod observers;
mod raw;
mod resolve;
mod table;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::Targets;

pub(crate) use error::{SettingError, SettingErrors};
pub(crate) use metrics_address::MetricsAddress;
pub(crate) use observers::{FlowSettings, ObserverSettings, PairSettings, StreamSettings};
pub(crate) use raw::{Flag, Raw};
pub(crate) use relay::{Endpoint, Host};
pub(crate) use table::TABLE;
pub(crate) use value::FileOrStdio;

/// The exit code of wrong settings: `EX_USAGE` of sysexits.h.
pub(crate) const EXIT_CODE: u8 = 64;

/// What the program is here to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Send packets to a collector.
    Capture,
    /// Receive them, merge them, write them.
    Collect,
    /// Measure them, and send them nowhere.
    Observe,
}

impl Mode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Collect => "collect",
            Self::Observe => "observe",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The settings of the chosen mode.
#[derive(Debug)]
pub(crate) enum Settings {
    /// Of [`Mode::Capture`].
    Capture(CaptureSettings),
    /// Of [`Mode::Collect`].
    Collect(CollectSettings),
    /// Of [`Mode::Observe`].
    Observe(ObserveSettings),
}

/// Packets come in, and go to a collector.
#[derive(Debug)]
pub(crate) struct CaptureSettings {
    /// Where packets come from.
    pub(crate) input: InputSettings,
    /// How this capture is called at the collector.
    pub(crate) source_name: String,
    /// How they go there.
    pub(crate) relay: RelaySettings,
    /// What every mode has.
    pub(crate) common: CommonSettings,
}

/// Packets of many captures come in, and go out as one.
#[derive(Debug)]
pub(crate) struct CollectSettings {
    /// Where to listen. Never empty.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Where the packets go.
    pub(crate) output: FileOrStdio,
    /// What they look like there.
    pub(crate) format: OutputFormat,
    /// How long a packet waits for older ones; 0 to one minute.
    pub(crate) merge_window: Duration,
    /// Whether to end when every source seen so far has ended.
    pub(crate) exit_on_end: bool,
    /// What every mode has.
    pub(crate) common: CommonSettings,
}

/// Packets come in, and are measured.
#[derive(Debug)]
pub(crate) struct ObserveSettings {
    /// Where packets come from.
    pub(crate) input: InputSettings,
    /// What every mode has.
    pub(crate) common: CommonSettings,
}

/// Where packets come from, and which.
#[derive(Debug)]
pub(crate) struct InputSettings {
    /// Where from.
    pub(crate) input: Input,
    /// A pcap-filter expression. Whether it compiles depends on the link type, which only the device knows.
    pub(crate) filter: Option<String>,
    /// Bytes kept of a packet; 1 to 262144.
    pub(crate) snaplen: u32,
    /// Bytes of the kernel's buffer, of each device.
    pub(crate) buffer_size: u32,
    /// Whether to ask the device for what is not addressed to this machine.
    pub(crate) promiscuous: bool,
}

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Packets of devices. Never empty; `any` stands alone.
    Devices(Vec<String>),
    /// Packets of a capture file.
    File(FileOrStdio),
    /// Packets that routers send to our sockets, in TZSP.
    TzspSockets(Ports),
    /// Packets that routers send in TZSP, as seen on the wire of devices.
    TzspDevices(Vec<String>, Ports),
    /// Packets that routers have sent in TZSP, as a capture file shows them.
    TzspFile(FileOrStdio, Ports),
}

/// UDP ports on which TZSP is received. Never empty.
pub(crate) type Ports = Vec<u16>;

/// How packets go to the collector.
#[derive(Debug)]
pub(crate) struct RelaySettings {
    /// The collector.
    pub(crate) endpoint: Endpoint,
    /// Bytes of memory for what can't be sent at the moment; never less than a batch.
    pub(crate) buffer: usize,
    /// When a batch closes.
    pub(crate) batch: batch::Limits,
    /// How batches are compressed.
    pub(crate) compression: batch::Compression,
}

/// What the collector writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Classic pcap, with nanoseconds.
    Pcap,
    /// pcapng.
    Pcapng,
}

/// What every mode has.
#[derive(Debug)]
pub(crate) struct CommonSettings {
    /// End after so many packets.
    pub(crate) max_packets: Option<NonZeroU64>,
    /// End after so long.
    pub(crate) max_duration: Option<Duration>,
    /// What is measured.
    pub(crate) observers: ObserverSettings,
    /// Where the metrics are served, if anywhere.
    pub(crate) metrics_address: Option<MetricsAddress>,
    /// The file into which they are written, if any.
    pub(crate) metrics_file: Option<PathBuf>,
    /// What is logged.
    pub(crate) log: Targets,
}

impl Settings {
    /// What `environment` and `flags` say; `host_name` is the name of a capture that has got no other.
    ///
    /// # Errors
    ///
    /// Everything that can't be right.
    pub(crate) fn load(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
        host_name: &str,
    ) -> Result<Self, SettingErrors> {
        let mut errors = Vec::new();
        let raw = Raw::gather(environment, flags, &mut errors);
        match raw.resolve(flags, host_name) {
            Ok(settings) if errors.is_empty() => Ok(settings),
            Ok(_) => Err(SettingErrors(errors)),
            Err(more) => {
                errors.extend(more.0);
                Err(SettingErrors(errors))
            }
        }
    }

    /// The mode that they are for.
    pub(crate) fn mode(&self) -> Mode {
        match self {
            Self::Capture(_) => Mode::Capture,
            Self::Collect(_) => Mode::Collect,
            Self::Observe(_) => Mode::Observe,
        }
    }

    /// What every mode has.
    pub(crate) fn common(&self) -> &CommonSettings {
        match self {
            Self::Capture(settings) => &settings.common,
            Self::Collect(settings) => &settings.common,
            Self::Observe(settings) => &settings.common,
        }
    }
}
