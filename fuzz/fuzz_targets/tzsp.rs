//! An arbitrary datagram on a mirror's port, for every encapsulation; TZSP is encoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packet::decap::{DECAPSULATORS, Payload};
use packet::tzsp::{Packet, TzspHeader, TzspMessage, decode, encode};

fuzz_target!(|datagram: &[u8]| {
    for decapsulator in DECAPSULATORS {
        for missing in [0, 1, u32::MAX] {
            let Ok(Payload::Packet(packet)) = (decapsulator.decode)(datagram, missing) else { continue };
            assert!(!packet.bytes.is_empty() && datagram.len() > packet.bytes.len());
            assert!(packet.wire_len as usize >= packet.bytes.len());
        }
    }

    let Ok(TzspMessage::Packet(packet)) = decode(datagram) else { return };
    assert!(datagram.ends_with(packet.bytes));
    assert!(packet.original_len().is_none_or(|len| len as usize >= packet.bytes.len()));
    // Encoding what was decoded gives an equivalent datagram.
    let tags: Vec<_> = packet.tags.collect();
    let Packet { packet_type, encapsulation, .. } = packet;
    let mut again = Vec::new();
    encode(&TzspHeader { packet_type, encapsulation, tags: &tags }, packet.bytes, &mut again);
    let Ok(TzspMessage::Packet(copy)) = decode(&again) else { panic!("it was a packet") };
    assert_eq!(
        (copy.packet_type, copy.encapsulation, copy.bytes),
        (packet_type, encapsulation, packet.bytes)
    );
    assert!(copy.tags.eq(tags));
});
