//! How a payload is compressed.

use std::fmt;

use crate::DecodeError;

/// How the payload of a batch is compressed. Every batch says so for itself: a collector reads them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 block format: some 1 GB/s, half of the bytes.
    Lz4,
    /// Zstandard at level 1: slower, and smaller still.
    Zstd,
}

/// Level 1 is the fastest; level 3, the library's default, costs half as much again for 2 % fewer bytes.
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

    /// Appends `payload`, compressed, to `out`. False where that would not make it smaller: then `out` is as it was.
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
        written.is_some()
    }

    /// Decompresses to exactly `len` bytes.
    pub(crate) fn decompress(self, compressed: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
        let failed = |why: &dyn fmt::Display| DecodeError::Decompress { why: why.to_string() };
        let mut out = vec![0; len];
        let written = match self {
            Self::None => {
                out.clear();
                out.extend_from_slice(compressed);
                out.len()
            }
            Self::Lz4 => {
                lz4_flex::block::decompress_into(compressed, &mut out).map_err(|error| failed(&error))?
            }
            Self::Zstd => {
                zstd::bulk::decompress_to_buffer(compressed, &mut out).map_err(|error| failed(&error))?
            }
        };
        if written != len {
            return Err(DecodeError::Mismatch {
                what: "payload bytes",
                claimed: len as u64,
                found: written as u64,
            });
        }
        Ok(out)
    }
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
