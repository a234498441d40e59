//! A message on the collector's port: any bytes, or a valid batch of which some bytes were changed.

#![no_main]

use batch::{
    BatchLimits, Builder, CloseInfo, Compression, DecodedBatch, Interface, MAX_PAYLOAD, Order, SendInfo,
    Template,
};
use libfuzzer_sys::fuzz_target;
use packet::{LinkType, Origin, Record, Records, Timestamp};
use std::sync::Arc;
use std::time::Duration;

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

// A fuzzer does not find valid compressed payloads. So the first byte decides whether the rest is the message itself, or
// a batch of records with the given bytes, compressed, and then changed in up to seven places.
fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else { return };
    let message = match COMPRESSIONS.get(usize::from(kind & 3)) {
        Some(compression) => changed(rest, *compression, kind >> 5),
        None => rest.to_vec(),
    };
    check(&message);
});

/// A valid message with the given number of changes, each of which takes three bytes of the input.
fn changed(input: &[u8], compression: Compression, changes: u8) -> Vec<u8> {
    let (places, records) = input.split_at(input.len().min(3 * usize::from(changes)));
    let mut message = message(records, compression);
    for place in places.chunks_exact(3) {
        let &[high, low, value] = place else { break };
        let at = usize::from(u16::from_be_bytes([high, low])) % message.len();
        message[at] = value;
    }
    message
}

/// A batch of records of up to 64 bytes each.
fn message(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let origin = Origin { source: "fuzz".into(), device: "lo".into(), listen_port: Some(37008) };
    let interface = Interface::new(origin, LinkType::ETHERNET, 64);
    let template = Template::new(Arc::new(interface), Timestamp::from_nanos(1));
    let limits = BatchLimits { bytes: 1 << 16, delay: Duration::from_millis(50) };
    let mut builder = Builder::new(template, limits, Order::AsTheyCame);
    for bytes in bytes.chunks(64) {
        builder.push(&Record { time: Timestamp::from_nanos(2), original: 64, bytes }, || Timestamp::ZERO);
    }
    let mut batch = builder.close(CloseInfo::default(), Vec::new);
    batch.compress(compression);
    batch.into_message(&SendInfo::default())
}

fn check(message: &[u8]) {
    let received = match DecodedBatch::decode(message) {
        Ok(received) => received,
        Err((returned, _)) => return assert_eq!(returned, message),
    };
    // A batch has as many records as its header says, and nothing after them.
    assert!(received.records().len() <= MAX_PAYLOAD);
    let mut records = Records::new(received.records());
    let latest = records.by_ref().map(|record| record.time).max();
    assert!(records.rest().is_empty());
    assert_eq!(Records::new(received.records()).count(), received.header().packets as usize);
    assert_eq!(latest.unwrap_or_default(), received.extent().latest);

    let header = received.header();
    if let Ok(interface) = Interface::decode(received.fields(), header.link_type, header.snaplen) {
        assert_eq!((interface.link_type, interface.snaplen), (header.link_type, header.snaplen));
    }
}
