//! A datagram on a TZSP port: any bytes, from anybody who can reach it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::tzsp::{Header, Message, Packet, decode, encode};

fuzz_target!(|datagram: &[u8]| {
    let Ok(Message::Packet(packet)) = decode(datagram) else { return };
    assert!(!packet.bytes.is_empty() && datagram.ends_with(packet.bytes));
    for missing in [0, 1, u32::MAX] {
        let _ = packet.wire_len(missing);
    }
    assert!(packet.original_len().is_none_or(|len| len as usize >= packet.bytes.len()));

    // What was decoded can be sent on, and means the same.
    let tags: Vec<_> = packet.tags.collect();
    let Packet { direction, encapsulation, .. } = packet;
    let mut again = Vec::new();
    encode(&Header { direction, encapsulation, tags: &tags }, packet.bytes, &mut again);
    let Ok(Message::Packet(copy)) = decode(&again) else { panic!("it was a packet") };
    assert_eq!((copy.direction, copy.encapsulation, copy.bytes), (direction, encapsulation, packet.bytes));
    assert!(copy.tags.eq(tags));
});
