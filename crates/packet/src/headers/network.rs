//! IPv4 and IPv6, with what stands between them and the transport.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::IpNumber;

use super::{Ip, byte, chunk};

/// Fixed bytes of an IPv6 header.
const IPV6_HEADER_LEN: u32 = 40;

/// How long an IP packet is: as its header says, but never longer than the frame was. A header that says 0 leaves it to the
/// frame.
#[inline]
fn bounded(says: u32, room: u32) -> u32 {
    if says == 0 { room } else { says.min(room) }
}

/// The IPv4 header at `at` (RFC 791, section 3.1). `None` where fewer than its 20 fixed bytes were captured, or where its
/// version or one of its lengths can't be.
#[inline]
pub(super) fn ipv4(bytes: &[u8], at: usize, frame_len: u32) -> Option<Ip> {
    let h = chunk::<20>(bytes, at)?;
    let header_len = u32::from(h[0] & 0x0f) * 4;
    let says = u32::from(u16::from_be_bytes([h[2], h[3]]));
    if h[0] >> 4 != 4 || header_len < 20 || (says != 0 && says < header_len) {
        return None;
    }
    let start = u32::try_from(at).ok()?;
    let total_len = bounded(says, frame_len.checked_sub(start)?);
    let fragmentation = u16::from_be_bytes([h[6], h[7]]);
    let (more, offset) = (fragmentation & 0x2000 != 0, fragmentation & 0x1fff);
    let mut ip = Ip {
        src: IpAddr::V4(Ipv4Addr::new(h[12], h[13], h[14], h[15])),
        dst: IpAddr::V4(Ipv4Addr::new(h[16], h[17], h[18], h[19])),
        protocol: h[9],
        total_len,
        dont_fragment: fragmentation & 0x4000 != 0,
        fragment: more || offset != 0,
        first_fragment: offset == 0,
        payload_at: start + header_len,
        end: start + total_len,
    };
    if ip.protocol == IpNumber::AUTHENTICATION_HEADER.0 && ip.first_fragment {
        skip_extensions(&mut ip, bytes, |kind| kind == IpNumber::AUTHENTICATION_HEADER);
    }
    Some(ip)
}

/// The IPv6 header at `at` with its extension headers (RFC 8200, sections 3 and 4). `None` where fewer than its 40 bytes
/// were captured, or where the version is another.
#[inline]
pub(super) fn ipv6(bytes: &[u8], at: usize, frame_len: u32) -> Option<Ip> {
    let h = chunk::<40>(bytes, at)?;
    if h[0] >> 4 != 6 {
        return None;
    }
    let (_, addresses) = h.split_first_chunk::<8>()?;
    let (src, dst) = addresses.split_first_chunk::<16>()?;
    let start = u32::try_from(at).ok()?;
    // A payload longer than 16 bits can say is a jumbogram (RFC 2675), or BIG TCP's: 0 stands for it.
    let says = u32::from(u16::from_be_bytes([h[4], h[5]]));
    let room = frame_len.checked_sub(start + IPV6_HEADER_LEN)?;
    let total_len = IPV6_HEADER_LEN + bounded(says, room);
    let mut ip = Ip {
        src: IpAddr::V6(Ipv6Addr::from(*src)),
        dst: IpAddr::V6(Ipv6Addr::from(*dst.first_chunk::<16>()?)),
        protocol: h[6],
        total_len,
        dont_fragment: true,
        fragment: false,
        first_fragment: true,
        payload_at: start + IPV6_HEADER_LEN,
        end: start + total_len,
    };
    skip_extensions(&mut ip, bytes, is_extension);
    Some(ip)
}

/// The last address of a source route among the IPv4 options from `start` to `end` (RFC 791, section 3.1), unless the
/// packet has been there.
pub(super) fn source_route(bytes: &[u8], start: u32, end: u32) -> Option<IpAddr> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    let mut options = bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
    loop {
        let (&kind, rest) = options.split_first()?;
        if kind == END {
            return None;
        }
        if kind == NO_OPERATION {
            options = rest;
            continue;
        }
        let (option, behind) = options.split_at_checked(usize::from(*rest.first()?))?;
        if let (LOOSE | STRICT, [_, len, pointer, .., a, b, c, d]) = (kind, option) {
            return (pointer < len).then_some(IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d)));
        }
        if option.len() < 2 {
            return None;
        }
        options = behind;
    }
}

/// Whether an IP number is that of a header that stands between IPv6 and what it carries.
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

/// Moves `ip`'s protocol and payload behind the headers that `is_extension` knows, as far as they were captured. Each takes
/// at least eight bytes, so the way ends with the packet.
#[inline]
fn skip_extensions(ip: &mut Ip, bytes: &[u8], is_extension: impl Fn(IpNumber) -> bool) {
    while is_extension(IpNumber(ip.protocol)) {
        if skip_extension(ip, bytes).is_none() {
            return;
        }
    }
}

/// Moves `ip` behind one header. `None` where it was not captured, or where what follows is the rest of a fragment.
fn skip_extension(ip: &mut Ip, bytes: &[u8]) -> Option<()> {
    let at = usize::try_from(ip.payload_at).ok()?;
    let kind = IpNumber(ip.protocol);
    let next = byte(bytes, at)?;
    let len = match kind {
        IpNumber::IPV6_FRAGMENTATION_HEADER => {
            // RFC 8200, section 4.5: offset in units of 8 bytes in the upper 13 bits, "more fragments" in the lowest.
            let [high, low] = *chunk::<2>(bytes, at + 2)?;
            let field = u16::from_be_bytes([high, low]);
            let (offset, more) = (field >> 3, field & 1 != 0);
            ip.fragment |= more || offset != 0;
            ip.first_fragment &= offset == 0;
            8
        }
        // RFC 4302, section 2.2: in words of 4 bytes, less two.
        IpNumber::AUTHENTICATION_HEADER => (u32::from(byte(bytes, at + 1)?) + 2) * 4,
        // RFC 8200, section 4.2: in units of 8 bytes, not counting the first.
        _ => (u32::from(byte(bytes, at + 1)?) + 1) * 8,
    };
    ip.protocol = next;
    ip.payload_at += len;
    ip.first_fragment.then_some(())
}
