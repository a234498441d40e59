//! A message on the collector's port: any bytes, from anybody who can reach it.

#![no_main]

use batch::header::MAX_PAYLOAD;
use batch::{DecodedBatch, Header, Interface};
use libfuzzer_sys::fuzz_target;
use packet::Records;

fuzz_target!(|message: &[u8]| {
    let header = Header::decode(message);
    let received = match DecodedBatch::decode(message) {
        Ok(received) => received,
        Err(_) => return,
    };
    // What is a batch through and through has a sound header, as many records as that says, and nothing behind them.
    assert_eq!(header.as_ref().ok(), Some(received.header()));
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
