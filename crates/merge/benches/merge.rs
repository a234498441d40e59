//! The cost of the merge per packet, by the number of sources and the length of the runs.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use merge::{Arrival, Merge, MergeConfig, MonotonicTime, SenderId};
use packet::record::Extent;
use packet::{Record, SourceId, Timestamp};

/// The default `BATCH_BYTES`.
const BATCH: usize = 256 << 10;

/// Packets per iteration: 64 MiB of records, more than the caches hold, as with batches from the network.
const PACKETS: u64 = 600_000;

/// Small packets, which are the hard case: the merge does not read their bytes.
const SIZES: [usize; 3] = [64, 96, 128];

/// The collector's clock: just after the packets.
const WALL: Timestamp = Timestamp::from_parts(1, 0);

/// The batches of `sources` that take turns with `run` packets each, in the order in which they fill up.
fn batches(sources: u32, run: u64) -> Vec<Arrival<Vec<u8>>> {
    let mut open: Vec<Vec<u8>> = (0..sources).map(|_| Vec::with_capacity(BATCH)).collect();
    let mut full = Vec::new();
    let mut close = |source: u32, payload: &mut Vec<u8>, now: u64| {
        let payload = std::mem::replace(payload, Vec::with_capacity(BATCH));
        if let Ok(extent) = Extent::of(&payload) {
            let watermark = Timestamp::from_nanos(now);
            let (source, sender, memory) = (SourceId(source), SenderId(0), payload.len());
            full.push(Arrival { source, sender, tag: (), payload, memory, extent, watermark });
        }
    };
    for (nanos, &size) in (0..PACKETS).zip(SIZES.iter().cycle()) {
        let source = (nanos / run % u64::from(sources)) as u32;
        let payload = &mut open[source as usize];
        let record =
            Record { time: Timestamp::from_nanos(nanos), original: size as u32, bytes: &[0; 128][..size] };
        if payload.len() + record.encoded_len() > BATCH {
            close(source, payload, nanos);
        }
        record.append_to(&mut open[source as usize]);
    }
    for (source, payload) in (0..).zip(&mut open) {
        close(source, payload, PACKETS);
    }
    full
}

/// Pushes all `batches`, takes the runs that are due after each, and returns the number of runs.
fn merge(batches: &[Arrival<Vec<u8>>], sources: u32) -> u64 {
    let config = MergeConfig { max_bytes: 1 << 30, ..MergeConfig::default() };
    let mut merge = Merge::new(config);
    let mut runs = 0;
    for source in 0..sources {
        let heartbeat = Arrival {
            source: SourceId(source),
            sender: SenderId(0),
            tag: (),
            payload: &[][..],
            memory: 0,
            extent: Extent::EMPTY,
            watermark: Timestamp::ZERO,
        };
        merge.push(heartbeat, MonotonicTime::ZERO, WALL);
    }
    let now = MonotonicTime::ZERO + config.window;
    for &Arrival { source, sender, tag, ref payload, memory, extent, watermark } in batches {
        let payload = payload.as_slice();
        merge.push(Arrival { source, sender, tag, payload, memory, extent, watermark }, now, WALL);
        while let Some(run) = merge.next_run(now) {
            black_box(run.bytes);
            runs += 1;
        }
    }
    merge.finish();
    while let Some(run) = merge.next_run(now) {
        black_box(run.bytes);
        runs += 1;
    }
    runs
}

fn bench(c: &mut Criterion) {
    for run in [1, 64] {
        let mut group = c.benchmark_group(format!("merge, runs of {run}"));
        group.throughput(Throughput::Elements(PACKETS));
        group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(3));
        for sources in [1, 2, 16, 256] {
            let batches = batches(sources, run);
            group.bench_function(BenchmarkId::from_parameter(sources), |b| {
                b.iter(|| merge(&batches, sources));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
