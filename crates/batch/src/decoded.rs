//! A batch as it arrives: any bytes, until proven to be one.

use std::ops::Range;

use packet::record::Extent;

use crate::{Compression, DecodeError, Header};

/// A message that is a batch through and through: its header is sound, its payload decompressed, and every record of it
/// whole. `M` is what holds the message; an uncompressed payload is not copied out of it.
#[derive(Debug)]
pub struct DecodedBatch<M> {
    header: Header,
    extent: Extent,
    fields: Range<usize>,
    message: M,
    /// The payload, where the message's own is compressed.
    unpacked: Option<Vec<u8>>,
}

impl<M: AsRef<[u8]>> DecodedBatch<M> {
    /// Checks a message from its first byte to its last.
    ///
    /// # Errors
    /// What is wrong with it. Nothing that a sender writes makes this panic, or take more memory than
    /// [`crate::header::MAX_PAYLOAD`].
    pub fn decode(message: M) -> Result<Self, DecodeError> {
        let bytes = message.as_ref();
        let header = Header::decode(bytes)?;
        let header_len = header.header_len as usize;
        let payload = bytes.get(header_len..).unwrap_or_default();
        let payload_len = header.payload_len as usize;
        let unpacked = match header.compression {
            Compression::None if payload.len() == payload_len => None,
            Compression::None => {
                return Err(DecodeError::Mismatch {
                    what: "payload bytes",
                    claimed: u64::from(header.payload_len),
                    found: payload.len() as u64,
                });
            }
            packed => Some(packed.decompress(payload, payload_len)?),
        };
        let extent = Extent::of(unpacked.as_deref().unwrap_or(payload))?;
        if extent.packets != header.packets {
            return Err(DecodeError::Mismatch {
                what: "packets",
                claimed: u64::from(header.packets),
                found: u64::from(extent.packets),
            });
        }
        Ok(Self { header, extent, fields: crate::header::FIXED_LEN..header_len, message, unpacked })
    }

    /// What the header says.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many packets there are, and when they were.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The fields, for [`crate::Interface::decode`]. They are the same, byte for byte, in all batches of a source.
    #[must_use]
    pub fn fields(&self) -> &[u8] {
        self.message.as_ref().get(self.fields.clone()).unwrap_or_default()
    }

    /// Bytes that the message had.
    #[must_use]
    pub fn message_len(&self) -> usize {
        self.message.as_ref().len()
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        match &self.unpacked {
            Some(payload) => payload,
            None => self.message.as_ref().get(self.fields.end..).unwrap_or_default(),
        }
    }
}

impl<M: AsRef<[u8]>> AsRef<[u8]> for DecodedBatch<M> {
    fn as_ref(&self) -> &[u8] {
        self.records()
    }
}
