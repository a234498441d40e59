//! A received message, decoded.

use std::borrow::Cow;

use packet::record::Extent;

use crate::layout::FIXED_LEN;
use crate::{DecodeError, Header};

/// Records of messages shorter than this are copied: small messages may share a receive buffer with others, and would
/// keep all of it.
const SMALL_MESSAGE: usize = 4 << 10;

/// A message that is known to be a batch: its header is valid, its payload is decompressed, and all its records are
/// whole.
/// `M` holds the message; an uncompressed payload is not copied out of it.
#[derive(Debug)]
pub struct DecodedBatch<M> {
    header: Header,
    extent: Extent,
    message: M,
    /// The payload, if the message's is compressed.
    decompressed: Option<Vec<u8>>,
}

impl<M: AsRef<[u8]>> DecodedBatch<M> {
    /// Decodes a message, and checks all of it except the fields, which [`crate::Interface::decode`] reads.
    ///
    /// # Errors
    /// Returns the error, together with the message. No message causes a panic or an allocation above
    /// [`crate::MAX_PAYLOAD`] bytes.
    pub fn decode(message: M) -> Result<Self, (M, DecodeError)> {
        match decode(message.as_ref()) {
            Ok((header, extent, decompressed)) => Ok(Self { header, extent, message, decompressed }),
            Err(error) => Err((message, error)),
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The number of packets and the range of their times.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The fields, for [`crate::Interface::decode`]. All batches of a source have the same bytes here until its
    /// description changes.
    #[must_use]
    pub fn fields(&self) -> &[u8] {
        self.message.as_ref().get(FIXED_LEN..self.header.header_len as usize).unwrap_or_default()
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &M {
        &self.message
    }

    /// Takes the message back.
    #[must_use]
    pub fn into_message(self) -> M {
        self.message
    }

    /// Takes the records out. What else the message holds is freed if it weighs more.
    #[must_use]
    pub fn into_records(self) -> BatchRecords<M> {
        if let Some(payload) = self.decompressed {
            return BatchRecords(Storage::Own(payload));
        }
        let (records, message) = (self.records(), self.message.as_ref());
        if records.len() < message.len() / 2 || message.len() < SMALL_MESSAGE {
            return BatchRecords(Storage::Own(records.to_vec()));
        }
        BatchRecords(Storage::Message { message: self.message, header_len: self.header.header_len as usize })
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        match &self.decompressed {
            Some(payload) => payload,
            None => self.message.as_ref().get(self.header.header_len as usize..).unwrap_or_default(),
        }
    }
}

/// The records of a batch, on their own: they may wait for a while, and should take no more memory than they need.
#[derive(Debug)]
pub struct BatchRecords<M>(Storage<M>);

/// Where they are.
#[derive(Debug)]
enum Storage<M> {
    /// Behind the header of an uncompressed message.
    Message { message: M, header_len: usize },
    /// Copied or decompressed.
    Own(Vec<u8>),
}

impl<M: AsRef<[u8]>> BatchRecords<M> {
    /// The memory that they take, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        match &self.0 {
            Storage::Message { message, .. } => message.as_ref().len(),
            Storage::Own(records) => records.capacity(),
        }
    }
}

impl<M: AsRef<[u8]>> AsRef<[u8]> for BatchRecords<M> {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Storage::Message { message, header_len } => {
                message.as_ref().get(*header_len..).unwrap_or_default()
            }
            Storage::Own(records) => records,
        }
    }
}

/// The header, the extent of the records, and the payload if it had to be decompressed.
fn decode(message: &[u8]) -> Result<(Header, Extent, Option<Vec<u8>>), DecodeError> {
    let header = Header::decode(message)?;
    let payload = message.get(header.header_len as usize..).unwrap_or_default();
    let payload = header.compression.decompress(payload, header.payload_len as usize)?;
    check("payload bytes", header.payload_len, payload.len() as u64)?;
    let extent = Extent::of(&payload)?;
    check("packets", header.packets, u64::from(extent.packets))?;
    let decompressed = match payload {
        Cow::Borrowed(_) => None,
        Cow::Owned(decompressed) => Some(decompressed),
    };
    Ok((header, extent, decompressed))
}

/// Checks a number of the header against the payload.
fn check(what: &'static str, claimed: u32, found: u64) -> Result<(), DecodeError> {
    let claimed = u64::from(claimed);
    if claimed == found { Ok(()) } else { Err(DecodeError::Mismatch { what, claimed, found }) }
}
