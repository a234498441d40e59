use std::sync::atomic::AtomicBool;
use std::time::Duration;

use packet::tzsp::{TzspHeader, encode};
use packet::{Origin, Records};

use super::*;
use crate::batcher::Batcher;
use crate::context::{CaptureContext, InterfaceOrder, Quota};
use crate::filter::FilterSpec;

const PORT: u16 = 37008;

fn millis(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

/// A stage with one interface, behind which batches close every 50 ms.
fn stage(timing: Timing) -> Decapsulation {
    let context = CaptureContext {
        source: "s".into(),
        epoch: Timestamp::ZERO,
        limits: batch::BatchLimits { bytes: 4096, delay: Duration::from_millis(50) },
        stop: Arc::new(AtomicBool::new(false)),
        quota: Arc::new(Quota::new(None)),
        interface_order: InterfaceOrder::Interleaved,
    };
    let below = FilteredBatcher::new(FilterSpec::KEEP_ALL, Batcher::new(context, timing));
    let mut stage = Decapsulation::new(&[PORT], "s".into(), timing, below);
    let origin = Origin { source: "s".into(), device: "eth0".into(), listen_port: None };
    assert_eq!(stage.open(Arc::new(Interface::new(origin, LinkType::RAW, 96))), InterfaceSlot(0));
    stage
}

/// An IPv4 packet with a UDP datagram to the port that carries an inner frame of `len` bytes; with `more`, its first
/// fragment.
fn frame(identification: u8, len: usize, more: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    encode(&TzspHeader::ROUTER_OS, &vec![0xaa; len], &mut payload);
    let total = (20 + 8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, identification, if more { 0x20 } else { 0 }, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x90, 0x90]);
    packet.extend(PORT.to_be_bytes());
    packet.extend((payload.len() as u16 + 8).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    // A first fragment carries a multiple of eight bytes.
    packet.truncate(if more { 20 + (packet.len() - 20) / 8 * 8 } else { packet.len() });
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet
}

fn push(stage: &mut Decapsulation, time: u64, bytes: &[u8]) {
    let record = Record { time: millis(time), original: bytes.len() as u32, bytes };
    assert!(stage.push(InterfaceSlot(0), &record, millis(time)));
}

/// The closed batches with packets: times in ms, watermark in ms.
fn closed(stage: &mut Decapsulation) -> Vec<(Vec<u64>, u64)> {
    std::iter::from_fn(|| stage.below.batcher.poll_batch())
        .map(|batch| {
            let times =
                Records::new(batch.payload()).map(|record| record.time.as_nanos() / 1_000_000).collect();
            (times, batch.close_info().watermark.as_nanos() / 1_000_000)
        })
        .filter(|(times, _): &(Vec<u64>, u64)| !times.is_empty())
        .collect()
}

#[test]
fn a_pending_fragment_holds_the_watermark_back() {
    let mut stage = stage(Timing::Live);
    push(&mut stage, 1000, &frame(1, 100, true));
    push(&mut stage, 1010, &frame(2, 100, false));
    stage.advance(millis(1070), Some(millis(1060)));
    stage.below.batcher.tick(millis(1070), Some(millis(1060)));
    assert_eq!(closed(&mut stage), [(vec![1010], 1000)]);
    // The fragment is overdue: its head is unpacked, and nothing is held back any more.
    stage.advance(millis(1270), Some(millis(1260)));
    stage.below.batcher.tick(millis(1270), Some(millis(1260)));
    assert_eq!(closed(&mut stage), [(vec![1000], 1260)]);
    let ports = stage.report().ports();
    assert_eq!((ports.ports[0].counters.packets, ports.ports[0].counters.truncated), (2, 1));
    assert_eq!(ports.reassembly_failures, 1);
}

#[test]
fn in_a_file_time_advances_with_the_frames() {
    let mut stage = stage(Timing::Stored);
    push(&mut stage, 1000, &frame(1, 100, true));
    for time in 1..20 {
        push(&mut stage, 1000 + time * 10, &frame(2, 400, false));
    }
    stage.below.batcher.end(Timestamp::ZERO);
    let times: Vec<u64> = closed(&mut stage).into_iter().flat_map(|(times, _)| times).collect();
    // The head of the incomplete datagram is unpacked after 100 ms, not at the end of the file.
    let head = times.iter().position(|time| *time == 1000);
    assert!(head.is_some_and(|at| at < 15), "{times:?}");
}

#[test]
fn a_busy_ring_does_not_stop_the_clock() {
    let mut stage = stage(Timing::Live);
    push(&mut stage, 1000, &frame(1, 100, true));
    push(&mut stage, 1200, &frame(2, 100, false));
    // No watermark is known: the latest frame stands in for it.
    stage.advance(millis(1260), None);
    stage.below.batcher.tick(millis(1260), None);
    assert_eq!(closed(&mut stage).first().map(|(times, _)| times.clone()), Some(vec![1000]));
}
