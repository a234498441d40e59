//! The key of a connection.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use packet::headers::{Ip, Tcp};

use crate::OriginId;

/// Identifies a connection, whichever endpoint sent the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionKey {
    pub(super) origin: OriginId,
    pub(super) low: StreamEndpoint,
    pub(super) high: StreamEndpoint,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamEndpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl ConnectionKey {
    /// The key of a segment, and its direction: 0 if the low endpoint sent it, 1 if the high one did. `bytes` is the
    /// captured packet.
    #[inline]
    pub(super) fn of(origin: OriginId, bytes: &[u8], ip: &Ip, tcp: &Tcp) -> (Self, usize) {
        let source = StreamEndpoint { address: ip.src, port: tcp.src_port };
        let destination = StreamEndpoint { address: ip.final_destination(bytes), port: tcp.dst_port };
        if source.is_low(&destination) {
            (Self { origin, low: source, high: destination }, 0)
        } else {
            (Self { origin, low: destination, high: source }, 1)
        }
    }
}

/// Written in as few words as possible: the derived implementation writes each address separately, with its length.
impl Hash for ConnectionKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (self.low.address, self.high.address) {
            (IpAddr::V4(low), IpAddr::V4(high)) => {
                state.write_u64(u64::from(low.to_bits()) << 32 | u64::from(high.to_bits()));
            }
            (low, high) => (low, high).hash(state),
        }
        let ports = u64::from(self.low.port) << 16 | u64::from(self.high.port);
        state.write_u64(u64::from(self.origin.0) << 32 | ports);
    }
}

impl StreamEndpoint {
    /// Whether this is the low one of two. The same as the derived order, but inlined for IPv4.
    #[inline]
    fn is_low(&self, other: &Self) -> bool {
        match (self.address, other.address) {
            (IpAddr::V4(own), IpAddr::V4(others)) => {
                (own.to_bits(), self.port) <= (others.to_bits(), other.port)
            }
            _ => self <= other,
        }
    }
}
