use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::{Headers, LinkType};

fn key(v6: bool, identification: u32) -> DatagramKey {
    if v6 {
        let address = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        DatagramKey { src: address(1), dst: address(2), identification, protocol: 0 }
    } else {
        let address = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        DatagramKey { src: address(1), dst: address(2), identification, protocol: 17 }
    }
}

fn fragment(key: DatagramKey, offset: u32, more: bool, bytes: &[u8]) -> Fragment<'_> {
    Fragment { key, protocol: 17, offset, more, len: bytes.len() as u32, bytes }
}

fn millis(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

/// Runs a script of one step per line, and describes what is delivered. A step is a time in milliseconds and
/// - a fragment: `4` or `6`, its identification, `offset+length` (`offset+length/captured` if cut), the letter that fills
///   it, and `more` unless it is the last;
/// - `ignore`, `4` or `6` and an identification;
/// - `advance`, or `finish`.
fn play(limits: ReassemblyLimits, script: &str) -> String {
    let mut reassembler = Reassembler::new(limits);
    let mut delivered = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let time = millis(words[0].parse().unwrap());
        let mut deliver = |datagram: ReassembledDatagram<'_>| delivered.push(describe(&datagram));
        match words[1..] {
            ["advance"] => reassembler.advance(time, &mut deliver),
            ["finish"] => reassembler.finish(&mut deliver),
            ["ignore", family, id] => {
                reassembler.ignore(time, key(family == "6", id.parse().unwrap()), &mut deliver);
            }
            [family, id, place, letter, ref more @ ..] => {
                let (offset, len) = place.split_once('+').unwrap();
                let (len, captured) = len.split_once('/').unwrap_or((len, len));
                let bytes = letter.repeat(captured.parse().unwrap());
                let whole = fragment(
                    key(family == "6", id.parse().unwrap()),
                    offset.parse().unwrap(),
                    more == ["more"],
                    bytes.as_bytes(),
                );
                reassembler.push(time, &Fragment { len: len.parse().unwrap(), ..whole }, &mut deliver);
            }
            _ => panic!("{line}"),
        }
    }
    let ReassemblyCounters { fragments, malformed, whole, lost, heads } = reassembler.counters();
    let lost: String = Loss::ALL
        .into_iter()
        .filter(|&loss| lost[loss as usize] > 0)
        .map(|loss| format!(", {loss:?} {}", lost[loss as usize]))
        .collect();
    delivered
        .push(format!("{fragments} fragments: {malformed} malformed, {whole} whole, {heads} heads{lost}"));
    delivered.join("\n")
}

/// The time, and the payload as a list of letters with their counts.
fn describe(datagram: &ReassembledDatagram<'_>) -> String {
    let runs: Vec<_> = datagram
        .payload
        .chunk_by(|a, b| a == b)
        .map(|run| format!("{}{}", char::from(run[0]), run.len()))
        .collect();
    let what = if datagram.whole { "whole" } else { "head" };
    format!("{} ms: {what} [{}]", datagram.time.as_nanos() / 1_000_000, runs.join(" "))
}

