//! A packet's headers, read once for everybody who measures it.
//!
//! A packet is what a device saw: cut by a snaplen, padded, merged by an offload engine, or no packet at all. So nothing
//! here fails. What can be told is told, and the rest is [`AddressFamily::Other`], `None` or [`Transport::Other`].
//!
//! Only the outermost IP header counts. Shims below it (tags, labels, PPPoE …) are looked through, IPv6 extension headers
//! and AH above it too; a tunnel is the end of the way, as what it carries is another packet's business.

mod ether;
mod link;
mod network;
mod transport;
mod wireless;

use std::fmt;
use std::net::IpAddr;

pub use transport::{Tcp, TcpFlags, Transport, Udp};

use crate::LinkType;

/// The network protocol of a packet's outermost network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
    /// Neither: ARP, LLDP, spanning tree, an encrypted 802.11 frame, bytes that are no packet.
    Other,
}

impl AddressFamily {
    /// As it stands in the label `address_family`.
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

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// What the link layer says of the network protocol; true also where the network header itself is cut or broken.
    pub family: AddressFamily,
    /// The outermost IP header, where its fixed part was captured and makes sense.
    pub ip: Option<Ip>,
    /// What IP carries, as far as it can be read.
    pub transport: Transport,
    /// The index of the interface that saw the packet, where the link type tells it (LINUX_SLL2).
    pub interface: Option<u32>,
}

/// An IP header, extension headers and AH included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address as it stands in the header: the next hop, where the packet is routed by its source, for which
    /// see [`Ip::final_destination`].
    pub dst: IpAddr,
    /// What follows, as an IANA protocol number: behind IPv6 extension headers and AH.
    pub protocol: u8,
    /// Length of header and payload in bytes by the header itself, so neither Ethernet's padding nor a snaplen count. A
    /// header that says 0 was captured before the sending device cut the packet into segments (TSO, BIG TCP): then it is
    /// what the frame had on the wire.
    pub total_len: u32,
    /// DF of IPv4. Always so in IPv6, whose routers never fragment (RFC 8200, section 4.5).
    pub dont_fragment: bool,
    /// Whether this is only a part of a packet. An IPv6 atomic fragment (RFC 6946) is all of it, so it is none.
    pub fragment: bool,
    /// Whether this is the part that has the head of the payload: true for whole packets too.
    pub first_fragment: bool,
    /// Where the payload begins, as an offset into the captured bytes; beyond their end if a snaplen cut it off.
    pub payload_at: u32,
    /// Where the packet ends, as an offset into the frame as it was on the wire.
    pub end: u32,
}

impl Ip {
    /// Whose packet it is: the last address of an IPv4 source route that is not at its end yet, else the destination. It is
    /// this one that makes a connection, whose ends know of no hops (RFC 1122, section 4.2.3.8). `bytes` are those that the
    /// header was parsed from.
    #[inline]
    #[must_use]
    pub fn final_destination(&self, bytes: &[u8]) -> IpAddr {
        let start = self.end - self.total_len;
        if self.payload_at - start <= 20 || !self.dst.is_ipv4() {
            return self.dst;
        }
        network::source_route(bytes, start + 20, self.payload_at).unwrap_or(self.dst)
    }
}

impl Headers {
    /// Of a packet of `link_type`, of which `bytes` were captured and which had `original_len` bytes on the wire.
    #[inline]
    #[must_use]
    pub fn parse(link_type: LinkType, bytes: &[u8], original_len: u32) -> Self {
        let link = link::peel(link_type, bytes);
        // A frame has at least what was captured of it, whatever a broken file says.
        let frame_len = original_len.max(clamp(bytes.len())).min(clamp(link.end));
        let ip = match link.family {
            AddressFamily::IPv4 => network::ipv4(bytes, link.at, frame_len),
            AddressFamily::IPv6 => network::ipv6(bytes, link.at, frame_len),
            AddressFamily::Other => None,
        };
        let transport = ip.map_or(Transport::Other, |ip| Transport::parse(&ip, bytes));
        Self { family: link.family, ip, transport, interface: link.interface }
    }

    /// The TCP segment, where the packet is a whole one.
    ///
    /// A fragment is none, not even the first: how long the segment is stands nowhere in it.
    #[inline]
    #[must_use]
    pub fn segment(&self) -> Option<(&Ip, &Tcp)> {
        match (&self.ip, &self.transport) {
            (Some(ip), Transport::Tcp(tcp)) if !ip.fragment => Some((ip, tcp)),
            _ => None,
        }
    }
}

/// The address family alone, which takes a few nanoseconds where [`Headers::parse`] takes tens.
#[inline]
#[must_use]
pub fn address_family(link_type: LinkType, bytes: &[u8]) -> AddressFamily {
    link::peel(link_type, bytes).family
}

#[inline]
fn clamp(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The byte at `at`.
#[inline]
fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// `N` bytes from `at` on.
#[inline]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// A number in network byte order.
#[inline]
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    chunk(bytes, at).map(|b| u16::from_be_bytes(*b))
}

/// A number in network byte order.
#[inline]
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    chunk(bytes, at).map(|b| u32::from_be_bytes(*b))
}

#[cfg(test)]
mod tests;
