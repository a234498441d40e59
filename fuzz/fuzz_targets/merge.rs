//! Batches of many sources at any times, with any promises, kept or not: nothing is dropped, and late is what is older.

#![no_main]

use std::collections::VecDeque;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use merge::{Arrival, Config, Merge, Mono, SourceId};
use packet::record::Extent;
use packet::{Record, Records, Timestamp};

/// Small enough for a batch or two to reach it.
const CONFIG: Config = Config {
    window: Duration::from_micros(200),
    grace: Duration::from_micros(50),
    silence: Duration::from_millis(1),
    max_bytes: 2048,
};

/// Bytes of the input that make an arrival.
const STEP: usize = 6;

const SOURCES: usize = 8;

/// What went in and has not come out, source by source; and the latest that came out.
#[derive(Default)]
struct Judge {
    waiting: [VecDeque<(Timestamp, u32)>; SOURCES],
    newest: Timestamp,
}

impl Judge {
    fn take(&mut self, run: &merge::Run<'_, u32>) {
        let mut late = 0;
        let mut packets = 0;
        for record in Records::new(run.bytes) {
            // A source's own order stays as it is.
            let expected = self.waiting[run.source.0 as usize].pop_front();
            assert_eq!(expected, Some((record.time, record.original)));
            late += u32::from(record.time < self.newest);
            self.newest = self.newest.max(record.time);
            packets += 1;
        }
        assert_eq!((run.packets, run.late), (packets, late));
        assert_eq!(run.tag, run.source.0);
    }
}

fuzz_target!(|input: &[u8]| {
    let mut merge = Merge::new(CONFIG);
    let mut judge = Judge::default();
    let mut now = 1_000_000;
    let mut number = 0;
    for step in input.chunks_exact(STEP) {
        let &[who, pace, time, spread, promise, what] = step else { break };
        now += u64::from(pace) * 1_000;
        let source = SourceId(u32::from(who) % SOURCES as u32);
        let mut payload = Vec::new();
        for packet in 0..u64::from(what & 7) {
            // Times go up, down or stay, around the clock's.
            let nanos = now + u64::from(time) * 1_000 + packet * u64::from(spread) - packet * 64;
            let record = Record { time: Timestamp::from_nanos(nanos), original: number, bytes: &[] };
            number += 1;
            judge.waiting[source.0 as usize].push_back((record.time, record.original));
            record.append_to(&mut payload);
        }
        let extent = Extent::of(&payload).expect("these are records");
        let watermark = Timestamp::from_nanos(now + u64::from(promise) * 1_000);
        merge.push(Arrival { source, tag: source.0, payload, extent, watermark }, Mono::from_nanos(now));
        match what >> 5 {
            0 => merge.end(source),
            1 => merge.remove(source),
            2 => continue,
            _ => {}
        }
        merge.poll(Mono::from_nanos(now), &mut |run| judge.take(&run));
        assert!(merge.bytes() <= CONFIG.max_bytes);
        assert_eq!(merge.packets() as usize, judge.waiting.iter().map(VecDeque::len).sum::<usize>());
    }
    merge.finish(&mut |run| judge.take(&run));
    assert!(judge.waiting.iter().all(VecDeque::is_empty));
});
