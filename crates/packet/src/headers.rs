//! A packet's headers, parsed once for all observers.
//!
//! Captured packets may be cut by a snaplen, padded, merged by an offload engine, or malformed. So parsing never fails:
//! what cannot be read is [`AddressFamily::Other`], `None` or [`Transport::Other`].
//!
//! Only the outermost IP header counts. Tags, labels and PPPoE below it are skipped, and so are IPv6 extension headers
//! and AH above it. Packets inside of tunnels are not parsed.

mod address_family;
mod ether;
mod ip;
mod link;
mod network_start;
mod transport;
mod wireless;

pub use address_family::AddressFamily;
pub use ip::Ip;
use link::Link;
pub use transport::{Tcp, TcpFlags, Transport, Udp};

use crate::LinkType;

/// The headers of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The network protocol according to the link layer, even if the network header itself is cut or invalid.
    pub family: AddressFamily,
    /// The outermost IP header, if its fixed part was captured and is valid.
    pub ip: Option<Ip>,
    /// The transport header above IP.
    pub transport: Transport,
    /// Index of the interface that captured the packet, if the link type has it (LINUX_SLL2).
    pub interface: Option<u32>,
}

impl Headers {
    /// Parses a packet of `link_type`, of which `bytes` were captured and which had `original_len` bytes on the wire.
    #[inline]
    #[must_use]
    pub fn parse(link_type: LinkType, bytes: &[u8], original_len: u32) -> Self {
        let link = Link::parse(link_type, bytes);
        // A frame has at least the bytes that were captured of it, even if a broken file says otherwise.
        let frame_len = original_len.max(saturating_u32(bytes.len())).min(saturating_u32(link.end));
        let ip = match link.family {
            AddressFamily::IPv4 => Ip::parse_v4(bytes, link.at, frame_len),
            AddressFamily::IPv6 => Ip::parse_v6(bytes, link.at, frame_len),
            AddressFamily::Other => None,
        };
        let transport = ip.as_ref().map_or(Transport::Other, |ip| Transport::parse(ip, bytes));
        Self { family: link.family, ip, transport, interface: link.interface }
    }

    /// The TCP segment, if the packet has a whole one. A first fragment does not: its segment's length is not known.
    #[inline]
    #[must_use]
    pub fn segment(&self) -> Option<(&Ip, &Tcp)> {
        match (&self.ip, &self.transport) {
            (Some(ip), Transport::Tcp(tcp)) if !ip.fragment => Some((ip, tcp)),
            _ => None,
        }
    }
}

/// Only the address family of a packet, without the time that parsing IP and TCP takes.
#[inline]
#[must_use]
pub fn address_family(link_type: LinkType, bytes: &[u8]) -> AddressFamily {
    Link::parse(link_type, bytes).family
}

#[inline]
fn saturating_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
