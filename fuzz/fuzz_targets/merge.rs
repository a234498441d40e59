//! Batches of many sources with any packet times and watermarks, true or not: no packet is dropped, memory stays within its
//! limit, and a run that is not late as a whole has a late packet where one before it is newer. The caller may stop between
//! any two runs.

#![no_main]

use std::collections::VecDeque;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use merge::{Arrival, Merge, MergeConfig, MonotonicTime, PacketRun, SenderId};
use packet::record::Extent;
use packet::{Record, Records, SourceId, Timestamp};

/// Bounds small enough for a batch or two to reach them.
const CONFIG: MergeConfig = MergeConfig {
    window: Duration::from_micros(200),
    grace: Duration::from_micros(50),
    silence: Duration::from_millis(1),
    max_bytes: 8192,
};

/// Bytes of input per batch.
const STEP: usize = 6;

const SOURCES: usize = 8;

/// Packets that went in and have not come out, by source, and the latest time that came out.
#[derive(Default)]
struct Expected {
    queued: [VecDeque<(Timestamp, u32)>; SOURCES],
    newest: Timestamp,
}

impl Expected {
    fn take(&mut self, run: &PacketRun<'_, u32>) {
        let mut late = 0;
        let mut packets = 0;
        let newest = self.newest;
        for record in Records::new(run.bytes) {
            // The order within a source never changes.
            let packet = self.queued[run.source.0 as usize].pop_front();
            assert_eq!(packet, Some((record.time, record.original)));
            late += u32::from(record.time < self.newest);
            self.newest = self.newest.max(record.time);
            packets += 1;
        }
        assert_eq!(run.packets, packets);
        if run.late == packets {
            // It left early, or too late: it does not matter for those after it.
            self.newest = newest;
        } else {
            assert_eq!(run.late, late);
        }
        assert_eq!(run.tag, run.source.0);
    }
}

fuzz_target!(|input: &[u8]| {
    let mut merge = Merge::new(CONFIG);
    let mut expected = Expected::default();
    let mut now = 1_000_000;
    let mut number = 0;
    for step in input.chunks_exact(STEP) {
        let &[who, pace, time, spread, watermark_offset, what] = step else { break };
        now += u64::from(pace) * 1_000;
        let source = SourceId(u32::from(who) % SOURCES as u32);
        let mut payload = Vec::new();
        for packet in 0..u64::from(what & 7) {
            // Times rise, fall or repeat, around the clock's.
            let nanos = now + u64::from(time) * 1_000 + packet * u64::from(spread) - packet * 64;
            let record = Record { time: Timestamp::from_nanos(nanos), original: number, bytes: &[] };
            number += 1;
            expected.queued[source.0 as usize].push_back((record.time, record.original));
            record.append_to(&mut payload);
        }
        let extent = Extent::of(&payload).expect("these are records");
        let watermark = Timestamp::from_nanos(now + u64::from(watermark_offset) * 1_000);
        let (sender, memory) = (SenderId(u64::from(source.0 % 3)), payload.len());
        // All packets are of the present, which has one order.
        let wall = Timestamp::from_nanos(now + 1_000_000);
        merge.push(
            Arrival { source, sender, tag: source.0, payload, memory, extent, watermark },
            MonotonicTime::from_nanos(now),
            wall,
        );
        match what >> 5 {
            0 => merge.end(source),
            1 => {
                // Stop after the first run.
                if let Some(run) = merge.next_run(MonotonicTime::from_nanos(now)) {
                    expected.take(&run);
                }
                continue;
            }
            2 => continue,
            _ => {}
        }
        while let Some(run) = merge.next_run(MonotonicTime::from_nanos(now)) {
            expected.take(&run);
        }
        assert!(merge.bytes() <= CONFIG.max_bytes);
        assert_eq!(merge.packets() as usize, expected.queued.iter().map(VecDeque::len).sum::<usize>());
    }
    merge.finish();
    while let Some(run) = merge.next_run(MonotonicTime::from_nanos(now)) {
        expected.take(&run);
    }
    assert!(expected.queued.iter().all(VecDeque::is_empty));
});
