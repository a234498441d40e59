//! Expiry and eviction.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{BYTES_PER_STREAM, Connection, ConnectionKey, REMOVED_PER_PACKET, Stats};
use super::*;
use crate::expiring_table::Entry;

const THERE: OriginId = OriginId(1);

fn limited(max_streams: usize) -> Streams {
    Streams::new(StreamsConfig {
        age: Duration::from_secs(300),
        finalized_age: Duration::from_secs(60),
        max_streams,
        export: 10,
    })
}

#[test]
fn idle_connections_are_removed() {
    let mut streams = limited(100);
    observe(&mut streams, HERE, "0 > S 1000 0\n 0 > S 1000 0 a=2\n 1 < RA 0 1001 a=2\n 0 > A 1 1 a=3");
    assert_eq!(streams.len(), 4);
    streams.advance(HERE, at(60_001.0));
    assert_eq!(streams.len(), 4);
    streams.advance(HERE, at(60_002.0));
    assert_eq!(streams.len(), 2, "the reset connection is gone");
    streams.advance(HERE, at(300_002.0));
    assert_eq!(streams.len(), 0);
    let totals = streams.totals[0];
    assert_eq!((totals.opened, totals.reset, totals.timed_out, totals.evicted), (2, 1, 2, 0));
    assert_eq!((totals.streams, totals.active), (0, 0));
}

#[test]
fn a_connection_ends_with_a_fin_in_both_directions() {
    let mut streams = limited(100);
    observe(
        &mut streams,
        HERE,
        "0 > S 1000 0\n 1 < SA 5000 1001\n 2 > A 1001 5001\n 3 > FA 1001 5001\n 4 < A 5001 1002",
    );
    assert_eq!((streams.totals[0].finished, streams.totals[0].active), (0, 1));
    streams.advance(HERE, at(100_000.0));
    assert_eq!(streams.len(), 2, "one direction is still open");
    observe(&mut streams, HERE, "100001 < FA 5001 1002\n 100002 > A 1002 5002\n 100003 < FA 5001 1002");
    assert_eq!((streams.totals[0].finished, streams.totals[0].active), (1, 0));
    streams.advance(HERE, at(160_010.0));
    assert_eq!((streams.len(), streams.totals[0].timed_out), (0, 0));
}

#[test]
fn an_expired_connection_starts_from_scratch() {
    let mut streams = limited(100);
    let analyses = observe(
        &mut streams,
        HERE,
        "0 > A 1000 1 len=10\n 299999 > A 1000 1 len=10\n 700000 > A 1000 1 len=10",
    );
    assert_eq!(analyses.iter().map(describe).collect::<Vec<_>>(), ["", "retransmission", ""]);
    assert_eq!((streams.len(), streams.totals[0].timed_out), (1, 1));
}

#[test]
fn each_origin_has_its_own_streams_and_clock() {
    let mut streams = limited(100);
    for origin in [HERE, THERE] {
        let analyses = observe(&mut streams, origin, "0 > A 1000 1 len=10");
        assert_eq!(describe(&analyses[0]), "");
    }
    streams.advance(HERE, at(400_000.0));
    assert_eq!((streams.totals[0].streams, streams.totals[1].streams), (0, 1));
}

#[test]
fn the_longest_idle_connection_is_evicted() {
    let mut streams = limited(4);
    observe(
        &mut streams,
        HERE,
        "0 > A 1 1 a=1\n 1 > A 1 1 a=2\n 2 < A 1 1 a=2\n 3 > A 1 1 a=3\n 4 > A 2 1 a=1\n",
    );
    assert_eq!((streams.len(), streams.totals[0].evicted), (4, 0));
    // Port 2 is evicted first, with both its streams, then port 3.
    observe(&mut streams, HERE, "5 > A 1 1 a=4");
    assert_eq!((streams.len(), streams.totals[0].evicted), (3, 2));
    observe(&mut streams, HERE, "6 < A 1 1 a=4\n 7 < A 1 1 a=1");
    assert_eq!((streams.len(), streams.totals[0].evicted), (4, 3));
    let gap = observe(&mut streams, HERE, "8 > A 5 1 a=1");
    assert_eq!(describe(&gap[0]), "gap", "port 1 is still known");
    assert_eq!(streams.totals[0].timed_out, 0);
}

#[test]
fn a_packet_removes_few_of_many_expired_connections() {
    let mut streams = limited(10_000);
    for port in 0..5_000 {
        observe(&mut streams, HERE, &format!("0 > A 1 1 a={}", port + 1_000));
    }
    // Each packet removes more connections than it adds.
    let mut before = streams.len();
    for millis in 0..2_000 {
        observe(&mut streams, HERE, &format!("{} > A 1 1 a={}", 400_000 + millis, 20_000 + millis));
        assert!(before + 1 - streams.len() <= REMOVED_PER_PACKET);
        before = streams.len();
    }
    assert_eq!(streams.len(), 3_000);
    for _ in 0..10 {
        streams.advance(HERE, at(402_000.0));
    }
    assert_eq!(streams.len(), 2_000);
}

/// The default of `MAX_STREAMS` follows from this.
#[test]
fn bytes_per_stream_is_the_most_that_a_stream_takes() {
    // Links in the two slabs, four buckets, a segment in flight.
    let others = 4 + 4 + 4 * 4 + 16;
    let most = size_of::<Entry<ConnectionKey, Connection>>() + size_of::<Stats>() + others;
    assert!(most <= BYTES_PER_STREAM, "{most} bytes");
    assert!(most + 16 > BYTES_PER_STREAM, "{most} bytes: lower BYTES_PER_STREAM");
}

proptest! {
    /// Nothing panics, and the totals agree with the table.
    #[test]
    fn any_segments_keep_totals_and_bounds(segments in prop::collection::vec(any_segment(), 0..200), max in 0usize..12) {
        let mut streams = limited(max);
        for (described, origin) in &segments {
            streams.observe(*origin, &described.packet());
            let tracked: u64 = streams.totals.iter().map(|totals| totals.streams).sum();
            prop_assert_eq!(tracked, streams.len() as u64);
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
        // Around 0, and around 2^31.
        tcp.seq = seq.wrapping_sub(30).wrapping_mul(if port == 3 { 0x1000_0000 } else { 1 });
        tcp.ack = ack.wrapping_sub(30);
        (tcp.payload_len, tcp.window, tcp.mptcp, tcp.window_scale) = (len, window, mptcp, window_scale);
        tcp.flags = TcpFlags(flags);
        (described, if port == 2 { THERE } else { HERE })
    })
}
