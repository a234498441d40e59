//! Who is remembered, and for how long.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{BYTES_PER_STREAM, Connection, Key, Stats};
use super::*;
use crate::aged::Entry;

const THERE: OriginId = OriginId(1);

fn limited(max_streams: usize) -> Streams {
    Streams::new(Config {
        age: Duration::from_secs(300),
        finalized_age: Duration::from_secs(60),
        max_streams,
        export: 10,
    })
}

#[test]
fn the_silent_are_forgotten() {
    let mut streams = limited(100);
    observe(&mut streams, HERE, "0 > S 1000 0\n 0 > S 1000 0 a=2\n 1 < RA 0 1001 a=2\n 0 > A 1 1 a=3");
    assert_eq!(streams.len(), 4);
    streams.advance(HERE, at(60_001.0));
    assert_eq!(streams.len(), 4);
    streams.advance(HERE, at(60_002.0));
    assert_eq!(streams.len(), 2, "what was reset is gone");
    streams.advance(HERE, at(300_002.0));
    assert_eq!(streams.len(), 0);
    let totals = streams.totals[0];
    assert_eq!((totals.opened, totals.reset, totals.timed_out, totals.evicted), (2, 1, 2, 0));
    assert_eq!((totals.streams, totals.active), (0, 0));
}

#[test]
fn a_connection_has_finished_when_both_sides_have() {
    let mut streams = limited(100);
    observe(
        &mut streams,
        HERE,
        "0 > S 1000 0\n 1 < SA 5000 1001\n 2 > A 1001 5001\n 3 > FA 1001 5001\n 4 < A 5001 1002",
    );
    assert_eq!((streams.totals[0].finished, streams.totals[0].active), (0, 1));
    streams.advance(HERE, at(100_000.0));
    assert_eq!(streams.len(), 2, "one side may still send");
    observe(&mut streams, HERE, "100001 < FA 5001 1002\n 100002 > A 1002 5002\n 100003 < FA 5001 1002");
    assert_eq!((streams.totals[0].finished, streams.totals[0].active), (1, 0));
    streams.advance(HERE, at(160_010.0));
    assert_eq!((streams.len(), streams.totals[0].timed_out), (0, 0));
}

#[test]
fn who_comes_back_too_late_is_somebody_else() {
    let mut streams = limited(100);
    let verdicts = observe(
        &mut streams,
        HERE,
        "0 > A 1000 1 len=10\n 299999 > A 1000 1 len=10\n 700000 > A 1000 1 len=10",
    );
    assert_eq!(verdicts.iter().map(describe).collect::<Vec<_>>(), ["", "retransmission", ""]);
    assert_eq!((streams.len(), streams.totals[0].timed_out), (1, 1));
}

#[test]
fn each_origin_has_its_own_streams_and_its_own_time() {
    let mut streams = limited(100);
    for origin in [HERE, THERE] {
        let verdicts = observe(&mut streams, origin, "0 > A 1000 1 len=10");
        assert_eq!(describe(&verdicts[0]), "");
    }
    streams.advance(HERE, at(400_000.0));
    assert_eq!((streams.totals[0].streams, streams.totals[1].streams), (0, 1));
}

#[test]
fn whoever_was_silent_longest_makes_room() {
    let mut streams = limited(4);
    observe(
        &mut streams,
        HERE,
        "0 > A 1 1 a=1\n 1 > A 1 1 a=2\n 2 < A 1 1 a=2\n 3 > A 1 1 a=3\n 4 > A 2 1 a=1\n",
    );
    assert_eq!((streams.len(), streams.totals[0].evicted), (4, 0));
    // Port 2 is next, with both its streams, then port 3.
    observe(&mut streams, HERE, "5 > A 1 1 a=4");
    assert_eq!((streams.len(), streams.totals[0].evicted), (3, 2));
    observe(&mut streams, HERE, "6 < A 1 1 a=4\n 7 < A 1 1 a=1");
    assert_eq!((streams.len(), streams.totals[0].evicted), (4, 3));
    let gap = observe(&mut streams, HERE, "8 > A 5 1 a=1");
    assert_eq!(describe(&gap[0]), "gap", "port 1 is still known");
    assert_eq!(streams.totals[0].timed_out, 0);
}

#[test]
fn expiring_together_holds_no_packet_up() {
    let mut streams = limited(10_000);
    for port in 0..5_000 {
        observe(&mut streams, HERE, &format!("0 > A 1 1 a={}", port + 1_000));
    }
    // Each packet forgets a few, but more than come.
    let mut before = streams.len();
    for millis in 0..2_000 {
        observe(&mut streams, HERE, &format!("{} > A 1 1 a={}", 400_000 + millis, 20_000 + millis));
        assert!(before + 1 - streams.len() <= super::super::FORGOTTEN_PER_PACKET);
        before = streams.len();
    }
    assert_eq!(streams.len(), 3_000);
    for _ in 0..10 {
        streams.advance(HERE, at(402_000.0));
    }
    assert_eq!(streams.len(), 2_000);
}

/// What a stream takes at most is what the default of `MAX_STREAMS` is made of.
#[test]
fn a_stream_takes_no_more_memory_than_it_is_said_to() {
    // Links of the two slabs, four buckets, a segment in flight.
    let beside = 4 + 4 + 4 * 4 + 16;
    let most = size_of::<Entry<Key, Connection>>() + size_of::<Stats>() + beside;
    assert!(most <= BYTES_PER_STREAM, "{most} bytes");
    assert!(most + 16 > BYTES_PER_STREAM, "{most} bytes: say so");
}

proptest! {
    /// Whatever comes: nothing panics, and the totals are those of the table.
    #[test]
    fn any_segments_are_safe(segments in prop::collection::vec(any_segment(), 0..200), max in 0usize..12) {
        let mut streams = limited(max);
        for (described, origin) in &segments {
            streams.observe(&described.observed(*origin));
            let remembered: u64 = streams.totals.iter().map(|totals| totals.streams).sum();
            prop_assert_eq!(remembered, streams.len() as u64);
            prop_assert!(streams.len() <= max.max(2));
            prop_assert!(streams.totals.iter().all(|totals| totals.active <= totals.streams));
        }
        for origin in [HERE, THERE] {
            streams.advance(origin, at(1e9));
            streams.advance(origin, at(2e9));
        }
        prop_assert_eq!(streams.len(), 0);
        prop_assert!(streams.in_flight.is_empty());
    }
}

fn any_segment() -> impl Strategy<Value = (Described, OriginId)> {
    let numbers = (0u32..60, 0u32..60, prop_oneof![Just(0u32), 0u32..30], 0u16..5, 0u16..40);
    let rest = (0u32..400_000, any::<u8>(), 0u16..4, any::<bool>(), prop::option::of(any::<u8>()));
    (numbers, rest).prop_map(|((seq, ack, len, window, mptcp), (millis, flags, port, back, window_scale))| {
        let direction = if back { "<" } else { ">" };
        let mut described = Described::new(&format!("{millis} {direction} - 0 0 a={port}"));
        let Transport::Tcp(tcp) = &mut described.headers.transport else { unreachable!("it is TCP") };
        // About the end of the numbers, and half of the way round.
        tcp.seq = seq.wrapping_sub(30).wrapping_mul(if port == 3 { 0x1000_0000 } else { 1 });
        tcp.ack = ack.wrapping_sub(30);
        (tcp.payload_len, tcp.window, tcp.mptcp, tcp.window_scale) = (len, window, mptcp, window_scale);
        tcp.flags = TcpFlags(flags);
        (described, if port == 2 { THERE } else { HERE })
    })
}
