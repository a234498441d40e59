//! The observer `streams`: a segment, and a scrape.
//!
//! Headers are parsed beforehand. Segments of known streams are in random order, so that nearly every one misses the
//! caches. Real traffic is never that bad.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use observe::streams::Streams;
use observe::{Exposition, ObservedPacket, OriginId, Origins, Scope, StreamsConfig};
use packet::headers::{AddressFamily, Headers, Ip, Tcp, TcpFlags, Transport};
use packet::{Origin, Timestamp};
use parking_lot::Mutex;

const HERE: OriginId = OriginId(0);

/// A connection to one of a few hundred servers.
#[derive(Clone, Copy)]
struct Connection(u32);

impl Connection {
    fn headers(self, back: bool, flags: u8, seq: u32, ack: u32, len: u32) -> Headers {
        let Self(number) = self;
        let [_, a, b, c] = number.to_be_bytes();
        let client = (IpAddr::V4(Ipv4Addr::new(10, a, b, c)), 1024 + (number % 60_000) as u16);
        let server = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, (number % 200) as u8)), 443);
        let ((src, src_port), (dst, dst_port)) = if back { (server, client) } else { (client, server) };
        let tcp = Tcp {
            src_port,
            dst_port,
            seq,
            ack,
            flags: TcpFlags(flags),
            window: 1000,
            payload_len: len,
            window_scale: None,
            mptcp: 0,
        };
        let ip = Ip {
            src,
            dst,
            protocol: 6,
            total_len: 40 + len,
            dont_fragment: true,
            fragment: false,
            first_fragment: true,
            payload_at: 34,
            end: 54 + len,
        };
        Headers { family: AddressFamily::IPv4, ip: Some(ip), transport: Transport::Tcp(tcp), interface: None }
    }
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + nanos)
}

fn observed(time: Timestamp, headers: Headers) -> ObservedPacket<'static> {
    ObservedPacket { time, wire_len: 1000, bytes: &[], headers }
}

fn observe(streams: &mut Streams, time: Timestamp, headers: &Headers) {
    black_box(streams.observe(HERE, &observed(time, *headers)));
}

/// Connections with a request and an answer, both acknowledged: two streams each.
fn filled(connections: u32) -> Streams {
    let mut streams = Streams::new(StreamsConfig::default());
    for number in 0..connections {
        let connection = Connection(number);
        let time = u64::from(number) * 1_000;
        observe(&mut streams, at(time), &connection.headers(false, 0x10, 1000, 5000, 100));
        observe(&mut streams, at(time + 500), &connection.headers(true, 0x10, 5000, 1100, 100));
    }
    streams
}

/// Visits all numbers up to `mask`, which is a power of two less one, in an order that defeats the caches.
fn shuffled(index: u64, mask: u64) -> u32 {
    (index.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(5).wrapping_add(index) & mask)
        as u32
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("streams");
    // 131 072 streams rather than 100 000: a power of two.
    let connections = 1u32 << 16;
    for (name, burst) in [("known segment, random order", 1), ("known segment, eight in a row", 8)] {
        group.bench_function(name, |b| {
            let mut streams = filled(connections);
            let mut state = vec![(1100u32, 5100u32); connections as usize];
            let mut index = 0u64;
            b.iter_custom(|iterations| {
                // The packets are made beforehand, in chunks that stay in the cache.
                let mut spent = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let chunk = left.min(512);
                    let headers: Vec<Headers> = (0..chunk)
                        .map(|_| {
                            index += 1;
                            let number = shuffled(index / burst, u64::from(connections) - 1);
                            let (low, high) = &mut state[number as usize];
                            // Data one way, data back that acknowledges it.
                            let back = index & 1 == 1;
                            let (seq, ack) = if back { (*high, *low) } else { (*low, *high) };
                            *(if back { high } else { low }) += 100;
                            Connection(number).headers(back, 0x10, seq, ack, 100)
                        })
                        .collect();
                    let time = at(70_000_000 + index * 300);
                    let packets: Vec<_> = headers.iter().map(|headers| observed(time, *headers)).collect();
                    let begin = Instant::now();
                    for packet in &packets {
                        black_box(streams.observe(HERE, packet));
                    }
                    spent += begin.elapsed();
                    left -= chunk;
                }
                spent
            });
            assert_eq!(streams.len(), 2 * connections as usize);
        });
    }
    group.bench_function("first segment of a stream", |b| {
        b.iter_batched_ref(
            || {
                let streams = filled(connections / 2);
                let headers: Vec<Headers> =
                    (0..20_000).map(|n| Connection(1_000_000 + n).headers(false, 0x02, 1, 0, 0)).collect();
                (streams, headers)
            },
            |(streams, headers)| {
                for headers in headers {
                    observe(streams, at(70_000_000), headers);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// The slowest packet while a hundred thousand streams expire in the same second. It is the maximum of some ten thousand
/// packets, so it includes whatever else the machine does.
fn expiry(c: &mut Criterion) {
    c.bench_function("streams/slowest packet while 100 000 streams expire", |b| {
        b.iter_custom(|iterations| {
            let mut slowest_of_all = Duration::ZERO;
            for _ in 0..iterations {
                let mut streams = filled(50_000);
                let mut slowest = Duration::ZERO;
                let mut packet = 0;
                while streams.len() > 40_000 {
                    let headers = Connection(2_000_000 + packet % 100).headers(false, 0x10, 1, 1, 10);
                    let begin = Instant::now();
                    observe(&mut streams, at(600_000_000_000 + u64::from(packet) * 1_000), &headers);
                    slowest = slowest.max(begin.elapsed());
                    packet += 1;
                }
                let begin = Instant::now();
                streams.advance(HERE, at(601_000_000_000));
                slowest_of_all += slowest.max(begin.elapsed());
            }
            slowest_of_all
        });
    });
}

fn scrape(c: &mut Criterion) {
    let mut origins = Origins::new(Scope::SourceAndDevice);
    origins.register(&Origin { source: "edge".into(), device: "eth0".into(), listen_port: None });
    for connections in [5_000, 50_000] {
        let streams = Mutex::new(filled(connections));
        c.bench_function(&format!("streams/scrape of 10 000 of {} streams", connections * 2), |b| {
            b.iter(|| {
                let mut out = Exposition::new();
                Streams::write_table(&streams, &origins, &mut out);
                out.as_str().len()
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4));
    targets = segments, expiry, scrape
}
criterion_main!(benches);
