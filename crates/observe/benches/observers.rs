//! All observers together: batches of TCP segments of a few hundred connections, from the records to the tables.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use observe::{
    FlowsConfig, ObservedBatch, Observers, ObserversConfig, OriginId, PairsConfig, Scope, StreamsConfig,
};
use packet::{LinkType, Origin, Record, Timestamp};

/// Packets per batch: about 256 KiB of records.
const PACKETS: u32 = 1024;

const BATCHES: u32 = 16;

/// An Ethernet frame with a TCP segment, of which the first 200 bytes were captured.
fn frame(number: u32, seq: u32) -> Vec<u8> {
    let [_, _, high, low] = (number % 300).to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 5, 220, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, high, low, 192, 0, 2, low]);
    frame.extend([0x80, low, 1, 187]);
    frame.extend(seq.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0x80, 0x10, 3, 232, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    frame.resize(200, 0);
    frame
}

fn batches() -> Vec<Vec<u8>> {
    let mut numbers = 0..;
    let mut batch = || {
        let mut records = Vec::new();
        for number in numbers.by_ref().take(PACKETS as usize) {
            let bytes = &frame(number, 1448 * (number / 300));
            let time = Timestamp::from_nanos(1_700_000_000_000_000_000 + u64::from(number) * 1_000);
            Record { time, original: 1514, bytes }.append_to(&mut records);
        }
        records
    };
    (0..BATCHES).map(|_| batch()).collect()
}

fn observe(observers: &Arc<Observers>, origin: OriginId, batches: &[Vec<u8>]) {
    for records in batches {
        observers.observe(&ObservedBatch {
            origin,
            link_type: LinkType::ETHERNET,
            packets: PACKETS,
            records: black_box(records),
            watermark: Timestamp::ZERO,
        });
    }
}

fn walk(c: &mut Criterion) {
    let all = ObserversConfig {
        scope: Scope::None,
        sizes: true,
        flows: Some(FlowsConfig::default()),
        streams: Some(StreamsConfig::default()),
        pairs: Some(PairsConfig::default()),
    };
    let sizes = ObserversConfig { sizes: true, ..ObserversConfig::default() };
    let batches = batches();
    let mut group = c.benchmark_group("observers");
    group.throughput(Throughput::Elements(u64::from(PACKETS * BATCHES)));
    for (name, config) in [("sizes", sizes), ("all", all)] {
        let observers = Observers::new(config);
        let origin = Origin { source: "edge".into(), device: "eth0".into(), listen_port: None };
        let origin = observers.register(&origin, &[]);
        group.bench_function(name, |b| b.iter(|| observe(&observers, origin, &batches)));
    }
    group.finish();
}

criterion_group!(benches, walk);
criterion_main!(benches);
