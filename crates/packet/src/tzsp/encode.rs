//! Making datagrams: what tests and demonstrations send.

use super::{Direction, Encapsulation, Tag, VERSION};

/// What stands before a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which way the packet went.
    pub direction: Direction,
    /// What its first bytes are.
    pub encapsulation: Encapsulation,
    /// What is said of it. END is not among them, it comes by itself.
    pub tags: &'a [Tag<'a>],
}

impl Header<'_> {
    /// As `RouterOS` sends it: `01 00 00 01 01`, before an Ethernet frame.
    pub const ROUTER_OS: Self =
        Self { direction: Direction::Received, encapsulation: Encapsulation::Ethernet, tags: &[] };
}

/// Appends the datagram that carries `packet` to `datagram`. Of a tag's value at most 255 bytes are sent, for its length
/// is one byte.
pub fn encode(header: &Header<'_>, packet: &[u8], datagram: &mut Vec<u8>) {
    datagram.extend([VERSION, header.direction.number()]);
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
    fn router_os() {
        let mut datagram = Vec::new();
        encode(&Header::ROUTER_OS, &[0xaa, 0xbb], &mut datagram);
        assert_eq!(datagram, [1, 0, 0, 1, 1, 0xaa, 0xbb]);
    }
}
