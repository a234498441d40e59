//! TZSP, the TaZmen Sniffer Protocol: packets that a router or a wireless sensor observed, sent over UDP.
//!
//! There is no standard. This follows the public description of the format (<https://en.wikipedia.org/wiki/TZSP>),
//! Wireshark's `packet-tzsp.c`, and what `RouterOS` sends. A datagram is
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | type: 0 received packet, 1 packet for transmit, 3 configuration, 4 keepalive, 5 port opener |
//! | 2 | 2 | encapsulation of the packet, big-endian |
//! | 4 | | tags, of which END is the last ([`Tag`]) |
//! | | the rest | the packet |
//!
//! `RouterOS` sends `01 00 00 01 01` and an Ethernet frame, without a timestamp, sequence number or length. So a packet's
//! time is that of its arrival. Timestamps that some sensors send are not used, as the sensors' clocks are not set.

mod encapsulation;
mod encode;
mod tag;

pub use encapsulation::Encapsulation;
pub use encode::{TzspHeader, encode};
pub use tag::{Tag, Tags};

use crate::Headers;

/// Bytes before the tags.
pub(crate) const HEADER_LEN: usize = 4;

/// The only version that exists.
const VERSION: u8 = 1;

/// Types without tags and packet.
const KEEPALIVE: u8 = 4;
const PORT_OPENER: u8 = 5;

/// A decoded datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TzspMessage<'a> {
    /// A packet.
    Packet(Packet<'a>),
    /// The sender is alive, but has no packet to send.
    Keepalive,
    /// Opens the return path through a firewall.
    PortOpener,
}

/// A packet in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The datagram's type.
    pub packet_type: PacketType,
    /// The format of the packet's first header.
    pub encapsulation: Encapsulation,
    /// Metadata.
    pub tags: Tags<'a>,
    /// The packet, never empty.
    pub bytes: &'a [u8],
}

impl Packet<'_> {
    /// Bytes that the packet had where it was observed. `missing` bytes of the datagram are known to be lost.
    ///
    /// This is the length in the tags ([`Packet::original_len`]). Without that tag it is the number of bytes that arrived
    /// or are missing, or the end of the IP packet if that is larger: then the router truncated the packet.
    #[must_use]
    pub(crate) fn wire_len(&self, missing: u32) -> u32 {
        self.original_len().unwrap_or_else(|| {
            let sent = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).saturating_add(missing);
            // The maximum length of the frame, so that it does not limit that of the IP header.
            let headers = Headers::parse(self.encapsulation.link_type(), self.bytes, u32::MAX);
            let end = headers.ip.map(|ip| ip.end).filter(|&end| end < u32::MAX);
            end.map_or(sent, |end| end.max(sent))
        })
    }

    /// Bytes that the packet had where it was observed, according to the tag [`Tag::ORIGINAL_LEN`]. `None` without a
    /// valid tag: a value below the number of bytes that arrived is ignored.
    #[must_use]
    pub fn original_len(&self) -> Option<u32> {
        let mut tags = self.tags;
        let tag = tags.find(|tag| tag.number == Tag::ORIGINAL_LEN)?;
        let len = u16::from_be_bytes(tag.value.try_into().ok()?);
        (usize::from(len) >= self.bytes.len()).then_some(u32::from(len))
    }
}

/// The type of a datagram that carries a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// Type 0: a packet that was observed.
    Received,
    /// Type 1: a packet that the receiver is asked to transmit. Some versions of `RouterOS` use it for observed packets.
    Transmit,
}

impl PacketType {
    const fn number(self) -> u8 {
        match self {
            Self::Received => 0,
            Self::Transmit => 1,
        }
    }
}

/// Decodes a UDP payload, or the head of one.
///
/// # Errors
/// It is not TZSP, or carries no packet.
#[inline]
pub fn decode(datagram: &[u8]) -> Result<TzspMessage<'_>, Error> {
    let Some((&[version, kind, high, low], rest)) = datagram.split_first_chunk::<HEADER_LEN>() else {
        return Err(Error::Header { had: datagram.len() });
    };
    if version != VERSION {
        return Err(Error::Version { version });
    }
    let packet_type = match kind {
        0 => PacketType::Received,
        1 => PacketType::Transmit,
        KEEPALIVE => return Ok(TzspMessage::Keepalive),
        PORT_OPENER => return Ok(TzspMessage::PortOpener),
        kind => return Err(Error::Type { kind }),
    };
    let number = u16::from_be_bytes([high, low]);
    let encapsulation = Encapsulation::from_number(number).ok_or(Error::Encapsulation { number })?;
    let (tags, bytes) = Tags::split_from(rest)?;
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    Ok(TzspMessage::Packet(Packet { packet_type, encapsulation, tags, bytes }))
}

/// Why a datagram carries no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is shorter than the header.
    #[error("the TZSP header needs {HEADER_LEN} bytes, but the datagram has {had}")]
    Header {
        /// Length of the datagram.
        had: usize,
    },
    /// An unknown version, so it is probably not TZSP.
    #[error("unknown TZSP version {version}")]
    Version {
        /// The version in the header.
        version: u8,
    },
    /// A type that carries no packet: configuration, or an unknown one.
    #[error("TZSP type {kind} carries no packet")]
    Type {
        /// The type in the header.
        kind: u8,
    },
    /// An encapsulation that is not known.
    #[error("unknown TZSP encapsulation {number}")]
    Encapsulation {
        /// The encapsulation in the header.
        number: u16,
    },
    /// The datagram ends before the END tag.
    #[error("the TZSP tag at offset {at} needs {needed} bytes, {had} are left")]
    Tags {
        /// Offset of the incomplete tag in the datagram.
        at: usize,
        /// Length of the tag in bytes, if known.
        needed: usize,
        /// Bytes left in the datagram.
        had: usize,
    },
    /// Nothing follows the tags.
    #[error("no packet follows the TZSP tags")]
    Empty,
}

#[cfg(test)]
mod tests;
