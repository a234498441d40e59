//! Headers of three sources with any counters, in a table for two: counters never decrease, stay far below 2^64, and those of
//! a source that was forgotten begin anew.

#![no_main]

use batch::{Compression, Dropped, Header};
use ledger::{Ledger, SourceStats};
use libfuzzer_sys::fuzz_target;
use packet::{LinkType, Origin, SourceId, Timestamp};

/// Bytes of input per batch.
const STEP: usize = 10;

/// Above any sum that a few thousand batches can claim in a few minutes.
const PLAUSIBLE: u64 = 1 << 60;

/// The counters that must never decrease.
fn counters(stats: &SourceStats) -> [u64; 9] {
    let SourceStats { received, duplicates, sent_before_connect, lost, recovered, sent, captured, .. } =
        *stats;
    let packets = [received, duplicates, sent_before_connect, lost, recovered].map(|counts| counts.packets);
    let [a, b, c, d, e] = packets;
    [a, b, c, d, e, sent, captured, stats.dropped.relay, stats.epochs]
}

/// A counter: small, somewhere in the middle, or huge.
fn number(byte: u8) -> u64 {
    match byte >> 6 {
        0 | 1 => u64::from(byte & 0x7f),
        2 => 1 << (byte & 0x3f),
        _ => u64::MAX - u64::from(byte & 0x3f),
    }
}

fuzz_target!(|input: &[u8]| {
    let mut ledger = Ledger::new(2);
    let mut known: [(Option<SourceId>, [u64; 9]); 3] = Default::default();
    let mut now = 1_700_000_000_000_000_000;
    for step in input.chunks_exact(STEP) {
        let &[who, pace, epoch, sequence, before, captured, kernel, relay, packets, what] = step else {
            break;
        };
        now += u64::from(pace) * 10_000_000;
        let wall = Timestamp::from_nanos(now);
        let name = who % 3;
        let (id, figures) = &mut known[usize::from(name)];
        let origin = Origin { source: name.to_string().into(), device: "".into(), listen_port: None };
        let Ok((source, new)) = ledger.register(&origin) else {
            assert_eq!((ledger.len(), *id), (2, None));
            continue;
        };
        assert_eq!(new, id.is_none());
        *id = Some(source);
        if new {
            *figures = [0; 9];
        }
        let header = Header {
            compression: Compression::None,
            ends: what & 1 != 0,
            header_len: 104,
            link_type: LinkType::ETHERNET,
            snaplen: 96,
            packets: packets.into(),
            payload_len: 0,
            epoch: number(epoch),
            sequence: number(sequence),
            sent_before: number(before),
            sent_at: Timestamp::from_nanos(now.wrapping_add(number(kernel))),
            watermark: Timestamp::from_nanos(number(captured)),
            captured: number(captured),
            dropped: Dropped { kernel: number(kernel), interface: 0, relay: number(relay) },
        };
        let _ = ledger.record(source, &header, 1, wall);
        ledger.settle(wall);
        let stats = ledger.stats(source).expect("it is registered");
        let after = counters(&stats);
        assert!(
            figures.iter().zip(after).all(|(before, after)| *before <= after && after < PLAUSIBLE),
            "{stats:?}"
        );
        *figures = after;
        let _ = stats.is_up(wall, ledger::LOSS_TIMEOUT);
        if what & 0x1e == 0x1e {
            ledger.forget(source);
            *id = None;
        }
    }
    ledger.settle(Timestamp::MAX);
});
