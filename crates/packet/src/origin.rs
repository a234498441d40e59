//! Where a packet was captured.

use std::fmt;
use std::sync::Arc;

/// Where packets come from: a capture by its name, one of its devices, and the TZSP port if they arrived over TZSP.
///
/// Packets of the same origin were captured at the same place, in one order, by one clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The name of the capture, as its user chose it (`SOURCE_NAME`); by default its host's name.
    pub source: Arc<str>,
    /// The device; for TZSP the address of the router that sent the packets; for a file its name.
    pub device: Arc<str>,
    /// The UDP port on which TZSP was received.
    pub listen_port: Option<u16>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.device)?;
        match self.listen_port {
            Some(port) => write!(f, " (TZSP port {port})"),
            None => Ok(()),
        }
    }
}

/// A number that stands for an [`Origin`]: small, dense, and valid within one collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);
