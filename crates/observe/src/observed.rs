//! What is observed: a batch, and the packets in it.

use packet::{Headers, LinkType, Timestamp};

use crate::OriginId;

/// The packets of one origin, as they are stored in a batch.
#[derive(Clone, Copy, Debug)]
pub struct ObservedBatch<'a> {
    /// Where the packets were captured.
    pub origin: OriginId,
    /// The link type of all packets.
    pub link_type: LinkType,
    /// The number of packets.
    pub packets: u32,
    /// The packets as [`packet::Records`].
    pub records: &'a [u8],
    /// The origin will send no packet older than this.
    pub watermark: Timestamp,
}

/// A packet with its headers parsed.
#[derive(Clone, Copy, Debug)]
pub struct ObservedPacket<'a> {
    /// The capture time.
    pub time: Timestamp,
    /// The original length in bytes.
    pub wire_len: u32,
    /// The captured bytes.
    pub bytes: &'a [u8],
    /// The parsed headers.
    pub headers: Headers,
}
