//! Scenes: which batches come when, and what the ledger makes of them.

use std::collections::BTreeSet;
use std::fmt::Write;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;

fn origin(name: &str) -> Origin {
    Origin { source: name.into(), device: "eth0".into(), listen_port: None }
}

fn secs(secs: f64) -> Timestamp {
    Timestamp::from_nanos((secs * 1e9) as u64)
}

/// A tally, as batches and packets.
fn short(tally: Tally) -> String {
    format!("{}/{}", tally.batches, tally.packets)
}

/// Plays a scene. A line is a time in seconds, a source, its epoch in seconds, the number of a batch, the packets sent
/// before it and those in it; and `ends`. It was sent when it came, or at the time behind an `@`. A line with nothing
/// but a time settles.
///
/// For each line there is one of what is to say about the batch; then the figures of each source, as batches/packets.
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
        let entry = Entry {
            epoch: secs(epoch.parse().unwrap()).as_nanos(),
            sequence: number.parse().unwrap(),
            sent_before: before.parse().unwrap(),
            packets: packets.parse().unwrap(),
            sent_at: sent_at.map_or(now, |time| secs(time.parse().unwrap())),
            watermark: now,
            ends: more.contains(&"ends"),
            ..Entry::default()
        };
        let heard = ledger.record(&origin(name), &entry, 100, now);
        let _ = write!(shown, "{line}:");
        for (what, is) in [
            ("new source", heard.new_source),
            ("new epoch", heard.new_epoch),
            ("duplicate", heard.duplicate),
            ("shared name", heard.shared_name),
        ] {
            shown.push_str(if is { " " } else { "" });
            shown.push_str(if is { what } else { "" });
        }
        if heard.missing != Tally::default() {
            let _ = write!(shown, " missing {}", short(heard.missing));
        }
        shown.push('\n');
    }
    for (origin, figures) in ledger.sources() {
        let _ =
            write!(shown, "{}: sent {}, received {}", origin.source, figures.sent, short(figures.received));
        for (what, tally) in [
            ("unheard", figures.unheard),
            ("lost", figures.lost),
            ("missing", figures.missing),
            ("returned", figures.returned),
            ("duplicates", figures.duplicates),
        ] {
            if tally != Tally::default() {
                let _ = write!(shown, ", {what} {}", short(tally));
            }
        }
        let _ = writeln!(shown, "{}", if figures.ended { ", ended" } else { "" });
    }
    shown
}

