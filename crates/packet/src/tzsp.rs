//! TZSP, the TaZmen Sniffer Protocol: packets that a router or a wireless sensor saw, sent on over UDP.
//!
//! There is no standard; this follows the format's public description (<https://en.wikipedia.org/wiki/TZSP>) and
//! Wireshark's `packet-tzsp.c`, and what `RouterOS` sends. A datagram is
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | type: 0 received packet, 1 packet for transmit, 3 configuration, 4 keepalive, 5 port opener |
//! | 2 | 2 | encapsulation of the packet, big-endian |
//! | 4 | | tags, the last of them END ([`Tag`]) |
//! | | the rest | the packet |
//!
//! `RouterOS` sends `01 00 00 01 01` and an Ethernet frame: no time, no number, no length. So a packet's time is that of
//! its arrival. Where a sensor does send a timestamp, it is that of a clock which nobody has set: it is not used.
//!
//! A packet that is itself TZSP comes out as it is. Who wants to see what is in it looks for himself: a router that
//! sniffs its own stream would otherwise be counted without end.

mod encapsulation;
mod encode;
mod tag;

pub use encapsulation::Encapsulation;
pub use encode::{Header, encode};
pub use tag::{Tag, Tags};

use crate::Headers;

/// The port that TZSP has by custom; nobody has registered it.
pub const PORT: u16 = 37008;

/// Bytes before the tags.
pub const HEADER_LEN: usize = 4;

/// The only version there has been.
const VERSION: u8 = 1;

/// The types that carry neither tags nor a packet.
const KEEPALIVE: u8 = 4;
const PORT_OPENER: u8 = 5;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A packet.
    Packet(Packet<'a>),
    /// The sender lives, and has nothing to say.
    Keepalive,
    /// Opens the way back through a firewall.
    PortOpener,
}

/// A packet that travelled in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Which way it went where it was seen.
    pub direction: Direction,
    /// What its first bytes are.
    pub encapsulation: Encapsulation,
    /// What is said of it.
    pub tags: Tags<'a>,
    /// The packet, never empty.
    pub bytes: &'a [u8],
}

impl Packet<'_> {
    /// Bytes that the packet had where it was seen, of which `missing` ones are known to have been lost on the way here.
    ///
    /// The sender's word counts ([`Packet::original_len`]). Without it, the packet had at least what arrived and what was
    /// lost; and if its IP header says that it had more, then the router cut it before it sent it, and the IP header knows.
    #[must_use]
    pub fn wire_len(&self, missing: u32) -> u32 {
        self.original_len().unwrap_or_else(|| {
            let here = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).saturating_add(missing);
            // A frame without an end, so that it does not bound what the header says.
            let headers = Headers::parse(self.encapsulation.link_type(), self.bytes, u32::MAX);
            let end = headers.ip.map(|ip| ip.end).filter(|&end| end < u32::MAX);
            end.map_or(here, |end| end.max(here))
        })
    }

    /// Bytes that the packet had where it was seen, if the sender says so in its tag [`Tag::ORIGINAL_LEN`] and says
    /// something possible: no packet was shorter than what arrived of it.
    #[must_use]
    pub fn original_len(&self) -> Option<u32> {
        let mut tags = self.tags;
        let tag = tags.find(|tag| tag.number == Tag::ORIGINAL_LEN)?;
        let len = u16::from_be_bytes(tag.value.try_into().ok()?);
        (usize::from(len) >= self.bytes.len()).then_some(u32::from(len))
    }
}

/// Which way a packet went where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Type 0.
    Received,
    /// Type 1. A sensor that is asked to send such a packet would; `RouterOS` has been seen to label sniffed ones so.
    Transmit,
}

impl Direction {
    const fn number(self) -> u8 {
        match self {
            Self::Received => 0,
            Self::Transmit => 1,
        }
    }
}

/// Takes a datagram apart: `datagram` is a UDP payload, whole or the head of one.
///
/// # Errors
/// It is not TZSP, or not a packet.
#[inline]
pub fn decode(datagram: &[u8]) -> Result<Message<'_>, Error> {
    let Some((&[version, kind, high, low], rest)) = datagram.split_first_chunk::<HEADER_LEN>() else {
        return Err(Error::Header { had: datagram.len() });
    };
    if version != VERSION {
        return Err(Error::Version { version });
    }
    let direction = match kind {
        0 => Direction::Received,
        1 => Direction::Transmit,
        KEEPALIVE => return Ok(Message::Keepalive),
        PORT_OPENER => return Ok(Message::PortOpener),
        kind => return Err(Error::Type { kind }),
    };
    let number = u16::from_be_bytes([high, low]);
    let encapsulation = Encapsulation::from_number(number).ok_or(Error::Encapsulation { number })?;
    let (tags, bytes) = Tags::split_from(rest)?;
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    Ok(Message::Packet(Packet { direction, encapsulation, tags, bytes }))
}

