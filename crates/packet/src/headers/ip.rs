//! IPv4 and IPv6, with the headers between them and the transport.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};

use crate::bytes::{byte, zero_padded};

/// Bytes of an IPv4 header without options.
const IPV4_MIN_LEN: usize = 20;
/// Bytes of an IPv4 header with as many options as it can have (RFC 791, section 3.1).
const IPV4_MAX_LEN: usize = 60;
/// Bytes of an IPv6 header without extension headers.
const IPV6_LEN: u32 = 40;

/// An IP header, including extension headers and AH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address in the header. For a source-routed packet that is the next hop: see
    /// [`Ip::final_destination`].
    pub dst: IpAddr,
    /// IANA protocol number of the payload, which follows IPv6 extension headers and AH.
    pub protocol: u8,
    /// Length of header and payload in bytes, as the header says: neither Ethernet padding nor a snaplen changes it. It
    /// is never more than the frame had on the wire. A length of 0 means that it was captured before segmentation
    /// offload (TSO, BIG TCP): then this is the length on the wire.
    pub total_len: u32,
    /// DF of IPv4. Always set for IPv6, whose routers never fragment (RFC 8200, section 4.5).
    pub dont_fragment: bool,
    /// Whether this is a fragment. An IPv6 atomic fragment (RFC 6946) is a whole packet, so not one.
    pub fragment: bool,
    /// Whether the beginning of the payload is in this packet. Set for whole packets too.
    pub first_fragment: bool,
    /// Offset of the payload in the captured bytes; beyond their end if a snaplen cut it off.
    pub payload_at: u32,
    /// Offset at which the packet ends in the frame as it was on the wire.
    pub end: u32,
}

impl Ip {
    /// The packet's destination: the last address of an unfinished IPv4 source route, otherwise [`Ip::dst`]. Connections
    /// are identified by this address, not by that of the next hop (RFC 1122, section 4.2.3.8).
    ///
    /// `bytes` is the captured packet from which the header was parsed.
    #[inline]
    #[must_use]
    pub fn final_destination(&self, bytes: &[u8]) -> IpAddr {
        let start = self.end - self.total_len;
        let has_options = self.payload_at - start > IPV4_MIN_LEN as u32;
        if !has_options || !self.dst.is_ipv4() {
            return self.dst;
        }
        let options = bytes.get(start as usize + IPV4_MIN_LEN..self.payload_at as usize);
        options.and_then(source_route).unwrap_or(self.dst)
    }

    /// Parses the IPv4 header at `at` (RFC 791, section 3.1) of a frame of `frame_len` bytes on the wire.
    ///
    /// `None` if fewer than 20 bytes of it were captured, or if its version or one of its lengths is not valid.
    #[inline]
    pub(super) fn parse_v4(bytes: &[u8], at: usize, frame_len: u32) -> Option<Self> {
        let captured = bytes.get(at..)?;
        let padded;
        let header = match Ipv4HeaderSlice::from_slice(captured) {
            Ok(header) => header,
            // A snaplen cut the options: etherparse accepts whole headers only.
            Err(_) if captured.len() >= IPV4_MIN_LEN => {
                padded = zero_padded::<IPV4_MAX_LEN>(captured);
                Ipv4HeaderSlice::from_slice(&padded).ok()?
            }
            Err(_) => return None,
        };
        let start = u32::try_from(at).ok()?;
        let header_len = header.slice().len() as u32;
        let says = u32::from(header.total_len());
        if says != 0 && says < header_len {
            return None;
        }
        let total_len = bounded(says, frame_len.checked_sub(start)?);
        let first_fragment = header.fragments_offset().value() == 0;
        let mut ip = Self {
            src: IpAddr::V4(header.source_addr()),
            dst: IpAddr::V4(header.destination_addr()),
            protocol: header.protocol().0,
            total_len,
            dont_fragment: header.dont_fragment(),
            fragment: header.more_fragments() || !first_fragment,
            first_fragment,
            payload_at: start + header_len,
            end: start + total_len,
        };
        if ip.protocol == IpNumber::AUTHENTICATION_HEADER.0 && ip.first_fragment {
            ip.skip_extensions(bytes, |kind| kind == IpNumber::AUTHENTICATION_HEADER);
        }
        Some(ip)
    }

