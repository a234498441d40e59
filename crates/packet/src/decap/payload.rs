//! The result of decapsulation.

use crate::LinkType;

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A mirrored packet.
    Packet(InnerPacket<'a>),
    /// No packet, by design: the sender shows that it is alive, or keeps a path through a firewall open.
    Keepalive,
}

/// A mirrored packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerPacket<'a> {
    /// The link type of `bytes`.
    pub link_type: LinkType,
    /// Bytes that the packet had where it was mirrored, as far as that is known; at least `bytes.len()`.
    pub wire_len: u32,
    /// The bytes of the packet that arrived, never empty.
    pub bytes: &'a [u8],
    /// Which of the sender's streams the packet belongs to.
    pub channel: Channel,
}

/// Distinguishes the packet streams of one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Packets that the sender observed.
    Received,
    /// Packets that the receiver is asked to transmit (TZSP type 1).
    Transmit,
}

/// Why a datagram carries no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is shorter than the encapsulation's header.
    Header,
    /// Its version is not known, so it is probably another protocol.
    Version,
    /// Its message type carries no packet, or is not known.
    Type,
    /// The type of the inner packet is not known.
    Encapsulation,
    /// It ends within its tags or options.
    Tags,
    /// Nothing follows its header.
    Empty,
}

impl Reason {
    /// All values, in the order of their numbers (`reason as usize`).
    pub const ALL: [Self; 6] =
        [Self::Header, Self::Version, Self::Type, Self::Encapsulation, Self::Tags, Self::Empty];

    /// The value of the metric label `reason`. It does not change between versions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Version => "version",
            Self::Type => "type",
            Self::Encapsulation => "encapsulation",
            Self::Tags => "tags",
            Self::Empty => "empty",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_their_order() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.as_str());
        }
    }
}
