//! The fixed header of a batch, encoded and decoded.

use packet::{LinkType, Timestamp};

use crate::layout::{FIXED_LEN, MAGIC, MAX_HEADER, MAX_PAYLOAD, VERSION};
use crate::{Compression, DecodeError};

/// Bit 0 of the flags.
const FLAG_ENDS: u16 = 1;

/// The fixed header of a batch: what precedes the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the payload is compressed.
    pub compression: Compression,
    /// Whether the source ends with this batch.
    pub ends: bool,
    /// The offset of the payload in the message.
    pub header_len: u32,
    /// The packets' link type.
    pub link_type: LinkType,
    /// Maximum bytes captured per packet.
    pub snaplen: u32,
    /// Packets in this batch.
    pub packets: u32,
    /// Length of the uncompressed payload in bytes.
    pub payload_len: u32,
    /// When this run of the source began, in nanoseconds since the Unix epoch. It identifies the run.
    pub epoch: u64,
    /// The batch's number in its epoch. It is assigned when the batch is sent, so a gap means loss in transit.
    pub sequence: u64,
    /// Packets sent in this epoch before this batch.
    pub sent_before: u64,
    /// When the batch was sent, by the source's clock.
    pub sent_at: Timestamp,
    /// No later batch of this epoch holds an older packet.
    pub watermark: Timestamp,
    /// Packets read from the device in this epoch so far.
    pub captured: u64,
    /// Packets dropped by the source in this epoch so far.
    pub dropped: Dropped,
}

/// Packets dropped by a source in one epoch so far, by place.
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
    /// Encodes the fixed header.
    pub(crate) fn encode(&self) -> [u8; FIXED_LEN] {
        let mut out = [0; FIXED_LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(4, &[VERSION, self.compression.code()]);
        put(6, &(if self.ends { FLAG_ENDS } else { 0 }).to_le_bytes());
        put(8, &self.header_len.to_le_bytes());
        put(12, &self.link_type.0.to_le_bytes());
        put(16, &self.snaplen.to_le_bytes());
        put(20, &self.packets.to_le_bytes());
        put(24, &self.payload_len.to_le_bytes());
        put(32, &self.epoch.to_le_bytes());
        put(40, &self.sequence.to_le_bytes());
        put(48, &self.sent_before.to_le_bytes());
        put(56, &self.sent_at.as_nanos().to_le_bytes());
        put(64, &self.watermark.as_nanos().to_le_bytes());
        put(72, &self.captured.to_le_bytes());
        put(80, &self.dropped.kernel.to_le_bytes());
        put(88, &self.dropped.interface.to_le_bytes());
        put(96, &self.dropped.relay.to_le_bytes());
        out
    }

    /// Decodes the fixed header of a message, and checks that the message holds the whole header.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let Some(fixed) = message.first_chunk::<FIXED_LEN>() else {
            // A short message that does not begin like a batch is not a truncated batch.
            return Err(if message.starts_with(&MAGIC) || MAGIC.starts_with(message) {
                DecodeError::Truncated { needed: FIXED_LEN, had: message.len() }
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
            return Err(DecodeError::Truncated { needed: header_len, had: message.len() });
        }
        if header.payload_len as usize > MAX_PAYLOAD {
            return Err(DecodeError::PayloadLength { got: header.payload_len });
        }
        Ok(header)
    }
}
