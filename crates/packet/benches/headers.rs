//! The cost of parsing a packet's headers, compared with that of etherparse's whole-packet parser, which handles fewer
//! link types and does not read TCP options.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use etherparse::LaxSlicedPacket;
use packet::LinkType;
use packet::headers::{Headers, address_family};

const MACS: &str = "020000000001 020000000002";
const IPV4: &str = "0800 4500 0034 0001 4000 40 06 0000 0a000001 0a000002";
const IPV6: &str =
    "86dd 60000000 0020 06 40 20010db8000000000000000000000001 20010db8000000000000000000000002";
const VLAN: &str = "8100 0001";
/// ACK with a timestamp option.
const TCP: &str = "9c40 0050 000003e8 000007d0 8010 0200 0000 0000 0101080a 00000001 00000002";

/// Bytes that were captured of the truncated packet: up to the middle of its TCP options.
const SNAPLEN: usize = 60;

/// The packet's length on the wire.
const WIRE_LEN: u32 = 1514;

fn bytes(layers: &[&str]) -> Vec<u8> {
    let digits: Vec<_> = layers.concat().chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn parse(c: &mut Criterion) {
    let truncated = bytes(&[MACS, IPV4, TCP])[..SNAPLEN].to_vec();
    for (name, packet) in [
        ("ethernet ipv4 tcp", bytes(&[MACS, IPV4, TCP])),
        ("vlan ipv4 tcp", bytes(&[MACS, VLAN, IPV4, TCP])),
        ("ethernet ipv6 tcp", bytes(&[MACS, IPV6, TCP])),
        ("truncated ipv4 tcp", truncated),
    ] {
        let mut group = c.benchmark_group(name);
        group.bench_function("Headers::parse", |b| {
            b.iter(|| Headers::parse(LinkType::ETHERNET, black_box(&packet), WIRE_LEN));
        });
        group.bench_function("address_family", |b| {
            b.iter(|| address_family(LinkType::ETHERNET, black_box(&packet)));
        });
        group.bench_function("etherparse::LaxSlicedPacket", |b| {
            b.iter(|| LaxSlicedPacket::from_ethernet(black_box(&packet)).is_ok());
        });
        group.finish();
    }
}

criterion_group!(benches, parse);
criterion_main!(benches);