/// Why a datagram gives no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the header has.
    #[error("TZSP's header needs {HEADER_LEN} bytes, the datagram has {had}")]
    Header {
        /// Bytes of the datagram.
        had: usize,
    },
    /// A version that there never was: most likely something else than TZSP.
    #[error("TZSP version {version} is unknown")]
    Version {
        /// What stands in its place.
        version: u8,
    },
    /// A type that carries no packet: configuration, or one that is not known.
    #[error("TZSP type {kind} carries no packet")]
    Type {
        /// What stands in its place.
        kind: u8,
    },
    /// A packet whose first bytes nobody can interpret.
    #[error("TZSP encapsulation {number} is unknown")]
    Encapsulation {
        /// What stands in its place.
        number: u16,
    },
    /// The datagram ends before the END tag, be it inside a tag or between two.
    #[error("the TZSP tag at offset {at} needs {needed} bytes, {had} are left")]
    Tags {
        /// Where the tag begins in the datagram.
        at: usize,
        /// Bytes it takes, as far as it can be told.
        needed: usize,
        /// Bytes there were.
        had: usize,
    },
    /// The tags end, and nothing follows.
    #[error("TZSP's tags are followed by no packet")]
    Empty,
}

impl Error {
    /// What it is counted under.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Header { .. } => Reason::Header,
            Self::Version { .. } => Reason::Version,
            Self::Type { .. } => Reason::Type,
            Self::Encapsulation { .. } => Reason::Encapsulation,
            Self::Tags { .. } => Reason::Tags,
            Self::Empty => Reason::Empty,
        }
    }
}

/// An [`Error`] without its particulars: what datagrams are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// [`Error::Header`].
    Header,
    /// [`Error::Version`].
    Version,
    /// [`Error::Type`].
    Type,
    /// [`Error::Encapsulation`].
    Encapsulation,
    /// [`Error::Tags`].
    Tags,
    /// [`Error::Empty`].
    Empty,
}

impl Reason {
    /// All there are, in the order of their numbers (`reason as usize`).
    pub const ALL: [Self; 6] =
        [Self::Header, Self::Version, Self::Type, Self::Encapsulation, Self::Tags, Self::Empty];

    /// The value of a metric's label `reason`. It does not change between versions.
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
    use proptest::prelude::*;

    use super::*;

    /// What a datagram, in hexadecimal, is taken for.
    fn check(datagram: &str, expected: Result<(Encapsulation, Option<u32>, &[u8]), Error>) {
        let bytes = hex(datagram);
        let packet = decode(&bytes).map(|message| match message {
            Message::Packet(packet) => (packet.encapsulation, packet.original_len(), packet.bytes),
            other => panic!("{datagram}: {other:?}"),
        });
        assert_eq!(packet, expected, "{datagram}");
    }

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn packets_of_all_shapes() {
        use Encapsulation::{Avs, Ethernet, Ieee80211, Prism};
        // RouterOS, then the same as type 1.
        check("01 00 00 01 01 aa bb", Ok((Ethernet, None, &[0xaa, 0xbb])));
        check("01 01 00 01 01 aa bb", Ok((Ethernet, None, &[0xaa, 0xbb])));
        check("01 00 00 12 01 aa", Ok((Ieee80211, None, &[0xaa])));
        check("01 00 00 77 01 aa", Ok((Prism, None, &[0xaa])));
        check("01 00 00 7f 01 aa", Ok((Avs, None, &[0xaa])));
        // PAD has no length, RSSI and a tag that nobody knows have.
        check("01 00 00 01 00 00 0a 01 c4 00 f0 02 01 01 01 aa", Ok((Ethernet, None, &[0xaa])));
    }

    #[test]
    fn the_original_length_is_believed_where_it_is_possible() {
        let ethernet = |len| Ok((Encapsulation::Ethernet, len, &[0xaa, 0xbb][..]));
        check("01 00 00 01 29 02 05 ea 01 aa bb", ethernet(Some(1514)));
        check("01 00 00 01 29 02 00 02 01 aa bb", ethernet(Some(2)));
        check("01 00 00 01 29 02 00 01 01 aa bb", ethernet(None));
        check("01 00 00 01 29 04 00 00 05 ea 01 aa bb", ethernet(None));
    }

    #[test]
    fn a_packet_was_as_long_as_the_best_witness_says() {
        let check = |tag: &str, frame: &[u8], missing, expected| {
            let datagram = [hex(&format!("01 00 00 01 {tag} 01")), frame.to_vec()].concat();
            let Ok(Message::Packet(packet)) = decode(&datagram) else { panic!("no packet") };
            assert_eq!(packet.wire_len(missing), expected, "{tag} {frame:02x?} {missing}");
        };
        let arp = [&[0; 12][..], &[0x08, 0x06], &[0; 46]].concat();
        let ip = |len: [u8; 2]| [&[0; 12][..], &[0x08, 0x00, 0x45, 0], &len, &[0; 16]].concat();
        check("", &arp, 0, 60);
        check("", &arp, 40, 100);
        // Cut by the router; padded by Ethernet; not yet cut into segments.
        check("", &ip([0x05, 0xdc]), 0, 1514);
        check("", &[ip([0, 20]), vec![0; 26]].concat(), 0, 60);
        check("", &ip([0, 0]), 0, 34);
        // A check sequence was lost with the rest: the datagram's length knows of it, IP does not. And the tag knows best.
        check("", &ip([0x05, 0xdc]), 1484, 1518);
        check("29 02 05 ee", &ip([0x05, 0xdc]), 1400, 1518);
    }

