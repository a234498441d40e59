//! A fragment of a datagram.

use std::net::IpAddr;

use etherparse::{
    IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
};

use crate::Headers;
use crate::bytes::zero_padded;

/// Identifies the datagram that a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// Protocol number in IPv4, where identifications are unique per protocol (RFC 791, section 2.3). 0 in IPv6, where
    /// addresses and identification suffice (RFC 8200, section 4.5).
    pub protocol: u8,
}

/// A fragment of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The datagram.
    pub key: DatagramKey,
    /// IP protocol number of the payload. In IPv6 only the first fragment's is valid (RFC 8200, section 4.5).
    pub protocol: u8,
    /// Offset in the datagram's payload, in bytes.
    pub offset: u32,
    /// The flag "more fragments": whether this is not the last one.
    pub more: bool,
    /// Length in bytes, according to the IP header.
    pub len: u32,
    /// The bytes that were captured, at most `len`.
    pub bytes: &'a [u8],
}

/// Maximum bytes of a fragmented datagram's payload. Jumbograms must not be fragmented (RFC 2675, section 3).
const MAX_PAYLOAD: u32 = 65_535;

impl<'a> Fragment<'a> {
    /// The fragment in a captured packet; `None` if it is a whole datagram or not IP. `headers` are those of `bytes`.
    #[must_use]
    pub fn of(headers: &Headers, bytes: &'a [u8]) -> Option<Self> {
        let ip = headers.ip.as_ref().filter(|ip| ip.fragment)?;
        let start = usize::try_from(ip.end.checked_sub(ip.total_len)?).ok()?;
        // Bytes after the IP packet are the frame's padding.
        let end = bytes.len().min(usize::try_from(ip.end).ok()?);
        let packet = bytes.get(start..end)?;
        let (at, part) = match ip.src {
            IpAddr::V4(_) => ipv4(packet)?,
            IpAddr::V6(_) => ipv6(packet)?,
        };
        let key = DatagramKey {
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

    /// Whether a datagram can have this fragment: it is not empty, its length is a multiple of 8 unless it is the last,
    /// and it does not end beyond the maximum payload (RFC 791, section 3.2; RFC 8200, section 4.5).
    #[must_use]
    pub(super) fn is_possible(&self) -> bool {
        let whole_units = self.len.is_multiple_of(8) || !self.more;
        self.len > 0 && whole_units && self.end().is_some_and(|end| end <= MAX_PAYLOAD)
    }

    /// Offset of its end in the datagram's payload.
    pub(super) fn end(&self) -> Option<u32> {
        self.offset.checked_add(self.len)
    }
}

/// The fragment fields of an IP header.
struct Part {
    identification: u32,
    key_protocol: u8,
    protocol: u8,
    offset: u32,
    more: bool,
}

/// Parses an IPv4 header. Returns the offset of the payload.
fn ipv4(packet: &[u8]) -> Option<(usize, Part)> {
    /// Bytes of a header without options, and with as many as it can have.
    const MIN_LEN: usize = 20;
    const MAX_LEN: usize = 60;
    if packet.len() < MIN_LEN {
        return None;
    }
    // etherparse accepts whole headers only, but a snaplen may have cut the options.
    let padded = zero_padded::<MAX_LEN>(packet);
    let header = Ipv4HeaderSlice::from_slice(&padded).ok()?;
    let part = Part {
        identification: header.identification().into(),
        key_protocol: header.protocol().0,
        protocol: header.protocol().0,
        offset: u32::from(header.fragments_offset().value()) * 8,
        more: header.more_fragments(),
    };
    Some((header.slice().len(), part))
}

/// Parses an IPv6 packet's fragment header, which only these extension headers may precede (RFC 8200, section 4.1).
/// Returns the offset of the fragmented part.
fn ipv6(packet: &[u8]) -> Option<(usize, Part)> {
    let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
    let (mut next, mut at) = (header.next_header(), header.slice().len());
    while matches!(
        next,
        IpNumber::IPV6_HEADER_HOP_BY_HOP | IpNumber::IPV6_ROUTE_HEADER | IpNumber::IPV6_DESTINATION_OPTIONS
    ) {
        let extension = Ipv6RawExtHeaderSlice::from_slice(packet.get(at..)?).ok()?;
        (next, at) = (extension.next_header(), at + extension.slice().len());
    }
    if next != IpNumber::IPV6_FRAGMENTATION_HEADER {
        return None;
    }
    let fragment = Ipv6FragmentHeaderSlice::from_slice(packet.get(at..)?).ok()?;
    let part = Part {
        identification: fragment.identification(),
        key_protocol: 0,
        protocol: fragment.next_header().0,
        offset: u32::from(fragment.fragment_offset().value()) * 8,
        more: fragment.more_fragments(),
    };
    Some((at + fragment.slice().len(), part))
}
