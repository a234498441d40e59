//! Integers and arrays at an offset of a byte slice.
//!
//! Every reader returns `None` if the slice ends before the value does.

/// The byte at `at`.
#[inline]
#[must_use]
pub fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// The `N` bytes from `at`.
#[inline]
#[must_use]
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The big-endian `u16` at `at`.
#[inline]
#[must_use]
pub fn be_u16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// The big-endian `u32` at `at`.
#[inline]
#[must_use]
pub fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// The little-endian `u16` at `at`.
#[inline]
#[must_use]
pub fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// The little-endian `u32` at `at`.
#[inline]
#[must_use]
pub fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// The byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The least significant byte is first.
    Little,
    /// The most significant byte is first.
    Big,
}

impl ByteOrder {
    /// The `u16` at `at`.
    #[inline]
    #[must_use]
    pub fn u16_at(self, bytes: &[u8], at: usize) -> Option<u16> {
        match self {
            Self::Little => le_u16(bytes, at),
            Self::Big => be_u16(bytes, at),
        }
    }

    /// The `u32` at `at`.
    #[inline]
    #[must_use]
    pub fn u32_at(self, bytes: &[u8], at: usize) -> Option<u32> {
        match self {
            Self::Little => le_u32(bytes, at),
            Self::Big => be_u32(bytes, at),
        }
    }

    /// The `u64` at `at`.
    #[inline]
    #[must_use]
    pub fn u64_at(self, bytes: &[u8], at: usize) -> Option<u64> {
        let word = array(bytes, at)?;
        Some(match self {
            Self::Little => u64::from_le_bytes(word),
            Self::Big => u64::from_be_bytes(word),
        })
    }
}

/// The first `N` bytes, followed by zeros if there are fewer.
#[inline]
#[must_use]
pub(crate) fn zero_padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    let len = bytes.len().min(N);
    if let (Some(to), Some(from)) = (padded.get_mut(..len), bytes.get(..len)) {
        to.copy_from_slice(from);
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_where_they_fit() {
        let bytes = [1, 2, 3, 4, 5];
        assert_eq!((byte(&bytes, 4), byte(&bytes, 5)), (Some(5), None));
        assert_eq!((array(&bytes, 3), array::<3>(&bytes, 3)), (Some([4, 5]), None));
        assert_eq!((be_u16(&bytes, 3), le_u16(&bytes, 3)), (Some(0x0405), Some(0x0504)));
        assert_eq!((be_u32(&bytes, 1), le_u32(&bytes, 1)), (Some(0x0203_0405), Some(0x0504_0302)));
        assert_eq!((be_u16(&bytes, 4), be_u32(&bytes, 2), le_u32(&bytes, usize::MAX)), (None, None, None));
    }

    #[test]
    fn short_slices_are_padded_and_long_ones_cut() {
        assert_eq!(zero_padded::<4>(&[1, 2]), [1, 2, 0, 0]);
        assert_eq!(zero_padded::<2>(&[1, 2, 3]), [1, 2]);
    }
}
