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
fn a_clock_that_is_set_back_does_not_stop_the_batches() {
    let mut batcher = batcher(Timing::Live, InterfaceOrder::Interleaved, None);
    let slot = batcher.open(interface("eth0"));
    push(&mut batcher, slot, 3_600_000_000);
    batcher.tick(micros(60_000), Some(micros(50_000)));
    // The packet is an hour ahead: it waits, but the batch is looked at, and the next heartbeat is not an hour away.
    assert!(batcher.time_until_due(micros(60_000)) <= HEARTBEAT);
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
