//! What a batch costs per packet: to fill, to compress, to decode.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use batch::{
    Batch, BatchLimits, Builder, CloseInfo, Compression, DecodedBatch, Interface, Order, SendInfo, Template,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use packet::{LinkType, Origin, Record, Timestamp};

/// The default `BATCH_BYTES`.
const BYTES: usize = 256 << 10;

/// Sizes of captured packets: small ones, and the Internet mix.
const SHAPES: [(&str, &[usize]); 2] = [("small", &[64, 96, 128]), ("mix", &[64, 576, 1500])];

fn builder() -> Builder {
    let origin = Origin { source: "host".into(), device: "eth0".into(), listen_port: None };
    let interface = Interface::new(origin, LinkType::ETHERNET, 262_144);
    let limits = BatchLimits { bytes: BYTES, delay: Duration::from_millis(50) };
    Builder::new(Template::new(Arc::new(interface), Timestamp::ZERO), limits, Order::ByTime)
}

fn fill(builder: &mut Builder, sizes: &[usize], packet: &[u8]) {
    for (nanos, &len) in sizes.iter().cycle().enumerate() {
        if builder.is_full_for(len) {
            return;
        }
        let record =
            Record { time: Timestamp::from_nanos(nanos as u64), original: len as u32, bytes: &packet[..len] };
        builder.push(&record, || Timestamp::ZERO);
    }
}

fn close(builder: &mut Builder) -> Batch {
    builder.close(CloseInfo::default(), Vec::new)
}

fn message(mut batch: Batch, compression: Compression) -> Vec<u8> {
    batch.compress(compression);
    batch.into_message(&SendInfo { sequence: 0, sent_before: 0, sent_at: Timestamp::ZERO, dropped_relay: 0 })
}

fn bench(c: &mut Criterion) {
    // Bytes that compress about as well as traffic does: half of them repeat.
    let packet: Vec<u8> = (0..1500_u32)
        .map(|i| if i % 2 == 0 { 0 } else { (i.wrapping_mul(2_654_435_761) >> 24) as u8 })
        .collect();
    for (shape, sizes) in SHAPES {
        let mut builder = builder();
        fill(&mut builder, sizes, &packet);
        let full = close(&mut builder);
        let mut group = c.benchmark_group(shape);
        group.throughput(Throughput::Elements(u64::from(full.packets())));
        group.bench_function("fill and close", |b| {
            b.iter_batched_ref(
                || Vec::with_capacity(BYTES + 4096),
                |spare| {
                    fill(&mut builder, sizes, &packet);
                    builder.close(CloseInfo::default(), || std::mem::take(spare))
                },
                BatchSize::LargeInput,
            );
        });
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            if compression != Compression::None {
                group.bench_function(format!("compress {compression}"), |b| {
                    b.iter_batched(
                        || full.clone(),
                        |mut batch| {
                            batch.compress(compression);
                            batch
                        },
                        BatchSize::LargeInput,
                    );
                });
            }
            let message = message(full.clone(), compression);
            group.bench_function(format!("decode {compression}"), |b| {
                b.iter(|| DecodedBatch::decode(black_box(message.as_slice())).map(|r| r.extent()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
