use std::sync::atomic::AtomicBool;

use batch::BatchLimits;
use packet::{LinkType, Origin, Records};

use super::*;
use crate::context::Quota;

const DELAY: Duration = Duration::from_millis(50);

fn micros(micros: u64) -> Timestamp {
    Timestamp::from_nanos(micros * 1000)
}

fn batcher(timing: Timing, interface_order: InterfaceOrder, max_packets: Option<u64>) -> Batcher {
    let context = CaptureContext {
        source: "s".into(),
        epoch: Timestamp::ZERO,
        limits: BatchLimits { bytes: 100, delay: DELAY },
        stop: Arc::new(AtomicBool::new(false)),
        quota: Arc::new(Quota::new(max_packets)),
        interface_order,
    };
    Batcher::new(context, timing)
}

fn interface(device: &str) -> Arc<Interface> {
    let origin = Origin { source: "s".into(), device: device.into(), listen_port: None };
    Arc::new(Interface::new(origin, LinkType::ETHERNET, 96))
}

/// Pushes a packet of 4 bytes: five of them fill a batch.
fn push(batcher: &mut Batcher, slot: InterfaceSlot, time: u64) -> bool {
    let time = micros(time);
    batcher.push(slot, &Record { time, original: 60, bytes: b"data" }, time)
}

/// All closed batches: device, times of the packets in µs, watermark in µs; `!` marks the end.
fn closed(batcher: &mut Batcher) -> Vec<String> {
    std::iter::from_fn(|| batcher.poll_batch())
        .map(|batch| {
            let times: Vec<_> =
                Records::new(batch.payload()).map(|record| record.time.as_nanos() / 1000).collect();
            let watermark = batch.close_info().watermark.as_nanos() / 1000;
            let end = if batch.ends() { "!" } else { "" };
            format!("{} {times:?} {watermark}{end}", batch.interface().origin.device)
        })
        .collect()
}

#[test]
fn a_full_live_batch_keeps_back_the_newest_packets() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("eth0"));
    for time in [1000, 1200, 1100, 1700, 1800, 1900] {
        assert!(push(&mut batcher, slot, time));
    }
    // Half a millisecond before the latest packet, 1800 at that time; sorted.
    assert_eq!(closed(&mut batcher), ["eth0 [1000, 1100, 1200] 1300"]);
    batcher.end(Timestamp::ZERO);
    assert_eq!(closed(&mut batcher), ["eth0 [1700, 1800, 1900] 1900!"]);
}

#[test]
fn a_live_batch_closes_when_it_is_due() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("eth0"));
    // The first heartbeat is due at once.
    batcher.tick(micros(1000), Some(micros(400)));
    assert_eq!(closed(&mut batcher), ["eth0 [] 400"]);
    push(&mut batcher, slot, 2000);
    batcher.tick(micros(51_999), Some(micros(51_000)));
    assert_eq!(closed(&mut batcher), [""; 0]);
    assert_eq!(batcher.time_until_due(micros(51_999)), Duration::from_micros(1));
    batcher.tick(micros(52_000), Some(micros(51_000)));
    assert_eq!(closed(&mut batcher), ["eth0 [2000] 51000"]);
    // Without packets, a heartbeat follows.
    assert_eq!(batcher.time_until_due(micros(52_000)), HEARTBEAT);
    batcher.tick(micros(52_000) + HEARTBEAT, Some(micros(100_000)));
    assert_eq!(closed(&mut batcher), ["eth0 [] 100000"]);
}

#[test]
fn the_watermark_is_behind_the_packets_when_more_wait_in_the_ring() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("eth0"));
    for time in [1000, 1600, 2000] {
        push(&mut batcher, slot, time);
    }
    batcher.tick(micros(60_000), None);
    assert_eq!(closed(&mut batcher), ["eth0 [1000] 1500"]);
}

