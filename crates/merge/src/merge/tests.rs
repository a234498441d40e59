//! Scenarios: what the sources send, line by line, and what is handed out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use insta::assert_snapshot;
use packet::Record;
use proptest::prelude::*;

use super::*;

/// What a batch takes besides its records.
const OVERHEAD: usize = Merge::<Vec<u8>>::BATCH_OVERHEAD;

const WINDOW: Duration = Duration::from_millis(200);

fn config() -> MergeConfig {
    MergeConfig { window: WINDOW, grace: WINDOW, silence: Duration::from_secs(2), max_bytes: 1 << 20 }
}

fn millis(millis: u64) -> MonotonicTime {
    MonotonicTime::from_nanos(millis * 1_000_000)
}

/// The collector's clock shows the same time as the scenario's.
fn wall(now: MonotonicTime) -> Timestamp {
    Timestamp::from_nanos(now.as_nanos())
}

/// Packet times are in milliseconds too.
fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn records(times: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &time in times {
        Record { time: at(time), original: 60, bytes: b"1234" }.append_to(&mut bytes);
    }
    bytes
}

/// A run as `a10!` or `a{10 20}`.
fn show(run: &PacketRun<'_, ()>) -> String {
    let name = char::from_u32(run.source.0).unwrap();
    let times: Vec<_> = packet::Records::new(run.bytes)
        .map(|record| (record.time.as_nanos() / 1_000_000).to_string())
        .collect();
    assert_eq!(times.len(), run.packets as usize);
    let late = "!".repeat(run.late as usize);
    match times.as_slice() {
        [time] => format!("{name}{time}{late}"),
        times => format!("{name}{{{}}}{late}", times.join(" ")),
    }
}

fn arrival(source: u32, times: &[u64], watermark: u64) -> Arrival<Vec<u8>> {
    let payload = records(times);
    let extent = Extent::of(&payload).unwrap();
    let memory = payload.len();
    let source = SourceId(source);
    Arrival { source, sender: SenderId(0), tag: (), payload, memory, extent, watermark: at(watermark) }
}

/// Runs a scenario. Each line is a time in milliseconds and an event:
///
/// - `a: 10 20 | 25`: source `a` sends packets of the times 10 and 20, with the watermark 25;
/// - `a ends`: it ends;
/// - `finish`: all sources end;
/// - no event: time passes.
///
/// The result has one line per event: the runs handed out, in braces if they have several packets, with an exclamation
/// mark for each late packet; then, while packets are queued, how many, and the next deadline.
fn play(config: MergeConfig, scene: &str) -> String {
    let mut merge = Merge::new(config);
    let mut shown = String::new();
    for line in scene.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (time, event) = line.split_once(' ').unwrap_or((line, ""));
        let now = millis(time.parse().unwrap());
        let source = |name: &str| SourceId(name.bytes().next().unwrap().into());
        if let Some((name, batch)) = event.split_once(':') {
            let (packets, watermark) = batch.split_once('|').unwrap();
            let times: Vec<u64> = packets.split_whitespace().map(|time| time.parse().unwrap()).collect();
            merge.push(arrival(source(name).0, &times, watermark.trim().parse().unwrap()), now, wall(now));
        } else if let Some(name) = event.strip_suffix(" ends") {
            merge.end(source(name));
        } else if event == "finish" {
            merge.finish();
        }
        let _ = write!(shown, "{time}:");
        while let Some(run) = merge.next_run(now) {
            let _ = write!(shown, " {}", show(&run));
        }
        if let Some(deadline) = merge.next_deadline() {
            let _ = write!(shown, " ({} until {})", merge.packets(), deadline.as_nanos() / 1_000_000);
        }
        shown.push('\n');
    }
    shown
}

