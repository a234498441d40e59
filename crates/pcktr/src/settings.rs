//! Settings from the environment and from flags. They are read and checked once, before anything is opened.
//!
//! [`table`] declares them. [`Settings::load`] parses them and returns either the settings of the chosen mode or all
//! errors.

mod declaration;
mod error;
mod load;
mod observers;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use pipeline::config::{CaptureConfig, CollectConfig, ObserveConfig};
use sandbox::User;
use tracing_subscriber::filter::Targets;
use web::ListenAddress;

pub(crate) use load::Flag;
pub(crate) use table::TABLE;

use error::Fault;
use observers::Selection;

/// The exit code for invalid settings: `EX_USAGE` of sysexits.h.
pub(crate) const EXIT_CODE: u8 = 64;

/// What the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Capture packets and send them to a collector.
    Capture,
    /// Receive packets from captures, merge and write them.
    Collect,
    /// Measure packets.
    Observe,
    /// Make a key.
    Keygen,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Capture, Self::Collect, Self::Observe, Self::Keygen];

    /// The modes that handle packets.
    pub(crate) const RUNNING: [Self; 3] = [Self::Capture, Self::Collect, Self::Observe];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Collect => "collect",
            Self::Observe => "observe",
            Self::Keygen => "keygen",
        }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        value::choice(&Self::ALL.map(|mode| (mode.as_str(), mode)))(text)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All settings.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The mode and what it needs.
    pub(crate) mode: ModeSettings,
    /// What the program needs in any mode.
    pub(crate) program: ProgramSettings,
}

/// The settings of the chosen mode.
#[derive(Debug)]
pub(crate) enum ModeSettings {
    /// [`Mode::Capture`].
    Capture(CaptureConfig),
    /// [`Mode::Collect`].
    Collect(CollectConfig),
    /// [`Mode::Observe`].
    Observe(ObserveConfig),
    /// [`Mode::Keygen`]: the file of the key.
    Keygen(PathBuf),
}

impl ModeSettings {
    pub(crate) const fn mode(&self) -> Mode {
        match self {
            Self::Capture(_) => Mode::Capture,
            Self::Collect(_) => Mode::Collect,
            Self::Observe(_) => Mode::Observe,
            Self::Keygen(_) => Mode::Keygen,
        }
    }
}

/// Time limit, metrics, privileges and log.
#[derive(Debug)]
pub(crate) struct ProgramSettings {
    /// Stop after this time.
    pub(crate) max_duration: Option<Duration>,
    /// Where metrics are served.
    pub(crate) metrics_address: Option<ListenAddress>,
    /// The file with TLS and passwords for metrics.
    pub(crate) web_config_file: Option<PathBuf>,
    /// The file that metrics are written to.
    pub(crate) metrics_file: Option<PathBuf>,
    /// The user to change to, for a program that root started.
    pub(crate) run_as_user: Option<User>,
    /// Whether the program confines itself.
    pub(crate) sandbox: bool,
    /// What is logged.
    pub(crate) log: Targets,
}