    #[test]
    fn what_carries_no_packet_says_why() {
        check("", Err(Error::Header { had: 0 }));
        check("01 00 00", Err(Error::Header { had: 3 }));
        check("02 00 00 01 01 aa", Err(Error::Version { version: 2 }));
        check("01 03 00 01 01 aa", Err(Error::Type { kind: 3 }));
        check("01 00 00 02 01 aa", Err(Error::Encapsulation { number: 2 }));
        check("01 00 00 01", Err(Error::Tags { at: 4, needed: 1, had: 0 }));
        check("01 00 00 01 00 0a", Err(Error::Tags { at: 5, needed: 2, had: 1 }));
        check("01 00 00 01 00 0a 02 c4", Err(Error::Tags { at: 5, needed: 4, had: 3 }));
        check("01 00 00 01 0a 01 c4", Err(Error::Tags { at: 7, needed: 1, had: 0 }));
        check("01 00 00 01 01", Err(Error::Empty));
    }

    #[test]
    fn signs_of_life_are_no_errors() {
        // Senders differ in what they put behind the type; none of it matters.
        for tail in ["", " 00 00", " 00 01 01", " ff ff 0a ff"] {
            let short = if tail.is_empty() { " 00 00" } else { tail };
            assert_eq!(decode(&hex(&format!("01 04{short}"))), Ok(Message::Keepalive));
            assert_eq!(decode(&hex(&format!("01 05{short}"))), Ok(Message::PortOpener));
        }
    }

    #[test]
    fn tzsp_in_tzsp_is_unpacked_once() {
        let mut inner = Vec::new();
        encode(&Header::ROUTER_OS, b"frame", &mut inner);
        let mut outer = Vec::new();
        encode(&Header::ROUTER_OS, &inner, &mut outer);
        let Ok(Message::Packet(packet)) = decode(&outer) else { panic!("no packet") };
        assert_eq!(packet.bytes, inner);
    }

    #[test]
    fn reasons_are_numbered_in_their_order() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number, "{}", reason.as_str());
        }
    }

    fn tag() -> impl Strategy<Value = (u8, Vec<u8>)> {
        prop_oneof![
            Just((Tag::PAD, Vec::new())),
            (2..=u8::MAX, prop::collection::vec(any::<u8>(), 0..=255)),
            (Just(Tag::ORIGINAL_LEN), prop::collection::vec(any::<u8>(), 2)),
        ]
    }

    fn encapsulation() -> impl Strategy<Value = Encapsulation> {
        prop::sample::select(Encapsulation::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            transmit in any::<bool>(),
            encapsulation in encapsulation(),
            tags in prop::collection::vec(tag(), 0..8),
            bytes in prop::collection::vec(any::<u8>(), 1..2000),
        ) {
            let direction = if transmit { Direction::Transmit } else { Direction::Received };
            let tags: Vec<_> = tags.iter().map(|(number, value)| Tag { number: *number, value }).collect();
            let mut datagram = Vec::new();
            encode(&Header { direction, encapsulation, tags: &tags }, &bytes, &mut datagram);

            let decoded = decode(&datagram);
            let Ok(Message::Packet(packet)) = decoded else { return Err(TestCaseError::fail(format!("{decoded:?}"))) };
            prop_assert_eq!(packet.direction, direction);
            prop_assert_eq!(packet.encapsulation, encapsulation);
            prop_assert_eq!(packet.bytes, &bytes);
            let wanted: Vec<_> = tags.into_iter().filter(|tag| tag.number != Tag::PAD).collect();
            prop_assert_eq!(packet.tags.collect::<Vec<_>>(), wanted);
            // A head of it is either the head of the packet, or says that the tags don't end.
            for len in HEADER_LEN..datagram.len() {
                match decode(&datagram[..len]) {
                    Ok(Message::Packet(head)) => prop_assert!(bytes.starts_with(head.bytes)),
                    Err(Error::Tags { at, needed, had }) => prop_assert!(at + had == len && needed > had),
                    other => prop_assert_eq!(other, Err(Error::Empty)),
                }
            }
        }

        #[test]
        fn any_bytes_are_safe(head in prop::option::of(0..=5u8), bytes in any::<Vec<u8>>()) {
            // Most arbitrary bytes end at the version: half of the cases are helped past it.
            let datagram = head.map_or_else(|| bytes.clone(), |kind| [&[1, kind, 0, 1][..], &bytes].concat());
            match decode(&datagram) {
                Ok(Message::Packet(packet)) => {
                    prop_assert!(datagram.ends_with(packet.bytes));
                    prop_assert!(packet.wire_len(0) as usize >= packet.bytes.len());
                }
                Ok(_) => prop_assert!(matches!(datagram[1], KEEPALIVE | PORT_OPENER)),
                Err(error) => prop_assert!(Reason::ALL.contains(&error.reason())),
            }
        }
    }
}
