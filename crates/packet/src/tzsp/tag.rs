//! What a datagram says of its packet.

use super::{Error, HEADER_LEN};

/// A tag: a number, the length of its value in one byte, and the value. Only [`Tag::PAD`] and [`Tag::END`] are a number
/// and nothing else. Numbers that nobody knows are skipped by their length.
///
/// The others that sensors send: 10 RSSI (a signed byte, dBm), 11 noise, 12 rate, 13 timestamp (4 bytes), 17 whether the
/// check sequence was wrong, 18 channel, 40 packet count (4 bytes), 60 the sensor's MAC address (6 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// What the value is.
    pub number: u8,
    /// The value, up to 255 bytes.
    pub value: &'a [u8],
}

impl Tag<'_> {
    /// Nothing: fills up to where the sender likes a tag to begin.
    pub const PAD: u8 = 0;
    /// The last one.
    pub const END: u8 = 1;
    /// Bytes that the packet had where it was seen: 2 bytes, big-endian.
    pub const ORIGINAL_LEN: u8 = 41;
}

/// The tags of a packet, without padding and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags<'a> {
    /// From the first tag to just before END; tags are whole, as [`Tags::split_from`] has seen to.
    bytes: &'a [u8],
}

impl<'a> Tags<'a> {
    /// The tags at the beginning of `bytes`, which follow TZSP's header, and what follows END.
    #[inline]
    pub(super) fn split_from(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let mut rest = bytes;
        loop {
            let had = rest.len();
            let at = bytes.len() - had;
            let short = |needed| Error::Tags { at: HEADER_LEN + at, needed, had };
            match rest {
                [Tag::END, packet @ ..] => {
                    return Ok((Self { bytes: bytes.get(..at).unwrap_or_default() }, packet));
                }
                [Tag::PAD, behind @ ..] => rest = behind,
                [_, len, behind @ ..] => {
                    let len = usize::from(*len);
                    rest = behind.get(len..).ok_or_else(|| short(2 + len))?;
                }
                [_] => return Err(short(2)),
                [] => return Err(short(1)),
            }
        }
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    #[inline]
    fn next(&mut self) -> Option<Tag<'a>> {
        while let [Tag::PAD, behind @ ..] = self.bytes {
            self.bytes = behind;
        }
        let [number, len, behind @ ..] = self.bytes else { return None };
        let (value, behind) = behind.split_at_checked(usize::from(*len))?;
        self.bytes = behind;
        Some(Tag { number: *number, value })
    }
}
