//! The fields of a batch's header: names, descriptions and filters that a capture claims.

#![no_main]

use std::sync::Arc;

use batch::{BatchLimits, Builder, CloseInfo, DecodedBatch, Interface, Order, SendInfo, Template};
use libfuzzer_sys::fuzz_target;
use packet::{LinkType, Timestamp};
use std::time::Duration;

// What a collector accepts can be encoded, and decoded again.
fuzz_target!(|fields: &[u8]| {
    let Ok(interface) = Interface::decode(fields, LinkType::ETHERNET, 96) else { return };
    let template = Template::new(Arc::new(interface.clone()), Timestamp::from_nanos(1));
    let limits = BatchLimits { bytes: 512, delay: Duration::from_millis(50) };
    let batch = Builder::new(template, limits, Order::AsTheyCame).close(CloseInfo::default(), Vec::new);
    let message = batch.into_message(&SendInfo::default());
    let batch = DecodedBatch::decode(message.as_slice()).expect("a valid batch");
    assert_eq!(Interface::decode(batch.fields(), LinkType::ETHERNET, 96).as_ref(), Ok(&interface));
});
