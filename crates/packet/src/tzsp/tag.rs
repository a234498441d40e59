//! Tags: the metadata of a packet.

use super::{Error, HEADER_LEN};

/// A tag: a number, the length of its value in one byte, and the value. [`Tag::PAD`] and [`Tag::END`] consist of the
/// number only. Unknown tags are skipped.
///
/// Other tags that sensors send: 10 RSSI (a signed byte, dBm), 11 noise, 12 rate, 13 timestamp (4 bytes), 17 whether the
/// frame check sequence was wrong, 18 channel, 40 packet count (4 bytes), 60 the sensor's MAC address (6 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// The kind of value.
    pub number: u8,
    /// The value, up to 255 bytes.
    pub value: &'a [u8],
}

impl Tag<'_> {
    /// Padding, for alignment.
    pub const PAD: u8 = 0;
    /// The last tag.
    pub const END: u8 = 1;
    /// Bytes that the packet had where it was observed: 2 bytes, big-endian.
    pub const ORIGINAL_LEN: u8 = 41;
}

/// Iterates over the tags of a packet, without PAD and END.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags<'a> {
    /// The tags before END. All are complete, as [`Tags::split_from`] has checked.
    bytes: &'a [u8],
}

impl<'a> Tags<'a> {
    /// Splits `bytes`, which follow the header, into the tags and what follows END.
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