#[test]
fn fragments_may_arrive_in_any_order() {
    assert_snapshot!(play(ReassemblyLimits::default(), "
        0 4 1 0+16 a more
        1 4 1 16+5 b
        2 4 2 16+8 b more
        3 6 2 0+8 x more
        4 4 2 24+3 c
        5 4 2 0+16 a more
        6 6 2 8+1 y
        7 finish
    "), @r"
    1 ms: whole [a16 b5]
    5 ms: whole [a16 b8 c3]
    6 ms: whole [x8 y1]
    7 fragments: 0 malformed, 3 whole, 0 heads
    ");
}

#[test]
fn head_of_an_incomplete_datagram_is_delivered() {
    // The third datagram has no head. The timeout of the last one starts with its first fragment.
    assert_snapshot!(play(ReassemblyLimits::default(), "
        0 4 1 0+16 a more
        1 4 2 8+8 b more
        2 4 2 0+8 a more
        3 4 2 24+8 d
        4 4 3 8+8 b
        50 4 4 8+8 b more
        60 4 4 0+8 a more
        99 advance
        100 advance
        101 advance
        104 advance
        149 advance
        150 advance
    "), @r"
    0 ms: head [a16]
    2 ms: head [a8 b8]
    60 ms: head [a8 b8]
    7 fragments: 0 malformed, 0 whole, 3 heads, Timeout 4
    ");
}

#[test]
fn datagram_with_a_cut_fragment_is_incomplete() {
    assert_snapshot!(play(ReassemblyLimits::default(), "
        0 4 1 0+1480/100 a more
        1 4 1 1480+60 b
        2 6 1 0+1480/0 a more
        3 finish
    "), @r"
    0 ms: head [a100]
    2 ms: head []
    3 fragments: 0 malformed, 0 whole, 2 heads, End 2
    ");
}

#[test]
fn overlapping_ipv4_fragments_keep_the_first_bytes() {
    assert_snapshot!(play(ReassemblyLimits::default(), "
        0 4 1 8+8 b more
        1 4 1 24+8 d more
        2 4 1 0+40 x
        3 4 2 0+16 a more
        4 4 2 0+16 x more
        5 4 2 8+16 y
    "), @r"
    2 ms: whole [x8 b8 x8 d8 x8]
    5 ms: whole [a16 y8]
    6 fragments: 0 malformed, 2 whole, 0 heads
    ");
}

#[test]
fn overlapping_ipv6_fragments_discard_the_datagram() {
    // A duplicate is not an overlap. Fragments after an overlap do not start another datagram.
    assert_snapshot!(play(ReassemblyLimits::default(), "
        0 6 1 0+16 a more
        1 6 1 0+16 a more
        2 6 1 16+8 b
        3 6 2 0+16 a more
        4 6 2 8+16 a
        5 6 2 16+8 b
        6 6 3 0+16 a more
        7 6 3 0+16 x more
        8 6 3 0+16 a
        9 finish
    "), @r"
    2 ms: whole [a16 b8]
    9 fragments: 0 malformed, 1 whole, 0 heads, Overlap 2
    ");
}

#[test]
fn impossible_fragments_are_counted_as_malformed() {
    // Not a multiple of 8, empty, beyond 65535, beyond the end, another end, an end before bytes that were received.
    assert_snapshot!(play(ReassemblyLimits::default(), "
        0 4 1 0+8 a more
        0 4 1 8+7 x more
        0 4 1 8+0 x
        0 4 1 65528+8 x
        0 4 1 16+4 c
        0 4 1 24+8 x more
        0 4 1 16+8 x
        0 4 1 8+8 b more
        1 4 2 0+16 a more
        1 4 2 0+8 x
        2 finish
    "), @r"
    0 ms: whole [a8 b8 c4]
    1 ms: head [a16]
    10 fragments: 6 malformed, 1 whole, 1 heads, End 1
    ");
}

#[test]
fn ignored_datagrams_are_not_kept() {
    assert_snapshot!(play(ReassemblyLimits::default(), "
        0 4 1 16+8 b more
        1 ignore 4 1
        2 4 1 24+8 c
        3 ignore 4 2
        4 4 2 16+8 b
        102 4 1 0+8 a
        103 finish
    "), @r"
    102 ms: whole [a8]
    4 fragments: 0 malformed, 1 whole, 0 heads
    ");
}

#[test]
fn oldest_datagrams_are_dropped_at_the_memory_limit() {
    let limits = ReassemblyLimits { memory: 4500, ..ReassemblyLimits::default() };
    assert_snapshot!(play(limits, "
        0 4 1 0+1480 a more
        1 4 2 0+1480 b more
        2 4 3 0+1480 c more
        3 4 4 0+1480 d more
        4 4 4 1480+20 d
    "), @r"
    0 ms: head [a1480]
    1 ms: head [b1480]
    4 ms: whole [d1500]
    5 fragments: 0 malformed, 1 whole, 2 heads, Memory 2
    ");
}

#[test]
fn datagrams_time_out_after_the_clock_was_set_back() {
    assert_snapshot!(play(ReassemblyLimits::default(), "
        5000 4 1 0+8 a more
        1000 4 2 0+8 b more
        1001 4 2 8+8 b
    "), @r"
    5000 ms: head [a8]
    1001 ms: whole [b16]
    3 fragments: 0 malformed, 1 whole, 1 heads, Timeout 1
    ");
}

#[test]
fn number_of_pieces_is_limited() {
    let script: String = (0..200).map(|n| format!("0 4 1 {}+8 a more\n", n * 16)).collect();
    assert_snapshot!(play(ReassemblyLimits::default(), &script), @r"
    0 ms: head [a8]
    200 fragments: 0 malformed, 0 whole, 1 heads, TooManyPieces 1
    ");
}

/// The fragment in a raw IP packet.
fn read(packet: &[u8]) -> Option<Fragment<'_>> {
    Fragment::of(&Headers::parse(LinkType::RAW, packet, packet.len() as u32), packet)
}

#[test]
fn ipv4_fragments_are_parsed() {
    let mut packet = vec![0x46, 0, 0, 32, 0xab, 0xcd, 0x20, 0x02, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    packet.extend([1, 1, 1, 0]);
    packet.extend(*b"abcdefgh");
    packet.extend([0; 6]);
    let expected = fragment(key(false, 0xabcd), 16, true, b"abcdefgh");
    assert_eq!(read(&packet), Some(expected));
    // The last fragment is recognized by its offset alone. A snaplen does not change its length.
    packet[6] = 0;
    assert_eq!(read(&packet), Some(Fragment { more: false, ..expected }));
    let cut = Fragment::of(&Headers::parse(LinkType::RAW, &packet[..27], 38), &packet[..27]);
    assert_eq!(cut, Some(Fragment { more: false, bytes: b"abc", ..expected }));
    packet[7] = 0;
    assert_eq!(read(&packet), None);
}

#[test]
fn ipv6_fragments_are_parsed() {
    let key = key(true, 0x0102_0304);
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (key.src, key.dst) else { panic!() };
    // Destination options may precede the fragment header or be part of the fragment.
    let mut packet = vec![0x60, 0, 0, 0, 0, 32, 60, 64];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend([44, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend([60, 0, 0, 1, 1, 2, 3, 4]);
    let part = [17, 0, 1, 4, 0, 0, 0, 0, 0, 7, 0, 8, 0, 8, 0, 0];
    packet.extend(part);
    let first = Fragment { protocol: 60, ..fragment(key, 0, true, &part) };
    assert_eq!(read(&packet), Some(first));
    packet[50..52].copy_from_slice(&[0x10, 0x08]);
    assert_eq!(read(&packet), Some(Fragment { offset: 0x1008, more: false, ..first }));
    // An atomic fragment is a whole datagram (RFC 6946).
    packet[50..52].copy_from_slice(&[0, 0]);
    assert_eq!(read(&packet), None);
}

/// A payload, split at multiples of 8 and shuffled, with some duplicates.
fn shuffled() -> impl Strategy<Value = (Vec<u8>, Vec<(u32, u32)>)> {
    (prop::collection::vec(any::<u8>(), 9..3000), prop::collection::btree_set(1..375u32, 1..20))
        .prop_flat_map(|(payload, cuts)| {
            let len = payload.len() as u32;
            let mut bounds: Vec<_> = cuts.into_iter().map(|cut| cut * 8).filter(|&cut| cut < len).collect();
            bounds.insert(0, 0);
            bounds.push(len);
            let parts: Vec<_> = bounds.windows(2).map(|pair| (pair[0], pair[1])).collect();
            let again = prop::sample::subsequence(parts.clone(), 0..=parts.len().min(3));
            let all = again.prop_flat_map(move |again| Just([parts.clone(), again].concat()).prop_shuffle());
            (Just(payload), all)
        })
}

proptest! {
    #[test]
    fn datagrams_are_reassembled_from_any_order((payload, parts) in shuffled(), v6 in any::<bool>()) {
        let mut reassembler = Reassembler::default();
        let mut delivered = Vec::new();
        for &(from, to) in &parts {
            let bytes = &payload[from as usize..to as usize];
            let fragment = fragment(key(v6, 1), from, to < payload.len() as u32, bytes);
            reassembler.push(Timestamp::ZERO, &fragment, &mut |datagram| delivered.push(datagram.payload.to_vec()));
            if !delivered.is_empty() {
                break;
            }
        }
        // A single part is not a fragment, but is handled like one.
        prop_assert_eq!(delivered, vec![payload]);
        prop_assert_eq!(reassembler.memory(), 0);
    }

    #[test]
    fn overlapping_ipv4_fragments_keep_the_first_bytes_in_any_order(
        parts in prop::collection::vec((0..24u32, 1..8u32, any::<bool>()), 1..30),
    ) {
        let mut reassembler = Reassembler::default();
        let mut model = BTreeMap::new();
        let mut letter = 0;
        for (offset, len, cut) in parts {
            letter += 1;
            let bytes = vec![letter; len as usize * 8 - usize::from(cut)];
            let mut whole = fragment(key(false, 1), offset * 8, true, &bytes);
            whole.len = len * 8;
            reassembler.push(Timestamp::ZERO, &whole, &mut |_| panic!("no datagram can be complete"));
            for at in offset * 8..offset * 8 + bytes.len() as u32 {
                model.entry(at).or_insert(letter);
            }
        }
        let expected: Vec<u8> = (0..).map_while(|at| model.get(&at).copied()).collect();
        let mut head = Vec::new();
        reassembler.finish(&mut |datagram| head = datagram.payload.to_vec());
        prop_assert_eq!(head, expected);
    }

    #[test]
    fn memory_is_bounded_and_every_datagram_counted(
        steps in prop::collection::vec(
            (0..300u64, any::<bool>(), 0..6u32, 0..9000u32, 0..200u32, 0..200usize, any::<bool>(), 0..20u8),
            0..200,
        ),
    ) {
        let limits = ReassemblyLimits { memory: 4000, timeout: Duration::from_millis(100) };
        let mut reassembler = Reassembler::new(limits);
        let (mut whole, mut heads) = (0, 0);
        let bytes = [0; 200];
        for (ms, v6, id, offset, len, captured, more, kind) in steps {
            let mut deliver = |datagram: ReassembledDatagram<'_>| *(if datagram.whole { &mut whole } else { &mut heads }) += 1;
            let fragment = Fragment { len, ..fragment(key(v6, id), offset * 8, more, &bytes[..captured]) };
            match kind {
                0 => reassembler.ignore(millis(ms), fragment.key, &mut deliver),
                1 => reassembler.advance(millis(ms), &mut deliver),
                _ => reassembler.push(millis(ms), &fragment, &mut deliver),
            }
            prop_assert!(reassembler.memory() <= limits.memory);
            prop_assert_eq!(reassembler.oldest().is_some(), reassembler.memory() > 0);
        }
        reassembler.finish(&mut |datagram| *(if datagram.whole { &mut whole } else { &mut heads }) += 1);
        let counters = reassembler.counters();
        prop_assert_eq!((counters.whole, counters.heads), (whole, heads));
        prop_assert!(counters.heads <= counters.lost.iter().sum());
        prop_assert_eq!(reassembler.memory(), 0);
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(version in prop::sample::select(vec![0x45, 0x4f, 0x60]), bytes in any::<Vec<u8>>()) {
        let packet = [&[version], &bytes[..]].concat();
        if let Some(fragment) = read(&packet) {
            prop_assert!(packet.len() >= fragment.bytes.len() && fragment.bytes.len() <= fragment.len as usize);
        }
    }
}
