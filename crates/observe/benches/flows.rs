//! The observer `flows`: a packet of a known flow among a hundred thousand, and a scrape of all flows.
//!
//! Packets are in random order, so that nearly every one belongs to another flow than the one before it and misses the
//! caches. Real traffic is never that bad. Headers are parsed beforehand, and only the addresses change from packet to
//! packet.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use observe::flows::Flows;
use observe::{Exposition, FlowsConfig, ObservedPacket, OriginId, Scope};
use packet::{Headers, LinkType, Origin, Timestamp};
use parking_lot::Mutex;

const FLOWS: u32 = 100_000;

/// More packets than flows, so that the order is not that of the first packets.
const PACKETS: usize = 1 << 18;

/// A packet whose flow can be chosen.
struct Packet {
    bytes: [u8; 20],
    headers: Headers,
}

impl Packet {
    fn new() -> Self {
        let bytes = [0x45, 0, 5, 220, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 198, 51, 100, 1];
        Self { bytes, headers: Headers::parse(LinkType::RAW, &bytes, 1500) }
    }

    fn observe(&mut self, flows: &mut Flows, time: Timestamp, flow: u32) {
        if let Some(ip) = &mut self.headers.ip {
            ip.src = Ipv4Addr::from_bits(0x0a00_0000 + flow).into();
            ip.dst = Ipv4Addr::from_bits(0xc633_6400 + flow % 250).into();
        }
        let Self { bytes, headers } = self;
        flows.observe(OriginId(0), &ObservedPacket { time, wire_len: 1500, bytes, headers: *headers });
    }
}

fn full_table() -> Flows {
    let mut flows = Flows::new(FlowsConfig::default(), Scope::None);
    flows.register(
        OriginId(0),
        &Origin { source: "a".into(), device: "eth0".into(), listen_port: None },
        &[],
    );
    let mut packet = Packet::new();
    (0..FLOWS).for_each(|flow| packet.observe(&mut flows, Timestamp::ZERO, flow));
    flows
}

fn known_flow(c: &mut Criterion) {
    let mut flows = full_table();
    // The upper bits of a linear congruential generator (Numerical Recipes, section 7.1).
    let mut random = 1_u32;
    let order: Vec<_> = (0..PACKETS)
        .map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % FLOWS
        })
        .collect();
    let mut group = c.benchmark_group("flows");
    group.throughput(Throughput::Elements(PACKETS as u64));
    let (mut packet, mut nanos) = (Packet::new(), 0);
    group.bench_function("known, of 100 000", |b| {
        b.iter(|| {
            for &flow in &order {
                nanos += 1000;
                packet.observe(&mut flows, Timestamp::from_nanos(nanos), black_box(flow));
            }
        });
    });
    group.finish();
}

fn scrape(c: &mut Criterion) {
    let flows = Mutex::new(full_table());
    let mut group = c.benchmark_group("flows");
    group.sample_size(20);
    group.bench_function("scrape of 100 000", |b| {
        b.iter(|| {
            let mut out = Exposition::new();
            Flows::write_table(&flows, &mut out);
            out
        });
    });
    group.finish();
}

criterion_group!(benches, known_flow, scrape);
criterion_main!(benches);
