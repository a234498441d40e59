//! IEEE 802.11 data frames, and the headers that capturing devices put in front.

use super::link::Found;
use super::{be16, be32, byte, chunk, ether};
use crate::LinkType;

/// An 802.11 frame. Only data that is neither encrypted nor a fragment tells its network protocol. `padded`: the device
/// aligned the body to four bytes.
pub(super) fn data_frame(bytes: &[u8], at: usize, padded: bool) -> Found {
    // Frame control (IEEE 802.11-2020, clause 9.2.4.1).
    let [kind, flags] = *chunk::<2>(bytes, at)?;
    let data = kind & 0x0c == 0x08;
    let no_data = kind & 0x40 != 0;
    let protected = flags & 0x40 != 0;
    let fragment_number = be16(bytes, at + 22)?.swap_bytes() & 0x0f;
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
        // An A-MSDU: the first of its packets stands behind two addresses and a length (clause 9.3.2.2).
        len += 14;
    }
    ether::llc(bytes, at + len)
}

/// Radiotap (<https://www.radiotap.org>): version, padding, length, words of presence bits, fields in their order.
pub(super) fn radiotap(bytes: &[u8], at: usize) -> Found {
    const MORE_WORDS: u32 = 1 << 31;
    const PADDED: u8 = 0x20;
    let len = usize::from(be16(bytes, at + 2)?.swap_bytes());
    let word = |index: usize| Some(be32(bytes, at + 4 + 4 * index)?.swap_bytes());
    let present = word(0)?;
    let mut words = 1;
    let mut last = present;
    while last & MORE_WORDS != 0 {
        last = word(words)?;
        words += 1;
    }
    // The first field is a clock of eight bytes, the second the flags. Fields are aligned within the header.
    let mut flags_at = 4 + 4 * words;
    let (clock, flags) = (present & 1 != 0, present & 2 != 0);
    if clock {
        flags_at = flags_at.next_multiple_of(8) + 8;
    }
    let padded = flags && byte(bytes, at + flags_at)? & PADDED != 0;
    data_frame(bytes, at + len, padded)
}

/// A Prism header tells its length, in the byte order of the host that captured. Some devices put AVS's there instead.
pub(super) fn prism(bytes: &[u8]) -> Found {
    if be32(bytes, 0)? & 0xffff_f000 == 0x8021_1000 {
        return avs(bytes);
    }
    let len = be32(bytes, 4)?;
    let len = if len > 0xffff { len.swap_bytes() } else { len };
    data_frame(bytes, usize::from(u16::try_from(len).ok()?), false)
}

/// An AVS header: a magic number, its length.
pub(super) fn avs(bytes: &[u8]) -> Found {
    data_frame(bytes, usize::from(u16::try_from(be32(bytes, 4)?).ok()?), false)
}

/// CACE's per-packet information: version, flags, length, the link type of what follows.
pub(super) fn ppi(bytes: &[u8]) -> Found {
    let len = usize::from(be16(bytes, 2)?.swap_bytes());
    let link_type = LinkType(be32(bytes, 4)?.swap_bytes());
    match link_type {
        LinkType::IEEE802_11 => data_frame(bytes, len, false),
        LinkType::ETHERNET => ether::by_type(bytes, len + 14, be16(bytes, len + 12)?),
        _ => None,
    }
}
