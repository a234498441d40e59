//! Classic pcap with nanoseconds: its records are those of the batches, so that nothing is rewritten.
//!
//! The format: draft-ietf-opsawg-pcap, section 4.

use batch::Interface;
use packet::LinkType;
use packet::record::MAX_CAPTURED;

use super::{InterfaceId, Stream, StreamError};

/// The magic of a file with nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;

/// The version of the format.
const VERSION: (u16, u16) = (2, 4);

/// Writes classic pcap. The link type of the first interface is the file's.
#[derive(Debug)]
pub struct PcapWriter {
    stream: Stream,
    link_type: Option<LinkType>,
}

impl PcapWriter {
    /// Nothing is written before the first interface is described: the header holds its link type.
    #[must_use]
    pub const fn new(stream: Stream) -> Self {
        Self { stream, link_type: None }
    }

    /// The link type of all packets of the file, once it is known.
    #[must_use]
    pub const fn link_type(&self) -> Option<LinkType> {
        self.link_type
    }

    pub(super) fn describe(&mut self, interface: &Interface) -> Result<Option<InterfaceId>, StreamError> {
        let link_type = match self.link_type {
            Some(link_type) => link_type,
            None => {
                self.begin(interface.link_type)?;
                interface.link_type
            }
        };
        Ok((link_type == interface.link_type).then_some(InterfaceId(0)))
    }

    /// Writes the header of the file at once: the reader may wait for it.
    fn begin(&mut self, link_type: LinkType) -> Result<(), StreamError> {
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&MAGIC.to_le_bytes());
        header.extend_from_slice(&VERSION.0.to_le_bytes());
        header.extend_from_slice(&VERSION.1.to_le_bytes());
        // Two fields that everybody writes as 0.
        header.extend_from_slice(&[0; 8]);
        header.extend_from_slice(&(MAX_CAPTURED as u32).to_le_bytes());
        header.extend_from_slice(&link_type.0.to_le_bytes());
        self.link_type = Some(link_type);
        self.stream.write(&header)?;
        self.stream.flush()
    }

    #[inline]
    pub(super) fn write(&mut self, records: &[u8]) -> Result<(), StreamError> {
        self.stream.write(records)
    }

    pub(super) fn flush(&mut self) -> Result<(), StreamError> {
        self.stream.flush()
    }

    /// A file without any packet is still a pcap file.
    pub(super) fn finish(mut self) -> Result<(), StreamError> {
        if self.link_type.is_none() {
            self.begin(LinkType::ETHERNET)?;
        }
        self.stream.flush()
    }
}
