//! The blocks of pcapng that packets need: draft-ietf-opsawg-pcapng, section 4.
//!
//! Everything else is skipped without a check: existing files have texts that are not UTF-8, options that are too
//! short, and reserved fields that are not 0, and all other programs read their packets.

use packet::bytes::ByteOrder;

/// The type of a section header block. It reads the same in both byte orders.
pub(in crate::file) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The byte-order magic after a section header's type and length, for little-endian sections.
const LITTLE_ENDIAN: [u8; 4] = [0x4d, 0x3c, 0x2b, 0x1a];
const BIG_ENDIAN: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];

const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Bytes of a block besides its body: type, length, and the length again.
const FRAME: usize = 12;

/// The largest block that is accepted, as in Wireshark.
const MAX_BLOCK: usize = 16 << 20;

/// A parsed block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block<'a> {
    /// A section starts. The interfaces of the previous section are no longer valid.
    Section(ByteOrder),
    /// An interface, numbered from 0 in its section.
    Interface(Description),
    /// A packet.
    Packet(Packet<'a>),
    /// Something else.
    Other,
}

/// The content of an interface description block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) link_type: u16,
    /// 0: no limit.
    pub(super) snaplen: u32,
    pub(super) name: Option<String>,
    pub(super) words: String,
    /// A pcap-filter expression.
    pub(super) filter: String,
    /// `if_tsresol`.
    pub(super) resolution: Option<u8>,
    /// `if_tsoffset`, in seconds.
    pub(super) offset: i64,
}

/// The content of a packet block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    /// Units of the interface's clock since the epoch; a simple packet has none.
    pub(super) ticks: Option<u64>,
    pub(super) original: u32,
    /// The captured bytes. Those of a simple packet include padding, whose length follows from the interface's snaplen.
    pub(super) bytes: &'a [u8],
}

/// Why bytes are not a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlockError {
    #[error("a block has the impossible length {0}")]
    Length(u32),
    #[error("a section header has no byte-order magic")]
    Magic,
    #[error("a block of type {0} is too short for its fields")]
    Short(u32),
}

impl<'a> Block<'a> {
    /// The first block of `buf` and its length; `None` if it is incomplete.
    pub(super) fn split_from(buf: &'a [u8], order: ByteOrder) -> Result<Option<(Self, usize)>, BlockError> {
        // A section header contains the byte order of its own length.
        let order = match (buf.first_chunk::<4>(), buf.get(8..).and_then(<[u8]>::first_chunk)) {
            (Some(&SECTION_HEADER), Some(&LITTLE_ENDIAN)) => ByteOrder::Little,
            (Some(&SECTION_HEADER), Some(&BIG_ENDIAN)) => ByteOrder::Big,
            (Some(&SECTION_HEADER), Some(_)) => return Err(BlockError::Magic),
            (Some(&SECTION_HEADER), None) => return Ok(None),
            _ => order,
        };
        let (Some(kind), Some(len)) = (order.u32_at(buf, 0), order.u32_at(buf, 4)) else { return Ok(None) };
        // Some writers leave the padding out of the length.
        let whole = (len as usize).next_multiple_of(4);
        if !(FRAME..=MAX_BLOCK).contains(&whole) {
            return Err(BlockError::Length(len));
        }
        let Some(block) = buf.get(..whole) else { return Ok(None) };
        let body = block.get(8..whole - 4).unwrap_or_default();
        let read = match kind {
            _ if buf.starts_with(&SECTION_HEADER) => Some(Self::Section(order)),
            INTERFACE_DESCRIPTION => Description::read(body, order).map(Self::Interface),
            ENHANCED_PACKET | PACKET | SIMPLE_PACKET => Packet::read(kind, body, order).map(Self::Packet),
            _ => Some(Self::Other),
        };
        Ok(Some((read.ok_or(BlockError::Short(kind))?, whole)))
    }
}

impl Description {
    fn read(body: &[u8], order: ByteOrder) -> Option<Self> {
        let mut description =
            Self { link_type: order.u16_at(body, 0)?, snaplen: order.u32_at(body, 4)?, ..Self::default() };
        let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        for (code, value) in options(body.get(8..).unwrap_or_default(), order) {
            match code {
                2 => description.name = Some(text(value)).filter(|name| !name.is_empty()),
                3 => description.words = text(value),
                9 => description.resolution = value.first().copied(),
                // The first byte is the kind of filter; 0 is a pcap-filter expression.
                11 => description.filter = value.strip_prefix(&[0]).map(text).unwrap_or_default(),
                14 => description.offset = order.u64_at(value, 0).unwrap_or_default().cast_signed(),
                _ => {}
            }
        }
        Some(description)
    }
}

/// The options of a block, up to the first incomplete one.
fn options(mut rest: &[u8], order: ByteOrder) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, len) = (order.u16_at(rest, 0)?, usize::from(order.u16_at(rest, 2)?));
        let value = rest.get(4..4 + len)?;
        rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        (code != 0).then_some((code, value))
    })
}

impl<'a> Packet<'a> {
    fn read(kind: u32, body: &'a [u8], order: ByteOrder) -> Option<Self> {
        if kind == SIMPLE_PACKET {
            let original = order.u32_at(body, 0)?;
            return Some(Self { interface: 0, ticks: None, original, bytes: body.get(4..)? });
        }
        // The obsolete packet block has two bytes for the interface, and two for a drop count.
        let interface = match kind {
            PACKET => order.u16_at(body, 0)?.into(),
            _ => order.u32_at(body, 0)?,
        };
        let ticks = u64::from(order.u32_at(body, 4)?) << 32 | u64::from(order.u32_at(body, 8)?);
        let captured = order.u32_at(body, 12)? as usize;
        let bytes = body.get(20..)?.get(..captured)?;
        Some(Self { interface, ticks: Some(ticks), original: order.u32_at(body, 16)?, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u32..8, len in 0_u32..220) {
            let framed = [&kind.to_le_bytes()[..], &len.to_le_bytes(), &bytes].concat();
            for (buf, order) in [(&bytes, ByteOrder::Big), (&framed, ByteOrder::Little)] {
                if let Ok(Some((_, taken))) = Block::split_from(buf, order) {
                    prop_assert!((FRAME..=buf.len()).contains(&taken));
                }
            }
        }
    }

    #[test]
    fn unusual_blocks_are_accepted() {
        // An interface whose reserved field is not 0, with a name that is not UTF-8, and a truncated option.
        let body =
            [&[1, 0, 7, 7, 0, 0, 0, 0][..], &[2, 0, 3, 0, b'e', 0xff, b'0', 0], &[9, 0, 9, 0]].concat();
        let len = (body.len() as u32 + 12).to_le_bytes();
        let block = [&1_u32.to_le_bytes()[..], &len, &body, &len].concat();
        let expected =
            Description { link_type: 1, name: Some("e\u{fffd}0".to_owned()), ..Description::default() };
        let read = Block::split_from(&block, ByteOrder::Little);
        assert_eq!(read, Ok(Some((Block::Interface(expected), block.len()))));
        assert_eq!(Block::split_from(&block[..block.len() - 1], ByteOrder::Little), Ok(None));
    }

    #[test]
    fn invalid_blocks_are_errors() {
        let cases: [(&[u8], BlockError); 3] = [
            (&[1, 0, 0, 0, 8, 0, 0, 0], BlockError::Length(8)),
            (&[0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0, 1, 2, 3, 4], BlockError::Magic),
            (&[6, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0], BlockError::Short(6)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Block::split_from(bytes, ByteOrder::Little), Err(expected));
        }
    }
}
