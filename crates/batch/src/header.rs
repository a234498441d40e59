//! The byte layout of a batch.
//!
//! One ZeroMQ message is one batch. All numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | magic: `PKTR` |
//! | 4 | 1 | version of this layout: 1 |
//! | 5 | 1 | compression of the payload: 0 none, 1 lz4 (block), 2 zstd (frame) |
//! | 6 | 2 | flags: bit 0: the source ends with this batch; the others are 0 |
//! | 8 | 4 | header length: where the payload begins |
//! | 12 | 4 | link type (`LINKTYPE_*`) |
//! | 16 | 4 | snaplen |
//! | 20 | 4 | packets in this batch |
//! | 24 | 4 | length of the payload when uncompressed |
//! | 28 | 4 | 0 |
//! | 32 | 8 | epoch: when this run of the source began, nanoseconds since the Unix epoch |
//! | 40 | 8 | sequence number of the batch in its epoch, from 0 |
//! | 48 | 8 | packets sent in this epoch before this batch |
//! | 56 | 8 | time of sending, nanoseconds since the Unix epoch by the source's clock |
//! | 64 | 8 | watermark: no later batch of this epoch holds an older packet |
//! | 72 | 8 | packets read from the device in this epoch so far |
//! | 80 | 8 | packets dropped by the kernel so far: its buffer was full |
//! | 88 | 8 | packets dropped by the interface or its driver so far |
//! | 96 | 8 | packets dropped by the relay so far: its buffer was full |
//! | 104 | | fields, up to the header length: see [`crate::interface`] |
//! | header length | | payload: records, as [`packet::record`] has them |
//!
//! A batch without packets is a heartbeat: it carries the watermark, the ledger and the time of a source that has
//! nothing to say.
//!
//! What stands in front of a payload may grow: a decoder goes by the header length, and skips fields that it does not
//! know. Anything that an old decoder would misread gets a new version number.

use packet::record::RecordError;
use packet::{LinkType, Timestamp};

use crate::Compression;

/// The first four bytes of every batch.
pub const MAGIC: [u8; 4] = *b"PKTR";

/// The version of the layout that this code writes, and the newest that it reads.
pub const VERSION: u8 = 1;

/// Bytes of a header in front of its fields.
pub const FIXED_LEN: usize = 104;

/// The most bytes of a header, fields included.
pub const MAX_HEADER: usize = 65_536;

/// The most bytes of a payload, uncompressed: twice the largest `BATCH_BYTES`, so that the packet that fills a batch
/// always fits. A decoder holds no more than this of one message in memory.
pub const MAX_PAYLOAD: usize = 8 << 20;

/// The most bytes of a message: what a collector lets ZeroMQ accept.
pub const MAX_MESSAGE: usize = MAX_HEADER + MAX_PAYLOAD;

/// Bit 0 of the flags.
const FLAG_ENDS: u16 = 1;

/// What stands in front of the fields of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the payload is compressed.
    pub compression: Compression,
    /// Whether the source ends with this batch.
    pub ends: bool,
    /// Where the payload begins.
    pub header_len: u32,
    /// What the packets begin with.
    pub link_type: LinkType,
    /// The most bytes that the source keeps of a packet.
    pub snaplen: u32,
    /// How many packets there are in this batch.
    pub packets: u32,
    /// How long the payload is when uncompressed, in bytes.
    pub payload_len: u32,
    /// When this run of the source began, in nanoseconds since the Unix epoch: what tells its runs apart.
    pub epoch: u64,
    /// The batch's number in its epoch. It is given when the batch is sent, so that a gap means loss in transit.
    pub sequence: u64,
    /// Packets sent in this epoch before this batch.
    pub sent_before: u64,
    /// When the batch was sent, by the source's clock.
    pub sent_at: Timestamp,
    /// No later batch of this epoch holds an older packet.
    pub watermark: Timestamp,
    /// Packets read from the device in this epoch so far, whatever became of them.
    pub captured: u64,
    /// Packets that never made it into a batch that was sent.
    pub dropped: Dropped,
}

/// The loss ledger as a source keeps it: packets lost in this epoch so far, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// By the kernel: its capture buffer was full.
    pub kernel: u64,
    /// By the interface or its driver.
    pub interface: u64,
    /// By the relay: `RELAY_BUFFER` was full.
    pub relay: u64,
}

impl Header {
    /// Writes the fixed part over the first [`FIXED_LEN`] bytes of a batch.
    pub(crate) fn write_to(&self, out: &mut [u8; FIXED_LEN]) {
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(4, &[VERSION, self.compression.code()]);
        put(6, &(if self.ends { FLAG_ENDS } else { 0 }).to_le_bytes());
        put(8, &self.header_len.to_le_bytes());
        put(12, &self.link_type.0.to_le_bytes());
        put(16, &self.snaplen.to_le_bytes());
        put(20, &self.packets.to_le_bytes());
        put(24, &self.payload_len.to_le_bytes());
        put(28, &0_u32.to_le_bytes());
        put(32, &self.epoch.to_le_bytes());
        put(40, &self.sequence.to_le_bytes());
        put(48, &self.sent_before.to_le_bytes());
        put(56, &self.sent_at.as_nanos().to_le_bytes());
        put(64, &self.watermark.as_nanos().to_le_bytes());
        put(72, &self.captured.to_le_bytes());
        put(80, &self.dropped.kernel.to_le_bytes());
        put(88, &self.dropped.interface.to_le_bytes());
        put(96, &self.dropped.relay.to_le_bytes());
    }

