//! IEEE 802.11 data frames, and the headers that capturing devices put in front of them. etherparse has no parser for
//! any.

use super::ether;
use super::network_start::NetworkStart;
use crate::LinkType;
use crate::bytes::{array, be_u32, byte, le_u16, le_u32};

/// An 802.11 frame. Only data frames that are neither encrypted nor fragments show their network protocol.
///
/// `padded`: the device aligned the frame's body to four bytes.
pub(super) fn data_frame(bytes: &[u8], at: usize, padded: bool) -> Option<NetworkStart> {
    // Frame control (IEEE 802.11-2020, clause 9.2.4.1).
    let [kind, flags] = array(bytes, at)?;
    let data = kind & 0x0c == 0x08;
    let no_data = kind & 0x40 != 0;
    let protected = flags & 0x40 != 0;
    let fragment_number = le_u16(bytes, at + 22)? & 0x0f;
    if !data || no_data || protected || fragment_number != 0 {
        return None;
    }
    let mut len = 24;
    let between_access_points = flags & 0x03 == 0x03;
    if between_access_points {
        len += 6;
    }
    let mut aggregate = false;
    let quality_of_service = kind & 0x80 != 0;
    if quality_of_service {
        aggregate = byte(bytes, at + len)? & 0x80 != 0;
        len += 2;
        let high_throughput_control = flags & 0x80 != 0;
        if high_throughput_control {
            len += 4;
        }
    }
    if padded {
        len = usize::next_multiple_of(len, 4);
    }
    if aggregate {
        // An A-MSDU: two addresses and a length precede its first packet (clause 9.3.2.2).
        len += 14;
    }
    ether::llc(bytes, at + len)
}

/// Radiotap (<https://www.radiotap.org>): version, padding, length, presence bitmaps, then the fields in bit order.
pub(super) fn radiotap(bytes: &[u8], at: usize) -> Option<NetworkStart> {
    const MORE_BITMAPS: u32 = 1 << 31;
    const PADDED: u8 = 0x20;
    let len = usize::from(le_u16(bytes, at + 2)?);
    let bitmap = |index: usize| le_u32(bytes, at + 4 + 4 * index);
    let present = bitmap(0)?;
    let mut bitmaps = 1;
    let mut last = present;
    while last & MORE_BITMAPS != 0 {
        last = bitmap(bitmaps)?;
        bitmaps += 1;
    }
    // The first field is a clock of eight bytes, the second the flags. Fields are aligned within the header.
    let mut flags_at = 4 + 4 * bitmaps;
    let (clock, flags) = (present & 1 != 0, present & 2 != 0);
    if clock {
        flags_at = flags_at.next_multiple_of(8) + 8;
    }
    let padded = flags && byte(bytes, at + flags_at)? & PADDED != 0;
    data_frame(bytes, at + len, padded)
}

/// A Prism header, whose length is in the byte order of the capturing host. Some devices write an AVS header instead.
pub(super) fn prism(bytes: &[u8]) -> Option<NetworkStart> {
    if be_u32(bytes, 0)? & 0xffff_f000 == 0x8021_1000 {
        return avs(bytes);
    }
    let len = be_u32(bytes, 4)?;
    let len = if len > 0xffff { len.swap_bytes() } else { len };
    data_frame(bytes, usize::from(u16::try_from(len).ok()?), false)
}

/// An AVS header: a magic number, its length.
pub(super) fn avs(bytes: &[u8]) -> Option<NetworkStart> {
    data_frame(bytes, usize::from(u16::try_from(be_u32(bytes, 4)?).ok()?), false)
}

/// CACE per-packet information: version, flags, length, link type of what follows.
pub(super) fn ppi(bytes: &[u8]) -> Option<NetworkStart> {
    let len = usize::from(le_u16(bytes, 2)?);
    match LinkType(le_u32(bytes, 4)?) {
        LinkType::IEEE802_11 => data_frame(bytes, len, false),
        LinkType::ETHERNET => ether::ethernet(bytes, len),
        _ => None,
    }
}
