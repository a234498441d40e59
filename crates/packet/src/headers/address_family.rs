//! The network protocol of a packet.

use std::fmt;

/// The network protocol of a packet's outermost network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
    /// Neither, for example ARP, LLDP, spanning tree, an encrypted 802.11 frame, or malformed bytes.
    Other,
}

impl AddressFamily {
    /// The value of the label `address_family`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