    /// Reads the fixed part of a batch, and checks it against the length of the message.
    ///
    /// # Errors
    /// `message` is no batch, or one that this version cannot read.
    pub fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let Some(fixed) = message.first_chunk::<FIXED_LEN>() else {
            // A short message may still say that it is something else altogether.
            return Err(if message.starts_with(&MAGIC) || MAGIC.starts_with(message) {
                DecodeError::Truncated { what: "header", needed: FIXED_LEN, had: message.len() }
            } else {
                DecodeError::Magic
            });
        };
        if !fixed.starts_with(&MAGIC) {
            return Err(DecodeError::Magic);
        }
        if fixed[4] != VERSION {
            return Err(DecodeError::Version { got: fixed[4] });
        }
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let header = Self {
            compression: Compression::from_code(fixed[5])
                .ok_or(DecodeError::Compression { got: fixed[5] })?,
            ends: u16_at(6) & FLAG_ENDS != 0,
            header_len: u32_at(8),
            link_type: LinkType(u32_at(12)),
            snaplen: u32_at(16),
            packets: u32_at(20),
            payload_len: u32_at(24),
            epoch: u64_at(32),
            sequence: u64_at(40),
            sent_before: u64_at(48),
            sent_at: Timestamp::from_nanos(u64_at(56)),
            watermark: Timestamp::from_nanos(u64_at(64)),
            captured: u64_at(72),
            dropped: Dropped { kernel: u64_at(80), interface: u64_at(88), relay: u64_at(96) },
        };
        let header_len = header.header_len as usize;
        if !(FIXED_LEN..=MAX_HEADER).contains(&header_len) {
            return Err(DecodeError::HeaderLength { got: header.header_len });
        }
        if header_len > message.len() {
            return Err(DecodeError::Truncated { what: "header", needed: header_len, had: message.len() });
        }
        if header.payload_len as usize > MAX_PAYLOAD {
            return Err(DecodeError::PayloadLength { got: header.payload_len });
        }
        Ok(header)
    }
}

/// Why bytes are no batch that we can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Something else than a batch.
    #[error("the message is no batch: it does not begin with `PKTR`")]
    Magic,
    /// A layout that this program does not know.
    #[error("the batch has version {got}, this program reads version {VERSION}: update the older of the two")]
    Version {
        /// The version that it has.
        got: u8,
    },
    /// The message ends too early.
    #[error("the batch's {what} needs {needed} bytes, the message has {had}")]
    Truncated {
        /// Which part.
        what: &'static str,
        /// Bytes that it should have.
        needed: usize,
        /// Bytes that there are.
        had: usize,
    },
    /// A header length that cannot be.
    #[error("the batch's header length is {got}, not {FIXED_LEN} to {MAX_HEADER}")]
    HeaderLength {
        /// The length that it claims.
        got: u32,
    },
    /// A payload that we would not hold in memory.
    #[error("the batch's payload length is {got}, more than {MAX_PAYLOAD}")]
    PayloadLength {
        /// The length that it claims.
        got: u32,
    },
    /// A compression that this program does not know.
    #[error("the batch's compression is {got}, which is none of 0 (none), 1 (lz4), 2 (zstd)")]
    Compression {
        /// The code that it has.
        got: u8,
    },
    /// The payload does not decompress to what the header says.
    #[error("the batch's payload does not decompress: {why}")]
    Decompress {
        /// What the decompressor says.
        why: String,
    },
    /// A field that cannot be read.
    #[error("the batch's field {kind} at offset {offset} {why}")]
    Field {
        /// The field's number.
        kind: u16,
        /// Where it stands in the fields.
        offset: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A payload that does not consist of records.
    #[error("the batch's payload: {0}")]
    Record(#[from] RecordError),
    /// Header and payload disagree.
    #[error("the batch claims {claimed} {what}, and has {found}")]
    Mismatch {
        /// What was counted.
        what: &'static str,
        /// The header's number.
        claimed: u64,
        /// The payload's.
        found: u64,
    },
}

impl DecodeError {
    /// A short name for a metric's label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Magic => "foreign",
            Self::Version { .. } => "version",
            Self::Truncated { .. } => "truncated",
            Self::HeaderLength { .. } | Self::PayloadLength { .. } | Self::Mismatch { .. } => "length",
            Self::Compression { .. } | Self::Decompress { .. } => "compression",
            Self::Field { .. } => "field",
            Self::Record(_) => "record",
        }
    }

    /// Every [`reason`](Self::reason) there is, so that each has a series from the start.
    pub const REASONS: [&'static str; 7] =
        ["foreign", "version", "truncated", "length", "compression", "field", "record"];
}
