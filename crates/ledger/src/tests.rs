//! Scenarios: which batches arrive when, and how the ledger accounts for them.

use std::collections::BTreeSet;
use std::fmt::Write;

use batch::Dropped;
use insta::assert_snapshot;
use packet::LinkType;
use proptest::prelude::*;

use super::*;

/// The header of a first, empty batch.
const HEADER: Header = Header {
    compression: batch::Compression::None,
    ends: false,
    header_len: 0,
    link_type: LinkType(1),
    snaplen: 0,
    packets: 0,
    payload_len: 0,
    epoch: 0,
    sequence: 0,
    sent_before: 0,
    sent_at: Timestamp::ZERO,
    watermark: Timestamp::ZERO,
    captured: 0,
    dropped: Dropped { kernel: 0, interface: 0, relay: 0 },
};

fn origin(name: &str) -> Origin {
    Origin { source: name.into(), device: "eth0".into(), listen_port: None }
}

fn secs(secs: f64) -> Timestamp {
    Timestamp::from_nanos((secs * 1e9) as u64)
}

/// Formats counts as batches/packets.
fn short(counts: Counts) -> String {
    format!("{}/{}", counts.batches, counts.packets)
}

/// Runs a scenario. A line has a time in seconds, a source, its epoch in seconds, the sequence number of a batch, the
/// packets sent before it, those in it, and optionally `ends` and the time of sending after an `@` (by default the time
/// of arrival). A line with only a time settles.
///
/// The result has one line per batch, its receipt; then the figures of each source, as batches/packets.
fn play(max_sources: u32, scene: &str) -> String {
    let mut ledger = Ledger::new(max_sources);
    let mut shown = String::new();
    for line in scene.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let now = secs(words[0].parse().unwrap());
        let [_, name, epoch, number, before, packets, more @ ..] = words.as_slice() else {
            ledger.settle(now);
            continue;
        };
        let sent_at = more.iter().find_map(|word| word.strip_prefix('@'));
        let header = Header {
            epoch: secs(epoch.parse().unwrap()).as_nanos(),
            sequence: number.parse().unwrap(),
            sent_before: before.parse().unwrap(),
            packets: packets.parse().unwrap(),
            sent_at: sent_at.map_or(now, |time| secs(time.parse().unwrap())),
            watermark: now,
            ends: more.contains(&"ends"),
            ..HEADER
        };
        let _ = write!(shown, "{line}:");
        let Ok((source, new_source)) = ledger.register(&origin(name)) else {
            shown.push_str(" full\n");
            continue;
        };
        let receipt = match ledger.record(source, &header, 100, now) {
            Ok(receipt) => receipt,
            Err(refusal) => {
                let _ = writeln!(shown, " {refusal:?}");
                continue;
            }
        };
        for (what, is) in [
            ("new source", new_source),
            ("new epoch", receipt.new_epoch),
            ("duplicate", receipt.duplicate),
            ("shared name", receipt.shared_name),
        ] {
            shown.push_str(if is { " " } else { "" });
            shown.push_str(if is { what } else { "" });
        }
        if receipt.missing != Counts::default() {
            let _ = write!(shown, " missing {}", short(receipt.missing));
        }
        shown.push('\n');
    }
    for (origin, stats) in ledger.sources() {
        let _ = write!(shown, "{}: sent {}, received {}", origin.source, stats.sent, short(stats.received));
        for (what, counts) in [
            ("sent before connect", stats.sent_before_connect),
            ("lost", stats.lost),
            ("missing", stats.missing),
            ("recovered", stats.recovered),
            ("duplicates", stats.duplicates),
        ] {
            if counts != Counts::default() {
                let _ = write!(shown, ", {what} {}", short(counts));
            }
        }
        let _ = writeln!(shown, "{}", if stats.ended { ", ended" } else { "" });
    }
    shown
}

