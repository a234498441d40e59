use proptest::prelude::*;

use super::*;

/// Decodes a datagram in hexadecimal, and checks the packet's encapsulation, original length and bytes.
fn check(datagram: &str, expected: Result<(Encapsulation, Option<u32>, &[u8]), Error>) {
    let bytes = hex(datagram);
    let packet = decode(&bytes).map(|message| match message {
        TzspMessage::Packet(packet) => (packet.encapsulation, packet.original_len(), packet.bytes),
        other => panic!("{datagram}: {other:?}"),
    });
    assert_eq!(packet, expected, "{datagram}");
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn packets_are_decoded() {
    use Encapsulation::{Avs, Ethernet, Ieee80211, Prism};
    // As RouterOS sends it, then the same with type 1.
    check("01 00 00 01 01 aa bb", Ok((Ethernet, None, &[0xaa, 0xbb])));
    check("01 01 00 01 01 aa bb", Ok((Ethernet, None, &[0xaa, 0xbb])));
    check("01 00 00 12 01 aa", Ok((Ieee80211, None, &[0xaa])));
    check("01 00 00 77 01 aa", Ok((Prism, None, &[0xaa])));
    check("01 00 00 7f 01 aa", Ok((Avs, None, &[0xaa])));
    // PAD has no length field, RSSI and unknown tags have one.
    check("01 00 00 01 00 00 0a 01 c4 00 f0 02 01 01 01 aa", Ok((Ethernet, None, &[0xaa])));
}

#[test]
fn original_length_below_the_received_one_is_ignored() {
    let ethernet = |len| Ok((Encapsulation::Ethernet, len, &[0xaa, 0xbb][..]));
    check("01 00 00 01 29 02 05 ea 01 aa bb", ethernet(Some(1514)));
    check("01 00 00 01 29 02 00 02 01 aa bb", ethernet(Some(2)));
    check("01 00 00 01 29 02 00 01 01 aa bb", ethernet(None));
    check("01 00 00 01 29 04 00 00 05 ea 01 aa bb", ethernet(None));
}

#[test]
fn wire_length_comes_from_tag_datagram_or_ip_header() {
    let check = |tag: &str, frame: &[u8], missing, expected| {
        let datagram = [hex(&format!("01 00 00 01 {tag} 01")), frame.to_vec()].concat();
        let Ok(TzspMessage::Packet(packet)) = decode(&datagram) else { panic!("no packet") };
        assert_eq!(packet.wire_len(missing), expected, "{tag} {frame:02x?} {missing}");
    };
    let arp = [&[0; 12][..], &[0x08, 0x06], &[0; 46]].concat();
    let ip = |len: [u8; 2]| [&[0; 12][..], &[0x08, 0x00, 0x45, 0], &len, &[0; 16]].concat();
    check("", &arp, 0, 60);
    check("", &arp, 40, 100);
    // Truncated by the router; padded by Ethernet; captured before segmentation offload.
    check("", &ip([0x05, 0xdc]), 0, 1514);
    check("", &[ip([0, 20]), vec![0; 26]].concat(), 0, 60);
    check("", &ip([0, 0]), 0, 34);
    // The missing bytes include a frame check sequence, which the IP header does not count. The tag has precedence.
    check("", &ip([0x05, 0xdc]), 1484, 1518);
    check("29 02 05 ee", &ip([0x05, 0xdc]), 1400, 1518);
}

#[test]
fn datagrams_without_a_packet_are_errors() {
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
fn keepalives_and_port_openers_are_not_errors() {
    // Senders put different bytes after the type. They are ignored.
    for tail in ["", " 00 00", " 00 01 01", " ff ff 0a ff"] {
        let short = if tail.is_empty() { " 00 00" } else { tail };
        assert_eq!(decode(&hex(&format!("01 04{short}"))), Ok(TzspMessage::Keepalive));
        assert_eq!(decode(&hex(&format!("01 05{short}"))), Ok(TzspMessage::PortOpener));
    }
}

#[test]
fn tzsp_in_tzsp_is_decoded_once() {
    let mut inner = Vec::new();
    encode(&TzspHeader::ROUTER_OS, b"frame", &mut inner);
    let mut outer = Vec::new();
    encode(&TzspHeader::ROUTER_OS, &inner, &mut outer);
    let Ok(TzspMessage::Packet(packet)) = decode(&outer) else { panic!("no packet") };
    assert_eq!(packet.bytes, inner);
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
    fn encoded_datagrams_are_decoded(
        transmit in any::<bool>(),
        encapsulation in encapsulation(),
        tags in prop::collection::vec(tag(), 0..8),
        bytes in prop::collection::vec(any::<u8>(), 1..2000),
    ) {
        let packet_type = if transmit { PacketType::Transmit } else { PacketType::Received };
        let tags: Vec<_> = tags.iter().map(|(number, value)| Tag { number: *number, value }).collect();
        let mut datagram = Vec::new();
        encode(&TzspHeader { packet_type, encapsulation, tags: &tags }, &bytes, &mut datagram);

        let decoded = decode(&datagram);
        let Ok(TzspMessage::Packet(packet)) = decoded else { return Err(TestCaseError::fail(format!("{decoded:?}"))) };
        prop_assert_eq!(packet.packet_type, packet_type);
        prop_assert_eq!(packet.encapsulation, encapsulation);
        prop_assert_eq!(packet.bytes, &bytes);
        let wanted: Vec<_> = tags.into_iter().filter(|tag| tag.number != Tag::PAD).collect();
        prop_assert_eq!(packet.tags.collect::<Vec<_>>(), wanted);
        // The head of a datagram decodes to the head of its packet, or ends within the tags.
        for len in HEADER_LEN..datagram.len() {
            match decode(&datagram[..len]) {
                Ok(TzspMessage::Packet(head)) => prop_assert!(bytes.starts_with(head.bytes)),
                Err(Error::Tags { at, needed, had }) => prop_assert!(at + had == len && needed > had),
                other => prop_assert_eq!(other, Err(Error::Empty)),
            }
        }
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(head in prop::option::of(0..=5u8), bytes in any::<Vec<u8>>()) {
        // Few random bytes have a valid version. So half of the cases begin with a valid header.
        let datagram = head.map_or_else(|| bytes.clone(), |kind| [&[1, kind, 0, 1][..], &bytes].concat());
        match decode(&datagram) {
            Ok(TzspMessage::Packet(packet)) => {
                prop_assert!(datagram.ends_with(packet.bytes));
                prop_assert!(packet.wire_len(0) as usize >= packet.bytes.len());
            }
            Ok(_) => prop_assert!(matches!(datagram[1], KEEPALIVE | PORT_OPENER)),
            Err(_) => {}
        }
    }
}
