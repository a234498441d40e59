//! Encoding of datagrams, for tests and demonstrations.

use super::{Encapsulation, PacketType, Tag, VERSION};

/// What precedes the packet in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TzspHeader<'a> {
    /// The datagram's type.
    pub packet_type: PacketType,
    /// The format of the packet's first header.
    pub encapsulation: Encapsulation,
    /// Tags, without END, which is added.
    pub tags: &'a [Tag<'a>],
}

impl TzspHeader<'_> {
    /// The header that `RouterOS` sends before an Ethernet frame: `01 00 00 01 01`.
    pub const ROUTER_OS: Self =
        Self { packet_type: PacketType::Received, encapsulation: Encapsulation::Ethernet, tags: &[] };
}

/// Appends the datagram that carries `packet` to `datagram`. A tag's value is cut at 255 bytes, as its length field has
/// one byte.
pub fn encode(header: &TzspHeader<'_>, packet: &[u8], datagram: &mut Vec<u8>) {
    datagram.extend([VERSION, header.packet_type.number()]);
    datagram.extend(header.encapsulation.number().to_be_bytes());
    for tag in header.tags {
        datagram.push(tag.number);
        if tag.number > Tag::END {
            let value = tag.value.get(..usize::from(u8::MAX)).unwrap_or(tag.value);
            datagram.push(value.len() as u8);
            datagram.extend_from_slice(value);
        }
    }
    datagram.push(Tag::END);
    datagram.extend_from_slice(packet);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_os_header_is_encoded() {
        let mut datagram = Vec::new();
        encode(&TzspHeader::ROUTER_OS, &[0xaa, 0xbb], &mut datagram);
        assert_eq!(datagram, [1, 0, 0, 1, 1, 0xaa, 0xbb]);
    }
}