    /// Parses the IPv6 header at `at` and its extension headers (RFC 8200, sections 3 and 4), in a frame of `frame_len`
    /// bytes on the wire.
    ///
    /// `None` if fewer than 40 bytes of it were captured, or if its version is not 6.
    #[inline]
    pub(super) fn parse_v6(bytes: &[u8], at: usize, frame_len: u32) -> Option<Self> {
        let header = Ipv6HeaderSlice::from_slice(bytes.get(at..)?).ok()?;
        let start = u32::try_from(at).ok()?;
        // 0 stands for lengths above 65535: jumbograms (RFC 2675) and BIG TCP.
        let room = frame_len.checked_sub(start + IPV6_LEN)?;
        let total_len = IPV6_LEN + bounded(header.payload_length().into(), room);
        let mut ip = Self {
            src: IpAddr::V6(header.source_addr()),
            dst: IpAddr::V6(header.destination_addr()),
            protocol: header.next_header().0,
            total_len,
            dont_fragment: true,
            fragment: false,
            first_fragment: true,
            payload_at: start + IPV6_LEN,
            end: start + total_len,
        };
        ip.skip_extensions(bytes, is_extension);
        Some(ip)
    }

    /// Advances protocol and payload past the headers for which `is_extension` holds, as far as they were captured.
    ///
    /// etherparse's `Ipv6ExtensionsSlice` requires each header to be captured to its end, and continues after the
    /// header of a later fragment. Each header takes at least eight bytes, so the loop ends with the packet.
    #[inline]
    fn skip_extensions(&mut self, bytes: &[u8], is_extension: impl Fn(IpNumber) -> bool) {
        while is_extension(IpNumber(self.protocol)) {
            if self.skip_extension(bytes).is_none() {
                return;
            }
        }
    }

    /// Advances past one header. `None` if it was not captured, or if a later fragment's data follows it.
    fn skip_extension(&mut self, bytes: &[u8]) -> Option<()> {
        let at = usize::try_from(self.payload_at).ok()?;
        let kind = IpNumber(self.protocol);
        let next = byte(bytes, at)?;
        let len = match kind {
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                // The first four bytes have all that is needed here.
                let captured = bytes.get(at..).filter(|captured| captured.len() >= 4)?;
                let padded = zero_padded::<8>(captured);
                let header = Ipv6FragmentHeaderSlice::from_slice(&padded).ok()?;
                self.fragment |= header.is_fragmenting_payload();
                self.first_fragment &= header.fragment_offset().value() == 0;
                8
            }
            // RFC 4302, section 2.2: in units of 4 bytes, minus 2.
            IpNumber::AUTHENTICATION_HEADER => (u32::from(byte(bytes, at + 1)?) + 2) * 4,
            // RFC 8200, section 4.2: in units of 8 bytes, minus 1.
            _ => (u32::from(byte(bytes, at + 1)?) + 1) * 8,
        };
        self.protocol = next;
        self.payload_at += len;
        self.first_fragment.then_some(())
    }
}

/// A length field, limited by the `room` in the frame. 0 means that the packet fills the room.
#[inline]
fn bounded(says: u32, room: u32) -> u32 {
    if says == 0 { room } else { says.min(room) }
}

/// Whether an IP number is that of a header between IPv6 and its payload.
#[inline]
fn is_extension(kind: IpNumber) -> bool {
    matches!(
        kind,
        IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_FRAGMENTATION_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS
            | IpNumber::AUTHENTICATION_HEADER
    )
}

/// The last address of a source route among IPv4 `options` (RFC 791, section 3.1), unless the packet has passed it.
/// etherparse does not parse IPv4 options.
fn source_route(mut options: &[u8]) -> Option<IpAddr> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        let (&kind, rest) = options.split_first()?;
        if kind == END {
            return None;
        }
        if kind == NO_OPERATION {
            options = rest;
            continue;
        }
        let (option, rest) = options.split_at_checked(usize::from(*rest.first()?))?;
        if let (LOOSE | STRICT, &[_, len, pointer, .., a, b, c, d]) = (kind, option) {
            return (pointer < len).then_some(IpAddr::from([a, b, c, d]));
        }
        if option.len() < 2 {
            return None;
        }
        options = rest;
    }
}
