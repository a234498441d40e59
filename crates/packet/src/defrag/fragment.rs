//! A part of a datagram, as its IP header describes it.

use std::net::IpAddr;

use crate::Headers;

/// What the fragments of one datagram have in common, and no other datagram has for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The sender.
    pub src: IpAddr,
    /// The receiver.
    pub dst: IpAddr,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// The protocol in IPv4 (RFC 791, section 2.3), for identifications are counted per protocol; 0 in IPv6, where the
    /// addresses and the identification are enough (RFC 8200, section 4.5).
    pub protocol: u8,
}

/// A part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Which datagram.
    pub key: Key,
    /// What the header says the payload is. In IPv6 only the first fragment's word counts (RFC 8200, section 4.5).
    pub protocol: u8,
    /// Where in the datagram's payload this part begins, in bytes.
    pub offset: u32,
    /// Whether another part follows behind it.
    pub more: bool,
    /// How many bytes this part has, by the IP header.
    pub len: u32,
    /// Those of them that were captured.
    pub bytes: &'a [u8],
}

/// The most that the payload of an IPv4 or IPv6 datagram can have: no jumbogram is ever fragmented (RFC 2675, section 3).
const MAX_PAYLOAD: u32 = 65_535;

/// The numbers of the headers that may stand before IPv6's fragment header, and its own (RFC 8200, section 4.1).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

impl<'a> Fragment<'a> {
    /// The fragment that a captured packet is, or `None` if it is a whole datagram or no IP. `headers` are those of `bytes`.
    #[must_use]
    pub fn of(headers: &Headers, bytes: &'a [u8]) -> Option<Self> {
        let ip = headers.ip.as_ref().filter(|ip| ip.fragment)?;
        let start = usize::try_from(ip.end.checked_sub(ip.total_len)?).ok()?;
        // What follows the IP packet in its frame is padding.
        let end = bytes.len().min(usize::try_from(ip.end).ok()?);
        let packet = bytes.get(start..end)?;
        let (at, part) = match ip.src {
            IpAddr::V4(_) => ipv4(packet)?,
            IpAddr::V6(_) => ipv6(packet)?,
        };
        let key = Key {
            src: ip.src,
            dst: ip.dst,
            identification: part.identification,
            protocol: part.key_protocol,
        };
        Some(Self {
            key,
            protocol: part.protocol,
            offset: part.offset,
            more: part.more,
            len: ip.total_len.checked_sub(u32::try_from(at).ok()?)?,
            bytes: packet.get(at..).unwrap_or_default(),
        })
    }

    /// Whether there can be a datagram that has this part: every one but the last has a multiple of 8 bytes and more than
    /// none, and none ends beyond the longest payload (RFC 791, section 3.2; RFC 8200, section 4.5).
    #[must_use]
    pub(super) fn is_possible(&self) -> bool {
        let whole_units = self.len.is_multiple_of(8) || !self.more;
        self.len > 0 && whole_units && self.end().is_some_and(|end| end <= MAX_PAYLOAD)
    }

    /// Where in the datagram's payload this part ends.
    pub(super) fn end(&self) -> Option<u32> {
        self.offset.checked_add(self.len)
    }
}

/// What a header says of its fragment.
struct Part {
    identification: u32,
    key_protocol: u8,
    protocol: u8,
    offset: u32,
    more: bool,
}

/// Reads an IPv4 header, and tells where the payload begins.
fn ipv4(packet: &[u8]) -> Option<(usize, Part)> {
    let h = packet.first_chunk::<20>()?;
    let field = u16::from_be_bytes([h[6], h[7]]);
    let part = Part {
        identification: u32::from(u16::from_be_bytes([h[4], h[5]])),
        key_protocol: h[9],
        protocol: h[9],
        offset: u32::from(field & 0x1fff) * 8,
        more: field & 0x2000 != 0,
    };
    Some((usize::from(h[0] & 0x0f) * 4, part))
}

/// Finds an IPv6 packet's fragment header, and tells where what it fragments begins.
fn ipv6(packet: &[u8]) -> Option<(usize, Part)> {
    let (mut next, mut at) = (*packet.get(6)?, 40);
    while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
        let header = packet.get(at..)?.first_chunk::<2>()?;
        // RFC 8200, section 4.2: in units of 8 bytes, not counting the first.
        (next, at) = (header[0], at + (usize::from(header[1]) + 1) * 8);
    }
    if next != FRAGMENT {
        return None;
    }
    let h = packet.get(at..)?.first_chunk::<8>()?;
    // The offset's units are those of IPv4, but it stands in the upper bits.
    let field = u16::from_be_bytes([h[2], h[3]]);
    let part = Part {
        identification: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        key_protocol: 0,
        protocol: h[0],
        offset: u32::from(field & 0xfff8),
        more: field & 1 != 0,
    };
    Some((at + 8, part))
}