#[test]
fn gap_counts_as_lost_after_the_timeout() {
    assert_snapshot!(play(9, "
        10 a 5 0 0 3
        10 a 5 4 20 1
        11.9
    "), @"
        10 a 5 0 0 3: new source new epoch
        10 a 5 4 20 1: missing 3/17
        a: sent 21, received 2/4, missing 3/17
    ");
    assert_snapshot!(play(9, "
        10 a 5 0 0 3
        10 a 5 4 20 1
        12
    "), @"
        10 a 5 0 0 3: new source new epoch
        10 a 5 4 20 1: missing 3/17
        a: sent 21, received 2/4, lost 3/17
    ");
}

#[test]
fn late_batch_splits_its_gap() {
    assert_snapshot!(play(9, "
        10 a 5 0 0 3
        10 a 5 4 20 1
        11 a 5 2 8 2
        11 a 5 1 3 5
        11 a 5 1 3 5
        12
        12.5 a 5 3 10 10
        12.5 a 5 3 10 10
    "), @"
        10 a 5 0 0 3: new source new epoch
        10 a 5 4 20 1: missing 3/17
        11 a 5 2 8 2:
        11 a 5 1 3 5:
        11 a 5 1 3 5: duplicate
        12.5 a 5 3 10 10:
        12.5 a 5 3 10 10: duplicate
        a: sent 21, received 5/21, lost 1/10, recovered 1/10, duplicates 2/15
    ");
}

#[test]
fn gap_before_the_first_batch_counts_as_sent_before_connect() {
    // The collector was restarted, and may have received the batches before the first one in its previous run. A batch
    // that arrives out of order shows from where on it was connected.
    assert_snapshot!(play(9, "
        10 a 5 10 100 10
        10 a 5 8 80 10
        13
    "), @"
        10 a 5 10 100 10: new source new epoch
        10 a 5 8 80 10:
        a: sent 110, received 2/20, sent before connect 8/80, lost 1/10
    ");
}

#[test]
fn gap_before_the_first_batch_of_a_later_epoch_counts_as_lost() {
    assert_snapshot!(play(9, "
        10 a 5 2 20 10 ends
        11 a 8 3 30 10
        11 a 3 4 40 10
        14
    "), @"
        10 a 5 2 20 10 ends: new source new epoch
        11 a 8 3 30 10: new epoch missing 3/30
        11 a 3 4 40 10: new epoch
        a: sent 120, received 3/30, sent before connect 6/60, lost 3/30
    ");
}

#[test]
fn shared_name_is_reported_only_if_two_epochs_overlap() {
    assert_snapshot!(play(9, "
        10 a 5 0 0 10
        21 a 20 0 0 10
        21 a 5 1 10 10 @19 ends
        22 a 20 1 10 10
        22 a 5 2 20 10 @21
        22 a 20 2 20 10
        23 a 5 3 30 10
    "), @"
        10 a 5 0 0 10: new source new epoch
        21 a 20 0 0 10: new epoch
        21 a 5 1 10 10 @19 ends:
        22 a 20 1 10 10:
        22 a 5 2 20 10 @21:
        22 a 20 2 20 10:
        23 a 5 3 30 10: shared name
        a: sent 70, received 7/70
    ");
}

#[test]
fn sources_beyond_the_limit_are_not_registered() {
    assert_snapshot!(play(2, "
        10 a 5 0 0 1
        10 b 5 0 0 1
        10 c 5 7 70 1
        10 a 5 1 1 1 ends
    "), @"
        10 a 5 0 0 1: new source new epoch
        10 b 5 0 0 1: new source new epoch
        10 c 5 7 70 1: full
        10 a 5 1 1 1 ends:
        a: sent 2, received 2/2, ended
        b: sent 1, received 1/1
    ");
}

#[test]
fn a_forgotten_source_makes_room_for_another() {
    let mut ledger = Ledger::new(1);
    let (a, _) = ledger.register(&origin("a")).unwrap();
    assert_eq!(ledger.register(&origin("b")), Err(LedgerFull));
    let _ = ledger.record(a, &Header { ends: true, ..HEADER }, 0, secs(1.0));
    assert!(ledger.all_ended());
    ledger.forget(a);
    ledger.forget(a);
    assert!(ledger.all_ended() && ledger.is_empty());
    assert_eq!(ledger.record(a, &HEADER, 0, secs(1.0)), Err(Refusal::Unregistered));
    assert_eq!(ledger.register(&origin("b")), Ok((a, true)));
    assert_eq!((ledger.len(), ledger.stats(a)), (1, Some(SourceStats::default())));
}

#[test]
fn a_run_that_begins_after_the_clock_was_set_back_is_the_latest() {
    // The capture is killed. Its clock is set back by 80 s before it starts again.
    assert_snapshot!(play(9, "
        101 a 100 0 0 10
        103 a 20 0 0 10 @21
        104
        104 a 20 1 10 10 @22
        105 a 100 1 10 10 @102
        106 a 20 2 20 10 @24
    "), @"
        101 a 100 0 0 10: new source new epoch
        103 a 20 0 0 10 @21: new epoch
        104 a 20 1 10 10 @22:
        105 a 100 1 10 10 @102:
        106 a 20 2 20 10 @24:
        a: sent 50, received 5/50
    ");
    // EXIT_ON_END waits for it, and for nothing else.
    assert_snapshot!(play(9, "
        101 a 100 0 0 10
        103 a 20 0 0 10 @21
        106 a 20 1 10 10 @24 ends
        107
    "), @"
        101 a 100 0 0 10: new source new epoch
        103 a 20 0 0 10 @21: new epoch
        106 a 20 1 10 10 @24 ends:
        a: sent 30, received 3/30, ended
    ");
}

#[test]
fn jumps_that_no_capture_makes_are_refused() {
    assert_snapshot!(play(9, "
        10 a 5 0 0 10
        11 a 5 18446744073709551615 10 10
        11 a 5 1 18446744073709551000 10
        11 a 5 9000000000 9000000000 10
        11 a 5 1 10 10
        12 a 5 2 20 10
        20
    "), @"
        10 a 5 0 0 10: new source new epoch
        11 a 5 18446744073709551615 10 10: Implausible
        11 a 5 1 18446744073709551000 10: Implausible
        11 a 5 9000000000 9000000000 10: missing 8999999999/8999999990
        11 a 5 1 10 10:
        12 a 5 2 20 10:
        a: sent 9000000010, received 4/40, lost 8999999997/8999999970
    ");
}

#[test]
fn an_impostor_leaves_the_figures_usable() {
    // Another run claims to have sent any number, to last until the end of time, and to be over.
    assert_snapshot!(play(9, "
        10 a 5 0 0 10
        11 a 18446744073 0 18446744073709551000 10 ends
        11 a 18446744073 18446744073709551614 18446744073709551000 10
        11 a 6 77 18446744073709551000 10 ends
        14 a 5 1 10 10
        14 a 5 2 20 10
        17
        17 a 5 3 30 10
    "), @"
        10 a 5 0 0 10: new source new epoch
        11 a 18446744073 0 18446744073709551000 10 ends: new epoch
        11 a 18446744073 18446744073709551614 18446744073709551000 10: Implausible
        11 a 6 77 18446744073709551000 10 ends: new epoch
        14 a 5 1 10 10: shared name
        14 a 5 2 20 10:
        17 a 5 3 30 10:
        a: sent 60, received 6/60
    ");
    // It claims to be the same run, and is ahead of it for a while.
    assert_snapshot!(play(9, "
        10 a 5 0 0 10
        11 a 5 500 9000000 10
        12 a 5 1 10 10
        13 a 5 499 20 10
        13 a 5 501 30 10
        14 a 5 502 40 10
        17
    "), @"
        10 a 5 0 0 10: new source new epoch
        11 a 5 500 9000000 10: missing 499/8999990
        12 a 5 1 10 10:
        13 a 5 499 20 10:
        13 a 5 501 30 10:
        14 a 5 502 40 10:
        a: sent 9000030, received 6/60, lost 497/0
    ");
}

#[test]
fn runs_of_a_source_are_limited_per_minute() {
    let mut ledger = Ledger::new(1);
    let (source, _) = ledger.register(&origin("a")).unwrap();
    let mut begun = [0; 2];
    for (minute, begun) in (0..).zip(&mut begun) {
        for epoch in 0..100 {
            let header = Header { epoch: minute * 100 + epoch, packets: 1, ..HEADER };
            *begun += u32::from(ledger.record(source, &header, 0, secs(minute as f64 * 60.0 + 1.0)).is_ok());
        }
    }
    assert_eq!(begun, [16, 16]);
}

#[test]
fn gaps_beyond_the_limit_are_settled_early() {
    let mut ledger = Ledger::new(9);
    let (source, _) = ledger.register(&origin("a")).unwrap();
    let header = |sequence: u64| Header { sequence, sent_before: sequence * 10, packets: 10, ..HEADER };
    for sequence in (0..2000).step_by(2) {
        let _ = ledger.record(source, &header(sequence), 0, secs(100.0));
    }
    let stats = ledger.stats(SourceId(0)).unwrap();
    assert_eq!((stats.sent, stats.received.packets), (19_990, 10_000));
    assert_eq!((stats.missing.batches, stats.lost.batches), (64, 999 - 64));
    // A batch of a forgotten gap stays lost.
    let mut is_duplicate = |header| ledger.record(source, &header, 0, secs(100.0)).unwrap().duplicate;
    assert!(is_duplicate(header(1)) && !is_duplicate(header(1997)));
}

#[test]
fn epochs_beyond_the_limit_are_settled_early() {
    let mut ledger = Ledger::new(9);
    let (source, _) = ledger.register(&origin("a")).unwrap();
    for epoch in 1..=20 {
        for sequence in [0, 2] {
            let header = Header { epoch, sequence, sent_before: sequence, packets: 1, ..HEADER };
            let _ = ledger.record(source, &header, 0, secs(100.0 * epoch as f64));
        }
    }
    let stats = ledger.stats(SourceId(0)).unwrap();
    assert_eq!((stats.epochs, stats.sent, stats.received.packets), (20, 60, 40));
    assert_eq!((stats.missing.packets, stats.lost.packets), (16, 4));
}

#[test]
fn stats_show_lag_clock_offset_and_buffered_packets() {
    let mut ledger = Ledger::new(9);
    let (source, _) = ledger.register(&origin("a")).unwrap();
    let header = Header { packets: 10, sent_at: secs(98.0), watermark: secs(97.5), ..HEADER };
    let _ = ledger.record(source, &header, 700, secs(100.0));
    let mut outcome = WriteOutcome { written: 4, late: 2, ..WriteOutcome::default() };
    outcome.discard(DiscardReason::LinkType, 1);
    ledger.record_output(source, &outcome);
    outcome = WriteOutcome::default();
    outcome.discard(DiscardReason::LinkType, 2);
    outcome.discard(DiscardReason::OutputClosed, 1);
    ledger.record_output(source, &outcome);
    let stats = ledger.stats(source).unwrap();
    assert_eq!((stats.bytes, stats.late, stats.buffered()), (700, 2, 2));
    assert_eq!(DiscardReason::ALL.map(|reason| stats.discarded(reason)), [3, 0, 1]);
    assert_eq!(stats.clock_offset_seconds(), Some(2.0));
    assert_eq!(stats.watermark_lag_seconds(secs(101.0)), Some(3.5));
    let up = |now| stats.is_up(secs(now), std::time::Duration::from_secs(2));
    assert_eq!((up(101.9), up(102.0), ledger.all_ended()), (true, false, false));
    let end = Header { sequence: 2, sent_before: 20, ends: true, ..header };
    let _ = ledger.record(source, &end, 700, secs(103.0));
    assert!(!ledger.all_ended(), "a batch may still arrive");
    ledger.settle(secs(105.0));
    assert!(ledger.all_ended());
    assert_eq!(ledger.stats(source).unwrap().watermark_lag_seconds(secs(106.0)), None);
}

#[test]
fn discard_reasons_are_in_the_order_of_their_indexes() {
    assert_eq!(DiscardReason::ALL.map(|reason| reason as usize), [0, 1, 2]);
    assert_eq!(DiscardReason::ALL.map(DiscardReason::as_str), ["link_type", "max_packets", "output_closed"]);
}

#[test]
fn origin_keeps_its_number_and_is_new_once() {
    let mut ledger = Ledger::new(2);
    let mut register = |name| ledger.register(&origin(name));
    assert_eq!(
        [register("a"), register("b"), register("a"), register("c"), register("b")],
        [
            Ok((SourceId(0), true)),
            Ok((SourceId(1), true)),
            Ok((SourceId(0), false)),
            Err(LedgerFull),
            Ok((SourceId(1), false))
        ]
    );
    assert_eq!(ledger.origin(SourceId(1)).map(|origin| &*origin.source), Some("b"));
}

#[test]
fn unregistered_sources_are_ignored() {
    let mut ledger = Ledger::new(9);
    assert_eq!(ledger.record(SourceId(7), &HEADER, 1, secs(1.0)), Err(Refusal::Unregistered));
    ledger.record_output(SourceId(7), &WriteOutcome { written: 4, ..WriteOutcome::default() });
    ledger.record_ahead(SourceId(7), 1);
    assert_eq!((ledger.stats(SourceId(7)), ledger.sources().count()), (None, 0));
}

/// A batch in a property test.
#[derive(Clone, Debug)]
struct Sent {
    packets: u32,
    /// Packets that the relay dropped before it.
    dropped: u64,
    /// The transit time of each copy, in milliseconds. Without copies the batch is lost.
    copies: Vec<u64>,
}

fn runs(longest: u64) -> impl Strategy<Value = Vec<Vec<Sent>>> {
    let copies = prop_oneof![
        1 => Just(vec![]),
        6 => prop::collection::vec(0..longest, 1),
        1 => prop::collection::vec(0..longest, 2),
    ];
    let sent =
        (0..5_u32, 0..3_u64, copies).prop_map(|(packets, dropped, copies)| Sent { packets, dropped, copies });
    prop::collection::vec(prop::collection::vec(sent, 1..30), 1..4)
}

/// The expected figures, from a simple model that knows everything that happened.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    sent: u64,
    received: u64,
    duplicates: u64,
    sent_before_connect: u64,
    lost: u64,
    captured: u64,
    dropped: u64,
    epochs: u64,
    ended: bool,
}

/// Sends a batch every 100 ms, one epoch after the other, to a collector that starts `start` milliseconds later.
/// Returns the batches in order of arrival, with the arrival times in milliseconds, and the expected figures.
fn deliver(runs: &[Vec<Sent>], start: u64) -> (Vec<(u64, Header)>, Model) {
    let mut model = Model::default();
    let mut now = 1_000_000;
    let start = now + start;
    let mut headers = Vec::new();
    let mut arrived = Vec::new();
    for run in runs {
        let epoch = now * 1_000_000;
        let (mut sent_before, mut dropped) = (0, 0);
        for (sequence, sent) in (0..).zip(run) {
            dropped += sent.dropped;
            let header = Header {
                epoch,
                sequence,
                sent_before,
                packets: sent.packets,
                captured: sent_before + u64::from(sent.packets) + dropped,
                dropped: Dropped { relay: dropped, ..Dropped::default() },
                sent_at: Timestamp::from_nanos(now * 1_000_000),
                watermark: Timestamp::from_nanos(now * 1_000_000),
                ends: sequence + 1 == run.len() as u64,
                ..HEADER
            };
            sent_before += u64::from(sent.packets);
            headers.push(header);
            arrived.extend(sent.copies.iter().map(|way| (now + way, header)).filter(|(at, _)| *at >= start));
            now += 100;
        }
    }
    arrived.sort_by_key(|(at, _)| *at);
    let Some(first) = arrived.first().map(|(_, header)| header.epoch) else { return (arrived, model) };
    let unique: BTreeSet<(u64, u64)> =
        arrived.iter().map(|(_, header)| (header.epoch, header.sequence)).collect();
    let epochs: BTreeSet<u64> = unique.iter().map(|(epoch, _)| *epoch).collect();
    for header in &headers {
        let of_epoch = unique.range((header.epoch, 0)..=(header.epoch, u64::MAX));
        let (lowest, highest) = (of_epoch.clone().next(), of_epoch.last());
        let key = (header.epoch, header.sequence);
        let packets = u64::from(header.packets);
        if highest.is_none_or(|highest| key > *highest) {
            continue;
        }
        model.sent += packets;
        if unique.contains(&key) {
            model.received += packets;
        } else if header.epoch <= first && lowest.is_some_and(|lowest| key < *lowest) {
            model.sent_before_connect += packets;
        } else {
            model.lost += packets;
        }
        if highest == Some(&key) {
            model.captured += header.captured;
            model.dropped += header.dropped.relay;
            model.ended = header.ends;
        }
    }
    model.epochs = epochs.len() as u64;
    model.duplicates = (arrived.len() - unique.len()) as u64;
    (arrived, model)
}

/// The counters that must never decrease.
fn counters(stats: &SourceStats) -> [u64; 11] {
    let SourceStats { received, duplicates, sent_before_connect, lost, recovered, .. } = stats;
    let [batches, packets] = [lost.batches + sent_before_connect.batches, received.packets];
    let [sent, captured, dropped, epochs] = [stats.sent, stats.captured, stats.dropped.relay, stats.epochs];
    [
        batches,
        packets,
        received.batches,
        duplicates.batches,
        sent_before_connect.packets,
        lost.packets,
        recovered.packets,
        sent,
        captured,
        dropped,
        epochs,
    ]
}

fn check_against_model(runs: &[Vec<Sent>], start: u64, in_time: bool) -> Result<(), TestCaseError> {
    let (arrived, model) = deliver(runs, start);
    let mut ledger = Ledger::new(9);
    let (source, _) = ledger.register(&origin("a")).unwrap();
    let mut before = [0; 11];
    for (at, header) in &arrived {
        let now = Timestamp::from_nanos(at * 1_000_000);
        ledger.settle(now);
        let receipt = ledger.record(source, header, 1, now).unwrap();
        let stats = ledger.stats(source).unwrap_or_default();
        let SourceStats { sent, received, lost, sent_before_connect, missing, recovered, .. } = stats;
        let sum = received.packets + lost.packets + sent_before_connect.packets + missing.packets;
        prop_assert_eq!(sent + recovered.packets, sum);
        let now = counters(&stats);
        prop_assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{:?} {:?}", before, now);
        prop_assert!(!receipt.shared_name);
        before = now;
    }
    ledger.settle(Timestamp::MAX);
    let stats = ledger.stats(SourceId(0)).unwrap_or_default();
    let SourceStats { sent_before_connect, lost, recovered, missing, .. } = stats;
    prop_assert_eq!(missing, Counts::default());
    prop_assert_eq!(
        lost.packets + sent_before_connect.packets - recovered.packets,
        model.lost + model.sent_before_connect
    );
    if in_time {
        prop_assert_eq!(recovered, Counts::default());
        let found = Model {
            sent: stats.sent,
            received: stats.received.packets,
            duplicates: stats.duplicates.batches,
            sent_before_connect: sent_before_connect.packets,
            lost: lost.packets,
            captured: stats.captured,
            dropped: stats.dropped.relay,
            epochs: stats.epochs,
            ended: stats.ended,
        };
        prop_assert_eq!(found, model);
    }
    Ok(())
}

proptest! {
    #[test]
    fn sums_are_exact(runs in runs(1900), start in 0..6000_u64) {
        check_against_model(&runs, start, true)?;
    }

    #[test]
    fn sums_are_exact_if_batches_arrive_after_the_loss_timeout(runs in runs(8000), start in 0..6000_u64) {
        check_against_model(&runs, start, false)?;
    }

    #[test]
    fn any_headers_are_safe(headers in prop::collection::vec(prop::array::uniform8(any::<u64>()), 1..40)) {
        let mut ledger = Ledger::new(9);
        let (source, _) = ledger.register(&origin("a")).unwrap();
        for [epoch, sequence, sent_before, captured, kernel, sent_at, watermark, now] in headers {
            let header = Header {
                epoch: epoch % 4,
                sequence,
                sent_before,
                packets: captured as u32,
                captured,
                dropped: Dropped { kernel, ..Dropped::default() },
                sent_at: Timestamp::from_nanos(sent_at),
                watermark: Timestamp::from_nanos(watermark),
                ends: kernel % 2 == 0,
                ..HEADER
            };
            let _ = ledger.record(source, &header, u64::MAX, Timestamp::from_nanos(now));
        }
        prop_assert_eq!(ledger.sources().count(), 1);
    }
}
