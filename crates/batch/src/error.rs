//! Why a message cannot be decoded.

use packet::origin::NameError;
use packet::record::RecordError;

use crate::layout::{FIXED_LEN, MAX_EXPANSION, MAX_HEADER, MAX_PAYLOAD, VERSION};

/// Why a message is not a batch that this version can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message is something other than a batch.
    #[error("not a batch: the message does not begin with `PKTR`")]
    Magic,
    /// The batch has another version of the layout.
    #[error("batch version {got} is not supported, only version {VERSION}: update the older program")]
    Version {
        /// The version in the header.
        got: u8,
    },
    /// The message is shorter than its header.
    #[error("the batch is truncated: its header has {needed} bytes, the message {had}")]
    Truncated {
        /// Bytes that the header should have.
        needed: usize,
        /// Bytes of the message.
        had: usize,
    },
    /// The header length is out of range.
    #[error("batch header length {got} is not between {FIXED_LEN} and {MAX_HEADER}")]
    HeaderLength {
        /// The length in the header.
        got: u32,
    },
    /// The payload length is out of range.
    #[error("batch payload length {got} is above {MAX_PAYLOAD}")]
    PayloadLength {
        /// The length in the header.
        got: u32,
    },
    /// The compression code is unknown.
    #[error("unknown batch compression {got} (known: 0 none, 1 lz4, 2 zstd)")]
    Compression {
        /// The code in the header.
        got: u8,
    },
    /// The payload cannot be decompressed.
    #[error("cannot decompress the batch's payload: {why}")]
    Decompress {
        /// The decompressor's error.
        why: String,
    },
    /// The payload would be too large once it is decompressed, for the size of the message.
    #[error("{compressed} compressed bytes claim to be {payload}: more than {MAX_EXPANSION} times as many")]
    Expansion {
        /// The length of the payload in the header.
        payload: usize,
        /// Bytes of the compressed payload.
        compressed: usize,
    },
    /// A name is not printable.
    #[error("the name in batch field {kind} {why}")]
    Name {
        /// The field's number.
        kind: u16,
        /// What is wrong with it.
        why: NameError,
    },
    /// A field of the header is malformed or missing.
    #[error("batch field {kind} at offset {offset} {why}")]
    Field {
        /// The field's number.
        kind: u16,
        /// Its offset in the fields, in bytes.
        offset: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The payload does not consist of whole records.
    #[error("batch payload: {0}")]
    Record(#[from] RecordError),
    /// The header contradicts the payload.
    #[error("the batch's header says {claimed} {what}, the payload has {found}")]
    Mismatch {
        /// What was counted.
        what: &'static str,
        /// The number in the header.
        claimed: u64,
        /// The number in the payload.
        found: u64,
    },
}