#[test]
fn a_gap_is_lost_when_it_is_old_enough() {
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
fn a_late_batch_splits_its_gap() {
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
        a: sent 21, received 5/21, lost 1/10, returned 1/10, duplicates 2/15
    ");
}

#[test]
fn what_was_sent_before_the_first_contact_is_unheard() {
    // The collector was started again: what the connection before took along is not known to be lost. A batch that
    // comes behind the first one tells that the collector had heard of the source then.
    assert_snapshot!(play(9, "
        10 a 5 10 100 10
        10 a 5 8 80 10
        13
    "), @"
        10 a 5 10 100 10: new source new epoch
        10 a 5 8 80 10:
        a: sent 110, received 2/20, unheard 8/80, lost 1/10
    ");
}

#[test]
fn a_later_epoch_is_lost_from_its_beginning() {
    assert_snapshot!(play(9, "
        10 a 5 2 20 10 ends
        11 a 8 3 30 10
        11 a 3 4 40 10
        14
    "), @"
        10 a 5 2 20 10 ends: new source new epoch
        11 a 8 3 30 10: new epoch missing 3/30
        11 a 3 4 40 10: new epoch
        a: sent 120, received 3/30, unheard 6/60, lost 3/30
    ");
}

#[test]
fn leftovers_of_a_capture_that_was_restarted_are_no_second_capture() {
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
        22 a 5 2 20 10 @21: shared name
        22 a 20 2 20 10:
        23 a 5 3 30 10:
        a: sent 70, received 7/70
    ");
}

#[test]
fn sources_beyond_the_bound_share_an_account() {
    assert_snapshot!(play(2, "
        10 a 5 0 0 1
        10 b 5 0 0 1
        10 c 5 7 70 1
        10 d 5 9 90 1
        10 c 5 7 70 1
        10 a 5 1 1 1 ends
        10 b 5 1 1 1 ends
    "), @"
        10 a 5 0 0 1: new source new epoch
        10 b 5 0 0 1: new source new epoch
        10 c 5 7 70 1: new source
        10 d 5 9 90 1:
        10 c 5 7 70 1:
        10 a 5 1 1 1 ends:
        10 b 5 1 1 1 ends:
        a: sent 2, received 2/2, ended
        b: sent 2, received 2/2, ended
        other: sent 0, received 3/3
    ");
}

#[test]
fn gaps_beyond_the_bound_are_given_up_early() {
    let mut ledger = Ledger::default();
    let entry =
        |sequence: u64| Entry { sequence, sent_before: sequence * 10, packets: 10, ..Entry::default() };
    for sequence in (0..2000).step_by(2) {
        let _ = ledger.record(&origin("a"), &entry(sequence), 0, secs(100.0));
    }
    let figures = ledger.figures(SourceId(0)).unwrap();
    assert_eq!((figures.sent, figures.received.packets), (19_990, 10_000));
    assert_eq!((figures.missing.batches, figures.lost.batches), (256, 999 - 256));
    // One of those comes: it is counted as lost, so it stays lost.
    assert!(ledger.record(&origin("a"), &entry(1), 0, secs(100.0)).duplicate);
    assert!(!ledger.record(&origin("a"), &entry(1997), 0, secs(100.0)).duplicate);
}

#[test]
fn epochs_beyond_the_bound_are_closed_early() {
    let mut ledger = Ledger::default();
    for epoch in 1..=20 {
        for sequence in [0, 2] {
            let entry = Entry { epoch, sequence, sent_before: sequence, packets: 1, ..Entry::default() };
            let _ = ledger.record(&origin("a"), &entry, 0, secs(100.0));
        }
    }
    let figures = ledger.figures(SourceId(0)).unwrap();
    assert_eq!((figures.epochs, figures.sent, figures.received.packets), (20, 60, 40));
    assert_eq!((figures.missing.packets, figures.lost.packets), (16, 4));
}

#[test]
fn figures_tell_lag_offset_and_what_is_held() {
    let mut ledger = Ledger::default();
    let entry = Entry { packets: 10, sent_at: secs(98.0), watermark: secs(97.5), ..Entry::default() };
    let source = ledger.record(&origin("a"), &entry, 700, secs(100.0)).source;
    ledger.written(source, 4);
    ledger.late(source, 2);
    ledger.skipped(source, Skip::LinkType, 3);
    ledger.skipped(source, Skip::Closed, 1);
    // Of no source at all: nothing happens.
    ledger.written(SourceId(7), 4);
    let figures = ledger.figures(source).unwrap();
    assert_eq!((figures.bytes, figures.late, figures.held()), (700, 2, 2));
    assert_eq!(Skip::ALL.map(|reason| figures.skipped(reason)), [3, 0, 1]);
    assert_eq!(figures.clock_offset_seconds(), Some(2.0));
    assert_eq!(figures.lag_seconds(secs(101.0)), Some(3.5));
    let alive = |now| figures.is_alive(secs(now), std::time::Duration::from_secs(2));
    assert_eq!((alive(101.9), alive(102.0), ledger.all_ended()), (true, false, false));
    let end = Entry { sequence: 2, sent_before: 20, ends: true, ..entry };
    let _ = ledger.record(&origin("a"), &end, 700, secs(103.0));
    assert!(!ledger.all_ended(), "a batch may still come");
    ledger.settle(secs(105.0));
    assert!(ledger.all_ended());
    assert_eq!(ledger.figures(source).unwrap().lag_seconds(secs(106.0)), None);
}

/// A batch in a property test.
#[derive(Clone, Debug)]
struct Sent {
    packets: u32,
    /// Packets that the relay drops before it.
    dropped: u64,
    /// How long each copy of it is under way, in milliseconds. Without any it is lost.
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

/// What a simple model makes of it, with all that happened before its eyes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Model {
    sent: u64,
    received: u64,
    duplicates: u64,
    unheard: u64,
    lost: u64,
    captured: u64,
    dropped: u64,
    epochs: u64,
    ended: bool,
}

/// A batch every 100 ms, one run after the other; the collector begins to listen at `start`, in milliseconds. Returns
/// the batches in the order in which they come, with the times when they do, and the model.
fn deliver(runs: &[Vec<Sent>], start: u64) -> (Vec<(u64, Entry)>, Model) {
    let mut model = Model::default();
    let mut now = 1_000_000;
    let start = now + start;
    let mut entries = Vec::new();
    let mut came = Vec::new();
    for run in runs {
        let epoch = now * 1_000_000;
        let (mut sent_before, mut dropped) = (0, 0);
        for (sequence, sent) in (0..).zip(run) {
            dropped += sent.dropped;
            let entry = Entry {
                epoch,
                sequence,
                sent_before,
                packets: sent.packets,
                captured: sent_before + u64::from(sent.packets) + dropped,
                dropped: Dropped { relay: dropped, ..Dropped::default() },
                sent_at: Timestamp::from_nanos(now * 1_000_000),
                watermark: Timestamp::from_nanos(now * 1_000_000),
                ends: sequence + 1 == run.len() as u64,
            };
            sent_before += u64::from(sent.packets);
            entries.push(entry);
            came.extend(sent.copies.iter().map(|way| (now + way, entry)).filter(|(at, _)| *at >= start));
            now += 100;
        }
    }
    came.sort_by_key(|(at, _)| *at);
    let Some(first) = came.first().map(|(_, entry)| entry.epoch) else { return (came, model) };
    let unique: BTreeSet<(u64, u64)> = came.iter().map(|(_, entry)| (entry.epoch, entry.sequence)).collect();
    let epochs: BTreeSet<u64> = unique.iter().map(|(epoch, _)| *epoch).collect();
    for entry in &entries {
        let of_epoch = unique.range((entry.epoch, 0)..=(entry.epoch, u64::MAX));
        let (lowest, highest) = (of_epoch.clone().next(), of_epoch.last());
        let key = (entry.epoch, entry.sequence);
        let packets = u64::from(entry.packets);
        if highest.is_none_or(|highest| key > *highest) {
            continue;
        }
        model.sent += packets;
        if unique.contains(&key) {
            model.received += packets;
        } else if entry.epoch <= first && lowest.is_some_and(|lowest| key < *lowest) {
            model.unheard += packets;
        } else {
            model.lost += packets;
        }
        if highest == Some(&key) {
            model.captured += entry.captured;
            model.dropped += entry.dropped.relay;
            model.ended = entry.ends;
        }
    }
    model.epochs = epochs.len() as u64;
    model.duplicates = (came.len() - unique.len()) as u64;
    (came, model)
}

/// The counters that must never go back.
fn counters(figures: &Figures) -> [u64; 11] {
    let Figures { received, duplicates, unheard, lost, returned, .. } = figures;
    let [batches, packets] = [lost.batches + unheard.batches, received.packets];
    let [sent, captured, dropped, epochs] =
        [figures.sent, figures.captured, figures.dropped.relay, figures.epochs];
    [
        batches,
        packets,
        received.batches,
        duplicates.batches,
        unheard.packets,
        lost.packets,
        returned.packets,
        sent,
        captured,
        dropped,
        epochs,
    ]
}

fn check_against_model(runs: &[Vec<Sent>], start: u64, patient: bool) -> Result<(), TestCaseError> {
    let (came, model) = deliver(runs, start);
    let mut ledger = Ledger::default();
    let mut before = [0; 11];
    for (at, entry) in &came {
        let now = Timestamp::from_nanos(at * 1_000_000);
        ledger.settle(now);
        let heard = ledger.record(&origin("a"), entry, 1, now);
        let figures = ledger.figures(heard.source).unwrap_or_default();
        let Figures { sent, received, lost, unheard, missing, returned, .. } = figures;
        let sum = received.packets + lost.packets + unheard.packets + missing.packets;
        prop_assert_eq!(sent + returned.packets, sum);
        let now = counters(&figures);
        prop_assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{:?} {:?}", before, now);
        prop_assert!(!heard.shared_name);
        before = now;
    }
    ledger.settle(Timestamp::MAX);
    let figures = ledger.figures(SourceId(0)).unwrap_or_default();
    let Figures { unheard, lost, returned, missing, .. } = figures;
    prop_assert_eq!(missing, Tally::default());
    prop_assert_eq!(lost.packets + unheard.packets - returned.packets, model.lost + model.unheard);
    if patient {
        prop_assert_eq!(returned, Tally::default());
        let found = Model {
            sent: figures.sent,
            received: figures.received.packets,
            duplicates: figures.duplicates.batches,
            unheard: unheard.packets,
            lost: lost.packets,
            captured: figures.captured,
            dropped: figures.dropped.relay,
            epochs: figures.epochs,
            ended: figures.ended,
        };
        prop_assert_eq!(found, model);
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_sums_are_exact(runs in runs(1900), start in 0..6000_u64) {
        check_against_model(&runs, start, true)?;
    }

    #[test]
    fn they_are_when_batches_come_after_they_were_given_up(runs in runs(8000), start in 0..6000_u64) {
        check_against_model(&runs, start, false)?;
    }

    #[test]
    fn any_entries_are_safe(entries in prop::collection::vec(prop::array::uniform8(any::<u64>()), 1..40)) {
        let mut ledger = Ledger::default();
        for [epoch, sequence, sent_before, captured, kernel, sent_at, watermark, now] in entries {
            let entry = Entry {
                epoch: epoch % 4,
                sequence,
                sent_before,
                packets: captured as u32,
                captured,
                dropped: Dropped { kernel, ..Dropped::default() },
                sent_at: Timestamp::from_nanos(sent_at),
                watermark: Timestamp::from_nanos(watermark),
                ends: kernel % 2 == 0,
            };
            let heard = ledger.record(&origin("a"), &entry, u64::MAX, Timestamp::from_nanos(now));
            prop_assert_eq!(heard.source, SourceId(0));
        }
        prop_assert_eq!(ledger.sources().count(), 1);
    }
}