#[test]
fn an_idle_interface_keeps_up_with_its_source() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let (busy, idle) = (batcher.open(interface("busy")), batcher.open(interface("idle")));
    push(&mut batcher, busy, 1000);
    // The source has read on, for example packets that a filter removed, and there may be more in the ring.
    batcher.advance_source_time(micros(55_000));
    batcher.tick(micros(60_000), None);
    assert_eq!(closed(&mut batcher), ["busy [1000] 54500", "idle [] 54500"]);
    let _ = idle;
}

#[test]
fn watermarks_follow_a_clock_that_is_set_back() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("eth0"));
    push(&mut batcher, slot, 9_000_000);
    // Four seconds back: the packet does not wait until the clock is there again.
    batcher.tick(micros(5_000_000), Some(micros(4_940_000)));
    assert_eq!(closed(&mut batcher), ["eth0 [9000000] 4940000", "eth0 [] 4940000"]);
    // Nor does the next heartbeat, and the old time is in no watermark.
    assert_eq!(batcher.time_until_due(micros(5_000_000)), HEARTBEAT);
    push(&mut batcher, slot, 5_000_000);
    batcher.tick(micros(5_060_000), Some(micros(5_000_000)));
    assert_eq!(closed(&mut batcher), ["eth0 [5000000] 5000000"]);
}

#[test]
fn due_times_do_not_outlive_their_clock() {
    for timing in [Timing::Live, Timing::Piped] {
        let mut batcher = batcher(timing, InterfaceOrder::Interleaved, None);
        let _slot = batcher.open(interface("eth0"));
        batcher.tick(micros(9_000_000), Some(micros(7)));
        assert_eq!(closed(&mut batcher), ["eth0 [] 7"]);
        // The next heartbeat is due at 9.075 s.
        batcher.tick(micros(8_500_000), Some(micros(7)));
        assert_eq!(closed(&mut batcher), ["eth0 [] 7"], "{timing:?}");
        batcher.tick(micros(8_500_000), Some(micros(7)));
        assert_eq!(closed(&mut batcher), [""; 0], "{timing:?}");
    }
}

#[test]
fn the_watermarks_of_a_pipe_follow_its_clock() {
    let mut batcher = batcher(Timing::Piped, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("stdin"));
    push(&mut batcher, slot, 9_000_000);
    push(&mut batcher, slot, 5_000_000);
    batcher.tick(micros(20_000_000), None);
    assert_eq!(closed(&mut batcher), ["stdin [9000000, 5000000] 5000000"]);
}

#[test]
fn an_interface_that_starts_again_is_another_run() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let port = batcher.open(interface("port"));
    batcher.tick(micros(0), Some(micros(0)));
    assert_eq!(closed(&mut batcher), ["port [] 0"]);
    let slot = batcher.open_at(interface("router"), micros(1000), micros(1000));
    // The merge learns of it before it has a batch.
    assert_eq!(closed(&mut batcher), ["router [] 500"]);
    push(&mut batcher, slot, 1000);
    batcher.end_interface(slot);
    let end = batcher.poll_batch().unwrap();
    assert_eq!((end.packets(), end.ends(), end.close_info().captured), (1, true, 1));
    assert!(!push(&mut batcher, slot, 1001), "it has ended");
    // The clock was set back meanwhile.
    assert_eq!(batcher.open_at(interface("router"), micros(700), micros(700)), slot, "the slot is free");
    let start = batcher.poll_batch().unwrap();
    assert!(start.epoch() > end.epoch(), "{} after {}", start.epoch(), end.epoch());
    push(&mut batcher, slot, 701);
    batcher.set_dropped(port, 1, 1);
    batcher.end(Timestamp::ZERO);
    let ends: Vec<_> = std::iter::from_fn(|| batcher.poll_batch()).collect();
    assert_eq!(ends.iter().map(|batch| batch.close_info().captured).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(ends[1].epoch(), start.epoch());
}

