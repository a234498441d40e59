//! How a payload is compressed.

use std::borrow::Cow;
use std::fmt;

use crate::DecodeError;
use crate::layout::{MAX_EXPANSION, SMALL_PAYLOAD};

/// How the payload of a batch is compressed. Each batch names its compression; a collector reads them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed.
    #[default]
    None,
    /// LZ4 block format: about 1 GB/s, half of the bytes.
    Lz4,
    /// Zstandard at level 1: slower and smaller.
    Zstd,
}

/// Level 1 is the fastest. Level 3, the library's default, takes half as long again and saves 2 % of the bytes.
const ZSTD_LEVEL: i32 = 1;

impl Compression {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::None,
            1 => Self::Lz4,
            2 => Self::Zstd,
            _ => return None,
        })
    }

    /// Appends the compressed `payload` to `out` and returns true; if it would not be smaller, or so small that a decoder
    /// would reject it, leaves `out` unchanged and returns false.
    pub(crate) fn compress(self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let room = match self {
            Self::None => return false,
            Self::Lz4 => lz4_flex::block::get_maximum_output_size(payload.len()),
            Self::Zstd => zstd::zstd_safe::compress_bound(payload.len()),
        };
        out.resize(start + room, 0);
        let written = match self {
            Self::None => None,
            Self::Lz4 => lz4_flex::block::compress_into(payload, &mut out[start..]).ok(),
            Self::Zstd => zstd::bulk::compress_to_buffer(payload, &mut out[start..], ZSTD_LEVEL).ok(),
        };
        let written = written.filter(|&len| len < payload.len());
        out.truncate(start + written.unwrap_or(0));
        let Some(written) = written else { return false };
        if is_plausible(payload.len(), written) {
            return true;
        }
        if self == Self::Zstd {
            pad(out, payload.len().div_ceil(MAX_EXPANSION) - written);
            return true;
        }
        out.truncate(start);
        false
    }

    /// Decompresses to at most `max` bytes. An uncompressed payload is returned unchanged.
    pub(crate) fn decompress(self, payload: &[u8], max: usize) -> Result<Cow<'_, [u8]>, DecodeError> {
        let failed = |why: &dyn fmt::Display| DecodeError::Decompress { why: why.to_string() };
        if self != Self::None && !is_plausible(max, payload.len()) {
            return Err(DecodeError::Expansion { payload: max, compressed: payload.len() });
        }
        let mut out = Vec::new();
        let written = match self {
            Self::None => return Ok(Cow::Borrowed(payload)),
            Self::Lz4 => {
                out.resize(max, 0);
                lz4_flex::block::decompress_into(payload, &mut out).map_err(|error| failed(&error))?
            }
            Self::Zstd => {
                out.resize(max, 0);
                zstd::bulk::decompress_to_buffer(payload, &mut out).map_err(|error| failed(&error))?
            }
        };
        out.truncate(written);
        Ok(Cow::Owned(out))
    }
}

/// Whether a payload may be that much longer than its compressed form.
const fn is_plausible(payload: usize, compressed: usize) -> bool {
    payload <= SMALL_PAYLOAD || payload <= compressed.saturating_mul(MAX_EXPANSION)
}

/// Appends a skippable frame of `len` bytes, or a few more (RFC 8878, section 3.1.2).
fn pad(out: &mut Vec<u8>, len: usize) {
    const MAGIC: u32 = 0x184d_2a50;
    let content = len.saturating_sub(8);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&(content as u32).to_le_bytes());
    out.resize(out.len() + content, 0);
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}
