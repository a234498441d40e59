//! A message on the collector's port: any bytes.

#![no_main]

use batch::{DecodedBatch, Interface, MAX_PAYLOAD};
use libfuzzer_sys::fuzz_target;
use packet::Records;

fuzz_target!(|message: &[u8]| {
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
});
