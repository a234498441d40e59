//! Decapsulation of TZSP.

use super::payload::{Channel, InnerPacket, Payload, Reason};
use crate::tzsp::{self, Error, PacketType, TzspMessage};

/// Decodes a TZSP datagram. `missing` bytes of it are known to be missing at its end.
#[inline]
pub(super) fn decode(payload: &[u8], missing: u32) -> Result<Payload<'_>, Reason> {
    match tzsp::decode(payload) {
        Ok(TzspMessage::Packet(packet)) => Ok(Payload::Packet(InnerPacket {
            link_type: packet.encapsulation.link_type(),
            wire_len: packet.wire_len(missing),
            bytes: packet.bytes,
            channel: match packet.packet_type {
                PacketType::Received => Channel::Received,
                PacketType::Transmit => Channel::Transmit,
            },
        })),
        Ok(TzspMessage::Keepalive | TzspMessage::PortOpener) => Ok(Payload::Keepalive),
        Err(error) => Err(reason(&error)),
    }
}

const fn reason(error: &Error) -> Reason {
    match error {
        Error::Header { .. } => Reason::Header,
        Error::Version { .. } => Reason::Version,
        Error::Type { .. } => Reason::Type,
        Error::Encapsulation { .. } => Reason::Encapsulation,
        Error::Tags { .. } => Reason::Tags,
        Error::Empty => Reason::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LinkType;

    #[test]
    fn packets_keepalives_and_errors_are_mapped() {
        let packet = |link_type, wire_len, channel| {
            Ok(Payload::Packet(InnerPacket { link_type, wire_len, bytes: &[0xaa, 0xbb], channel }))
        };
        for (payload, missing, expected) in [
            (&[1, 0, 0, 1, 1, 0xaa, 0xbb][..], 0, packet(LinkType::ETHERNET, 2, Channel::Received)),
            (&[1, 1, 0, 1, 1, 0xaa, 0xbb], 0, packet(LinkType::ETHERNET, 2, Channel::Transmit)),
            (&[1, 0, 0, 18, 1, 0xaa, 0xbb], 7, packet(LinkType::IEEE802_11, 9, Channel::Received)),
            (&[1, 4, 0, 0], 0, Ok(Payload::Keepalive)),
            (&[1, 5, 0, 0], 0, Ok(Payload::Keepalive)),
            (&[1, 0, 0], 0, Err(Reason::Header)),
            (&[2, 0, 0, 1, 1, 0xaa], 0, Err(Reason::Version)),
            (&[1, 3, 0, 1, 1, 0xaa], 0, Err(Reason::Type)),
            (&[1, 0, 0, 2, 1, 0xaa], 0, Err(Reason::Encapsulation)),
            (&[1, 0, 0, 1], 0, Err(Reason::Tags)),
            (&[1, 0, 0, 1, 1], 0, Err(Reason::Empty)),
        ] {
            assert_eq!(decode(payload, missing), expected, "{payload:02x?}");
        }
    }
}