#[test]
fn packet_is_handed_out_once_nothing_older_can_arrive() {
    assert_snapshot!(play(config(), "
        0 a: | 0
        0 b: | 0
        200 a: 10 20 30 | 35
        210 b: 15 25 | 32
        220 b: | 50
        230 b: 60 | 60
        240 a: 40 | 80
    "), @"
        0:
        0:
        200: (3 until 400)
        210: a10 b15 a20 b25 a30
        220:
        230: (1 until 430)
        240: a40 b60
    ");
}

#[test]
fn packets_of_equal_time_go_in_the_order_of_their_sources() {
    assert_snapshot!(play(config(), "
        0 b: | 0
        0 a: | 0
        200 a: 10 10 20 | 20
        201 b: 10 20 20 | 20
        202 c: 20 | 20
        203 a: 20 | 20
    "), @"
        0:
        0:
        200: (3 until 400)
        201: b10 a{10 10} b{20 20} a20
        202: c20
        203: a20
    ");
}

#[test]
fn batches_of_a_single_source_go_out_whole() {
    assert_snapshot!(play(config(), "
        0 a: 1 2 3 | 3
        100 a: 4 5 | 5
        200
        201 a: 6 7 8 | 8
        202 a: 9 | 0
        203 a ends
    "), @"
        0: (3 until 200)
        100: (5 until 200)
        200: a{1 2 3} a{4 5}
        201: a{6 7 8}
        202: a9
        203:
    ");
}

#[test]
fn first_packets_wait_for_further_sources_to_appear() {
    assert_snapshot!(play(config(), "
        1000 a: 10 30 | 30
        1150 b: 20 40 | 40
        1199 a ends
        1200
        1201 b ends
        1300 b: 5 | 5
        1310 a: 4 | 4
        1500
        1700
    "), @"
        1000: (2 until 1200)
        1150: (4 until 1200)
        1199: (4 until 1200)
        1200: a10 b20 a30 b40
        1201:
        1300: (1 until 1500)
        1310: (2 until 1500)
        1500: a4! (1 until 1700)
        1700: b5!
    ");
    // A source that has ended in the meantime does not extend the wait.
    assert_snapshot!(play(config(), "
        0 a: 10 | 10
        100 a ends
        150 b: 5 | 5
        200
        400
    "), @"
        0: (1 until 200)
        100: (1 until 200)
        150: (2 until 200)
        200: b5 (1 until 400)
        400: a10
    ");
    assert_snapshot!(play(MergeConfig { window: Duration::ZERO, ..config() }, "
        0 a: 10 | 10
        0 b: 5 15 | 15
    "), @"
        0: a10
        0: b5! b15
    ");
}

#[test]
fn slow_source_is_waited_for_no_longer_than_the_window() {
    // When the oldest batch has waited for the window, it goes out with everything older. What the slow source sends
    // after that is late and goes out at once.
    assert_snapshot!(play(config(), "
        0 a: | 0
        0 b: | 0
        0 c: | 0
        300 a: 10 30 | 30
        310 b: 20 40 | 40
        499
        500
        501 c: 15 25 35 | 36
        502 b: | 45
        510
        511 c: 38 50 | 50
        512 a ends
        512 b ends
        512 c ends
        520 a: 5 | 5
        720
    "), @"
        0:
        0:
        0:
        300: (2 until 500)
        310: (4 until 500)
        499: (4 until 500)
        500: a10 b20 a30 (1 until 510)
        501: c{15 25}!! (2 until 510)
        502: (2 until 510)
        510: c35 b40
        511: c38! (1 until 711)
        512: (1 until 711)
        512: c50
        512:
        520: (1 until 720)
        720: a5!
    ");
}

#[test]
fn lagging_source_does_not_hold_back_the_horizon() {
    assert_snapshot!(play(config(), "
        0 a: | 0
        0 b: | 0
        0 c: | 0
        500 a: 490 | 495
        505 b: 485 | 490
        690 c: | 250
        700
        710 c: 260 480 | 480
    "), @"
        0:
        0:
        0:
        500: (1 until 700)
        505: (2 until 700)
        690: (2 until 700)
        700: b485 a490
        710: c{260 480}!!
    ");
}

#[test]
fn silent_source_is_not_waited_for() {
    let patient = MergeConfig { window: Duration::from_secs(60), grace: Duration::from_secs(60), ..config() };
    assert_snapshot!(play(patient, "
        0 a: | 0
        0 b: | 0
        60000 a: 10 | 10
        60100 b: | 5
        62000 a: 20 | 20
        62099
        62100
        62200 a: 30 | 30
        62300 b: 25 | 28
        62400 a: 40 | 40
        62500 b ends
    "), @"
        0:
        0:
        60000: a10
        60100:
        62000: (1 until 62100)
        62099: (1 until 62100)
        62100: a20
        62200: a30
        62300: b25!
        62400: (1 until 64300)
        62500: a40
    ");
}

#[test]
fn source_with_a_fast_clock_does_not_disturb_the_others() {
    assert_snapshot!(play(config(), "
        0 a: | 0
        0 b: | 0
        0 x: | 0
        300 x: 9000 9001 | 9001
        400 a: 10 30 | 30
        490 x: 9200 | 9200
        500 b: 20 | 25
        510 b: 40 | 40
        690 a: 50 | 50
        700 b: 45 | 60
        701 x ends
        720 a: 760 9000 | 810
        900 b: | 750
        925
        930 b: 900 | 900
        940 a: 895 910 | 910
    "), @"
        0:
        0:
        0:
        300: (2 until 500)
        400: (4 until 500)
        490: (5 until 500)
        500: a10 b20 x{9000 9001} x9200 (1 until 600)
        510: a30 (1 until 600)
        690: b40 (1 until 890)
        700: b45 a50
        701:
        720: (2 until 920)
        900: (2 until 920)
        925: a{760 9000}!!
        930: b900
        940: a895! (1 until 1140)
    ");
}

#[test]
fn oldest_batches_are_forced_out_when_memory_is_full() {
    // A record takes 20 bytes, so there is room for six, in three batches.
    let tight = MergeConfig { max_bytes: 120 + 3 * OVERHEAD, ..config() };
    assert_snapshot!(play(tight, "
        0 a: 10 40 | 40
        1 b: 20 30 | 30
        2 c: 25 50 | 50
        3 b: 60 | 60
        4 d: 70 80 90 100 110 120 130 | 130
    "), @"
        0: (2 until 200)
        1: (4 until 200)
        2: (6 until 200)
        3: a10 b20 c25 b30 (3 until 200)
        4: a40 c50 (8 until 200)
    ");
}

#[test]
fn batches_within_the_memory_limit_wait_while_sources_gather() {
    let tight = MergeConfig { max_bytes: 120 + 2 * OVERHEAD, ..config() };
    assert_snapshot!(play(tight, "
        0 a: 10 20 | 60
        1 b: 20 50 | 60
        2 c: 70 80 90 | 90
        200
    "), @"
        0: (2 until 200)
        1: (4 until 200)
        2: a{10 20} b20 (4 until 200)
        200: b50 (3 until 400)
    ");
}

#[test]
fn batch_is_freed_by_the_call_after_its_last_run() {
    #[derive(Clone)]
    struct Memory(Rc<Vec<u8>>);
    impl AsRef<[u8]> for Memory {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let batch = |times: &[u64], source| {
        let Arrival { source, sender, tag, payload, memory: bytes, extent, watermark } =
            arrival(source, times, 0);
        let memory = Memory(Rc::new(payload));
        (memory.clone(), Arrival { source, sender, tag, payload: memory, memory: bytes, extent, watermark })
    };
    let mut merge = Merge::new(config());
    let (first, a) = batch(&[10, 20], 0);
    let (second, b) = batch(&[15, 16], 1);
    merge.push(a, millis(0), at(0));
    merge.push(b, millis(0), at(0));
    assert_eq!((merge.packets(), merge.bytes()), (4, 80 + 2 * Merge::<Memory>::BATCH_OVERHEAD));
    let mut left = Vec::new();
    merge.finish();
    while let Some(run) = merge.next_run(millis(0)) {
        left.push((run.packets, Rc::strong_count(&first.0), Rc::strong_count(&second.0)));
    }
    assert_eq!(left, [(1, 2, 2), (2, 2, 2), (1, 2, 1)]);
    assert_eq!((Rc::strong_count(&first.0), merge.packets(), merge.bytes()), (1, 0, 0));
}

#[test]
fn caller_may_stop_between_runs_and_go_on_later() {
    let mut merge = Merge::new(config());
    let next = |merge: &mut Merge<Vec<u8>>, now| merge.next_run(millis(now)).map(|run| show(&run));
    let (a, b, c) = (u32::from(b'a'), u32::from(b'b'), u32::from(b'c'));
    for source in [a, b, c] {
        merge.push(arrival(source, &[], 0), millis(0), at(0));
    }
    merge.push(arrival(a, &[10, 30], 30), millis(300), at(300));
    merge.push(arrival(b, &[20, 40], 40), millis(310), at(310));
    assert_eq!(next(&mut merge, 499), None);
    // The window is over: the first batch is forced out, but only its first run is taken.
    assert_eq!(next(&mut merge, 500).as_deref(), Some("a10"));
    assert_eq!(
        (merge.packets(), merge.bytes(), merge.next_deadline()),
        (3, 80 + 2 * OVERHEAD, Some(millis(500)))
    );
    // What arrives in the meantime still takes its place.
    merge.push(arrival(c, &[15, 25], 35), millis(501), at(501));
    let rest: Vec<_> = std::iter::from_fn(|| next(&mut merge, 501)).collect();
    assert_eq!(rest, ["c15", "b20", "c25", "a30"]);
    // `b40` arrived later, so it may wait longer for packets of `a` and `c`.
    assert_eq!((merge.packets(), merge.next_deadline()), (1, Some(millis(510))));
    assert_eq!(next(&mut merge, 510).as_deref(), Some("b40"));
}

#[test]
fn finish_takes_over_from_a_forced_batch() {
    let mut merge = Merge::new(MergeConfig { max_bytes: 60 + OVERHEAD, ..config() });
    let (a, b) = (u32::from(b'a'), u32::from(b'b'));
    merge.push(arrival(a, &[10, 30], 30), millis(0), at(0));
    merge.push(arrival(b, &[20, 40], 40), millis(0), at(0));
    assert_eq!(merge.next_run(millis(0)).map(|run| show(&run)).as_deref(), Some("a10"));
    merge.finish();
    let rest: Vec<_> = std::iter::from_fn(|| merge.next_run(millis(0)).map(|run| show(&run))).collect();
    assert_eq!(rest, ["b20", "a30", "b40"]);
}

#[test]
fn last_run_of_a_batch_can_be_read_until_the_next_call() {
    let mut merge = Merge::new(config());
    let batch = arrival(0, &[10, 20], 20);
    let bytes = batch.payload.clone();
    merge.push(batch, millis(0), at(0));
    let run = merge.next_run(millis(200)).unwrap();
    assert_eq!((run.bytes, run.packets), (bytes.as_slice(), 2));
    // It no longer counts as queued, and its memory is freed by the next call.
    assert_eq!((merge.packets(), merge.bytes(), merge.eras[0].is_departing()), (0, 0, true));
    assert_eq!(merge.next_run(millis(200)), None);
    assert!(!merge.eras[0].is_departing());
}

#[test]
fn finish_hands_out_the_rest_in_order() {
    assert_snapshot!(play(config(), "
        0 a: 10 30 | 30
        1 b: 20 40 | 40
        1 x: 9000 | 9000
        2 finish
    "), @"
        0: (2 until 200)
        1: (4 until 200)
        1: (5 until 200)
        2: a10 b20 a30 b40 x9000
    ");
}

/// An event in a property test.
#[derive(Clone, Debug)]
enum Event {
    /// A source sends packets. `steps` are the times between them, `slack` is how far the watermark lags behind the last.
    Batch { source: u32, steps: Vec<i64>, slack: u64 },
    /// Time passes.
    Millis(u64),
    /// A source ends.
    End(u32),
}

fn events(ordered: bool) -> impl Strategy<Value = Vec<Event>> {
    let step = if ordered { 0..20_i64 } else { -20..40_i64 };
    let batch = (0..6_u32, prop::collection::vec(step, 0..6), 0..10_u64)
        .prop_map(|(source, steps, slack)| Event::Batch { source, steps, slack });
    let event = prop_oneof![
        12 => batch,
        3 => (0..100_u64).prop_map(Event::Millis),
        2 => (0..6_u32).prop_map(Event::End),
    ];
    prop::collection::vec(event, 0..80)
}

/// What went in and what came out, by source; and the times of what came out, in output order.
#[derive(Default)]
struct Seen {
    sent: BTreeMap<u32, Vec<u8>>,
    left: BTreeMap<u32, Vec<u8>>,
    times: Vec<Timestamp>,
    /// The latest time of the packets that left in order.
    newest: Timestamp,
}

impl Seen {
    fn take(&mut self, run: &PacketRun<'_, ()>) {
        self.left.entry(run.source.0).or_default().extend_from_slice(run.bytes);
        let records = packet::Records::new(run.bytes);
        assert_eq!(records.count(), run.packets as usize);
        self.times.extend(records.map(|record| record.time));
        if run.late == run.packets {
            // The run left early, or too late: it does not matter for those after it.
            return;
        }
        let mut late = 0;
        for record in records {
            late += u32::from(record.time < self.newest);
            self.newest = self.newest.max(record.time);
        }
        assert_eq!(run.late, late, "packets out of order");
    }
}

/// Plays `events`, the first of them `after` the sources have appeared. After each event at most `runs` runs are taken.
/// If these were all that are due, nothing may be queued for longer, or take more memory, than the limits allow.
fn run(config: MergeConfig, events: &[Event], after: Duration, runs: usize) -> Seen {
    let mut merge = Merge::new(config);
    let mut seen = Seen::default();
    let mut clocks = [1000_u64; 6];
    let mut waiting: Vec<(MonotonicTime, u64)> = Vec::new();
    let (mut now, mut sent) = (after.as_millis() as u64, 0);
    for source in 0..6 {
        merge.push(arrival(source, &[], 0), millis(0), at(1_000_000));
    }
    for event in events {
        match event {
            Event::Batch { source, steps, slack } => {
                let clock = &mut clocks[*source as usize];
                let times: Vec<u64> = steps
                    .iter()
                    .map(|step| {
                        *clock = clock.saturating_add_signed(*step);
                        *clock
                    })
                    .collect();
                let watermark = clock.saturating_sub(*slack);
                let sender = SenderId(u64::from(source % 3));
                let arrival = Arrival { sender, ..arrival(*source, &times, watermark) };
                seen.sent.entry(*source).or_default().extend_from_slice(&arrival.payload);
                sent += u64::from(arrival.extent.packets);
                waiting.push((millis(now), sent));
                // No clock is ahead of the collector's.
                merge.push(arrival, millis(now), at(now + 1_000_000));
            }
            Event::Millis(passed) => now += passed,
            Event::End(source) => merge.end(SourceId(*source)),
        }
        let mut taken = 0;
        let all = loop {
            if taken == runs {
                break false;
            }
            let deadline = merge.next_deadline();
            let Some(run) = merge.next_run(millis(now)) else { break true };
            seen.take(&run);
            taken += 1;
            assert!(deadline.is_some_and(|deadline| deadline <= millis(now)), "{run:?} was not announced");
        };
        assert_eq!(merge.next_deadline().is_some(), merge.packets() > 0);
        assert_eq!(merge.packets(), sent - seen.times.len() as u64);
        if !all {
            continue;
        }
        assert!(merge.bytes() <= config.max_bytes);
        // A lower bound, because packets that went out early make up for overdue ones in number. What arrives while
        // sources gather may wait for the window after that.
        let longest = config.window + config.grace.min(config.window);
        let due = waiting.iter().rev().find(|(arrived, _)| millis(now) >= *arrived + longest);
        assert!(due.is_none_or(|(_, due)| seen.times.len() as u64 >= *due), "overdue at {now}");
        assert!(merge.next_deadline().is_none_or(|deadline| deadline > millis(now)));
    }
    merge.finish();
    while let Some(run) = merge.next_run(millis(now)) {
        seen.take(&run);
    }
    assert_eq!((merge.packets(), merge.bytes()), (0, 0));
    seen
}

proptest! {
    #[test]
    fn no_packet_is_lost_and_the_order_within_a_source_is_kept(
        events in events(false), window in 0..300_u64, max_bytes in 0..6000_usize,
    ) {
        let config = MergeConfig { window: Duration::from_millis(window), grace: Duration::from_millis(window), silence: Duration::from_millis(150), max_bytes };
        let mut seen = run(config, &events, Duration::ZERO, usize::MAX);
        seen.sent.retain(|_, bytes| !bytes.is_empty());
        prop_assert_eq!(&seen.sent, &seen.left);
    }

    #[test]
    fn no_packet_is_lost_if_the_caller_stops_between_runs(
        events in events(false), window in 0..300_u64, max_bytes in 0..6000_usize, runs in 0..4_usize,
    ) {
        let window = Duration::from_millis(window);
        let config = MergeConfig { window, grace: window, silence: Duration::from_millis(150), max_bytes };
        let mut seen = run(config, &events, Duration::ZERO, runs);
        seen.sent.retain(|_, bytes| !bytes.is_empty());
        prop_assert_eq!(&seen.sent, &seen.left);
    }

    #[test]
    fn ordered_sources_are_merged_in_order(events in events(true)) {
        let hour = Duration::from_secs(3600);
        let config = MergeConfig { window: hour, grace: hour, silence: 2 * hour, max_bytes: usize::MAX };
        let stays = |event: &Event| !matches!(event, Event::End(_));
        let events: Vec<_> = events.into_iter().filter(stays).collect();
        let seen = run(config, &events, hour, usize::MAX);
        prop_assert!(seen.times.is_sorted());
    }
}

/// What a hostile source sends.
#[derive(Clone, Debug)]
struct Hostile {
    source: u32,
    /// Milliseconds between the collector's clock and the first packet, and between the packets.
    offset: i64,
    step: i64,
    packets: usize,
    watermark: u64,
    /// Bytes per packet.
    size: usize,
    ends: bool,
}

fn hostile() -> impl Strategy<Value = Vec<(u64, Hostile)>> {
    let offset = prop_oneof![
        4 => -500..1500_i64,
        2 => Just(80 * 365 * 86_400_000_i64),
        1 => Just(3_600_000_i64),
        2 => -100_000_000..0_i64,
    ];
    let watermark = prop_oneof![2 => 0..4000_u64, 1 => Just(u64::MAX / 2_000_000), 1 => Just(10_000_000)];
    let what =
        (2..9_u32, offset, -50..50_i64, 0..5_usize, watermark, 0..5000_usize, prop::bool::weighted(0.1));
    let what = what.prop_map(|(source, offset, step, packets, watermark, size, ends)| Hostile {
        source,
        offset,
        step,
        packets,
        watermark,
        size,
        ends,
    });
    prop::collection::vec((0..2000_u64, what), 0..150)
}

/// Two sources capture a packet every 10 ms in turn and send them every 20 and 30 ms. What they get back is in order, and
/// nothing of it is late, while others send anything.
fn check_honest_sources(attack: &[(u64, Hostile)]) -> Result<(), TestCaseError> {
    const START: u64 = 200_000_000;
    let config = MergeConfig { max_bytes: 64 << 10, ..config() };
    let mut merge = Merge::new(config);
    let mut left = Vec::new();
    let mut attack = attack.to_vec();
    attack.sort_by_key(|(when, _)| *when);
    let mut attack = attack.into_iter().peekable();
    for now in 0..2600 {
        let wall = START + now;
        while let Some((_, hostile)) = attack.next_if(|(when, _)| *when <= now) {
            let mut payload = Vec::new();
            for number in 0..hostile.packets as i64 {
                let time = at(wall.saturating_add_signed(hostile.offset + number * hostile.step));
                Record { time, original: 0, bytes: &vec![0; hostile.size] }.append_to(&mut payload);
            }
            let extent = Extent::of(&payload).unwrap();
            let (source, sender) = (SourceId(hostile.source), SenderId(9));
            let watermark = at(START.saturating_add(hostile.watermark));
            let memory = payload.len();
            merge.push(
                Arrival { source, sender, tag: (), payload, memory, extent, watermark },
                millis(now),
                at(wall),
            );
            if hostile.ends {
                merge.end(source);
            }
        }
        for (source, every) in [(0, 20), (1, 30)] {
            if now % every == 0 && now <= 2400 {
                // The last packet was captured 5 ms ago.
                let times = (1..=every / 10).rev().map(|back| wall - back * 10 + 5 + u64::from(source));
                let times: Vec<u64> = times.collect();
                let sender = SenderId(u64::from(source));
                let batch = Arrival { sender, ..arrival(source, &times, wall - 5) };
                merge.push(batch, millis(now), at(wall));
            }
        }
        while let Some(run) = merge.next_run(millis(now)) {
            if run.source.0 < 2 {
                prop_assert_eq!(run.late, 0, "at {}: {}", now, run.source.0);
                left.extend(packet::Records::new(run.bytes).map(|record| record.time));
            }
        }
        prop_assert!(merge.bytes() <= config.max_bytes);
    }
    merge.end(SourceId(0));
    merge.end(SourceId(1));
    while let Some(run) = merge.next_run(millis(2600)) {
        if run.source.0 < 2 {
            left.extend(packet::Records::new(run.bytes).map(|record| record.time));
        }
    }
    prop_assert!(left.is_sorted());
    prop_assert_eq!(left.len(), 121 * 2 + 81 * 3);
    Ok(())
}

proptest! {
    #[test]
    fn honest_sources_keep_their_order_whatever_others_send(attack in hostile()) {
        check_honest_sources(&attack)?;
    }
}

#[test]
fn sources_of_other_eras_are_merged_apart() {
    // Two hosts are ahead by the same 5 s; they are merged with one another, and so are the others.
    assert_snapshot!(play(config(), "
        0 a: | 0
        0 b: | 0
        0 x: | 5000
        0 y: | 5000
        200 a: 110 130 | 130
        200 x: 5110 5130 | 5130
        210 b: 120 140 | 140
        210 y: 5120 5140 | 5140
        220 x ends
        220 a ends
    "), @"
        0:
        0:
        0:
        0:
        200: (2 until 400)
        200: (4 until 400)
        210: a110 b120 a130 (3 until 400)
        210: x5110 y5120 x5130 (2 until 400)
        220: y5140 (1 until 400)
        220: b140
    ");
}

#[test]
fn a_source_that_takes_most_of_the_memory_leaves_early() {
    let tight = MergeConfig { max_bytes: 160 + 5 * OVERHEAD, ..config() };
    assert_snapshot!(play(tight, "
        0 s: | 0
        0 a: | 0
        0 b: | 0
        200 a: 110 130 | 130
        201 b: 120 140 | 140
        202 x: 150 160 | 160
        203 x: 170 180 | 180
        204 x: 190 | 190
        205 x: 200 201 | 201
        206 s: 105 | 150
    "), @"
        0:
        0:
        0:
        200: (2 until 400)
        201: (4 until 400)
        202: (6 until 400)
        203: (8 until 400)
        204: x{150 160}!! (7 until 400)
        205: x{170 180}!! (7 until 400)
        206: s105 a110 b120 a130 (4 until 400)
    ");
}

#[test]
fn a_horizon_that_nobody_has_reached_is_taken_back() {
    // Years ahead, and gone. A day ahead, and live.
    assert_snapshot!(play(config(), "
        0 x: | 900000
        0 y: | 900000
        0 z: | 900000
        200 x: 900100 | 900100
        400
        2500 a: | 80000
        2500 b: | 80000
        2510 a: 80010 | 80010
        2520 b: 80005 | 80020
        2530 a: 80030 | 80030
        2540 b: 80025 | 80040
    "), @"
        0:
        0:
        0:
        200: (1 until 400)
        400: x900100
        2500:
        2500:
        2510: (1 until 2710)
        2520: b80005! a80010
        2530: (1 until 2730)
        2540: b80025 a80030
    ");
}

#[test]
fn a_source_can_be_forgotten_when_nothing_of_it_is_queued() {
    let mut merge = Merge::new(config());
    assert!(merge.forget(SourceId(1)), "unknown");
    merge.push(arrival(1, &[10], 10), millis(0), at(0));
    merge.push(arrival(2, &[20], 20), millis(0), at(0));
    assert!(!merge.forget(SourceId(1)));
    merge.end(SourceId(1));
    assert!(merge.next_run(millis(200)).is_some_and(|run| run.source == SourceId(1)));
    assert!(merge.forget(SourceId(1)));
    // Its slot is used again.
    merge.push(arrival(3, &[30], 30), millis(210), at(210));
    assert_eq!((merge.eras[0].queues().count(), merge.sources.len()), (2, 2));
}

#[test]
fn clocks_that_were_set_back_do_not_make_packets_late() {
    let hour = 3_600_000;
    let mut merge = Merge::new(config());
    let mut late = Vec::new();
    // From the eleventh round on, the clocks of the sources and of the collector show an hour less.
    for round in 0..40 {
        let now = 2 * hour + round * 100;
        let clock = if round < 10 { now } else { now - hour };
        for source in [1, 2] {
            let slow = if source == 2 { 100 } else { 0 };
            let times = [clock - 20 - slow, clock - 10 - slow];
            merge.push(arrival(source, &times, clock - 10 - slow), millis(now), at(clock));
        }
        let mut packets = 0;
        while let Some(run) = merge.next_run(millis(now)) {
            packets += run.late;
        }
        late.push(packets);
    }
    assert!(late.iter().skip(20).all(|late| *late == 0), "{late:?}");
}