#[test]
fn many_interfaces_reserve_less_memory_each() {
    let memory = |interfaces: usize| -> usize {
        let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
        batcher.context.limits.bytes = 256 << 10;
        for _ in 0..interfaces {
            let slot = batcher.open(interface("router"));
            push(&mut batcher, slot, 1000);
        }
        batcher.slots.iter().flatten().map(|state| state.builder.memory()).sum()
    };
    assert!(memory(1) > 256 << 10);
    assert!(memory(4096) < 96 << 20, "{} bytes", memory(4096));
    // While it is idle, an interface has none.
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("router"));
    push(&mut batcher, slot, 1000);
    batcher.tick(micros(100_000), Some(micros(90_000)));
    batcher.tick(micros(200_000), Some(micros(190_000)));
    let head = batcher.slots[slot.0].as_ref().unwrap().builder.memory();
    assert!(head < 200, "{head} bytes");
}

#[test]
fn packets_held_back_above_bound_the_watermark() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("router"));
    push(&mut batcher, slot, 2000);
    batcher.hold_back(Some(micros(1234)));
    batcher.tick(micros(60_000), Some(micros(59_000)));
    assert_eq!(closed(&mut batcher), ["router [2000] 1234"]);
    batcher.hold_back(None);
    batcher.tick(micros(200_000), Some(micros(199_000)));
    assert_eq!(closed(&mut batcher), ["router [] 199000"]);
}

#[test]
fn a_files_interfaces_are_closed_together() {
    let mut batcher = batcher(Timing::Stored, InterfaceOrder::Interleaved, None);
    let (a, b) = (batcher.open(interface("a")), batcher.open(interface("b")));
    push(&mut batcher, b, 3);
    for time in [1, 2, 4, 6, 5, 7] {
        push(&mut batcher, a, time);
    }
    assert_eq!(closed(&mut batcher), ["a [1, 2, 4, 6, 5] 7", "b [3] 7"]);
    batcher.advance_source_time(micros(20));
    batcher.end(Timestamp::ZERO);
    assert_eq!(closed(&mut batcher), ["a [7] 20!", "b [] 20!"]);
}

#[test]
fn in_file_order_a_batch_ends_where_the_interface_changes() {
    let mut batcher = batcher(Timing::Stored, InterfaceOrder::FileOrder, None);
    let (a, b) = (batcher.open(interface("a")), batcher.open(interface("b")));
    for (slot, time) in [(a, 1), (a, 2), (b, 3), (a, 4)] {
        push(&mut batcher, slot, time);
    }
    batcher.end(Timestamp::ZERO);
    // The other interface has nothing to close.
    assert_eq!(closed(&mut batcher), ["a [1, 2] 3", "b [3] 4", "a [4] 4!", "b [] 4!"]);
}

#[test]
fn a_pipes_batch_ages_from_its_arrival() {
    let mut batcher = batcher(Timing::Piped, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("stdin"));
    batcher.tick(micros(0), None);
    assert_eq!(closed(&mut batcher), ["stdin [] 0"]);
    let record = Record { time: micros(7), original: 60, bytes: b"data" };
    batcher.push(slot, &record, micros(1_000_000));
    batcher.tick(micros(1_049_999), Some(micros(7)));
    assert_eq!(closed(&mut batcher), [""; 0]);
    batcher.tick(micros(1_050_000), Some(micros(7)));
    assert_eq!(closed(&mut batcher), ["stdin [7] 7"]);
}

#[test]
fn a_description_changes_between_batches() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("any"));
    push(&mut batcher, slot, 1000);
    batcher.set_dropped(slot, 3, 4);
    batcher.describe(slot, interface("any, renamed"));
    push(&mut batcher, slot, 2000);
    batcher.end(Timestamp::ZERO);
    let first = batcher.poll_batch().unwrap();
    assert_eq!((first.close_info().captured, first.close_info().dropped_kernel), (1, 3));
    assert_eq!(closed(&mut batcher), ["any, renamed [2000] 2000!"]);
}

#[test]
fn max_packets_is_exact() {
    let mut batcher = batcher(Timing::Stored, InterfaceOrder::Interleaved, Some(2));
    let slot = batcher.open(interface("a"));
    assert_eq!([1, 2, 3].map(|time| push(&mut batcher, slot, time)), [true, true, false]);
    assert!(!push(&mut batcher, InterfaceSlot(9), 4), "an unknown slot has no packets");
}
