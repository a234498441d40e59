//! Encoded batches are decoded, and invalid messages are rejected with a reason.

use std::sync::Arc;
use std::time::Duration;

use batch::{
    Batch, BatchLimits, Builder, CloseInfo, Compression, DecodeError, DecodedBatch, Interface, Order,
    SendInfo, Template,
};
use packet::record::Extent;
use packet::{LinkType, Origin, Record, Records, Timestamp};
use proptest::prelude::*;

const LIMITS: BatchLimits = BatchLimits { bytes: 4096, delay: Duration::from_millis(50) };

fn interface() -> Interface {
    let origin = Origin { source: "höst".into(), device: "any".into(), listen_port: Some(37008) };
    Interface {
        description: "Pseudo-device".into(),
        filter: "tcp or udp".into(),
        names: vec![(1, Arc::from("lo")), (7, Arc::from("wg0"))],
        ..Interface::new(origin, LinkType::LINUX_SLL2, 262_144)
    }
}

fn builder() -> Builder {
    Builder::new(Template::new(Arc::new(interface()), Timestamp::from_nanos(77)), LIMITS, Order::ByTime)
}

fn filled(packets: &[(u64, Vec<u8>)]) -> Batch {
    let mut builder = builder();
    for (nanos, bytes) in packets {
        let record = Record { time: Timestamp::from_nanos(*nanos), original: 1500, bytes };
        builder.push(&record, || Timestamp::from_nanos(1));
    }
    let closing = CloseInfo {
        watermark: Timestamp::from_nanos(5),
        captured: 9,
        dropped_kernel: 2,
        dropped_interface: 1,
        ends: true,
    };
    builder.close(closing, Vec::new)
}

fn message(mut batch: Batch, compression: Compression) -> Vec<u8> {
    batch.compress(compression);
    let send =
        SendInfo { sequence: 3, sent_before: 40, sent_at: Timestamp::from_nanos(99), dropped_relay: 4 };
    batch.into_message(&send)
}

/// Why `message` is rejected.
fn error(message: &[u8]) -> DecodeError {
    let (returned, error) = DecodedBatch::decode(message).expect_err("an invalid message");
    assert_eq!(returned, message);
    error
}

/// Decodes a message. If it is accepted, its header, its records and its extent must agree.
fn check_consistent(message: &[u8]) {
    let Ok(decoded) = DecodedBatch::decode(message) else { return };
    let header = decoded.header();
    let mut records = Records::new(decoded.records());
    let mut extent = Extent::EMPTY;
    for record in records.by_ref() {
        extent.add(record.time);
    }
    assert!(records.rest().is_empty());
    assert_eq!(extent, decoded.extent());
    assert_eq!((extent.packets, decoded.records().len()), (header.packets, header.payload_len as usize));
    // Fields are read separately; any result is fine here, a panic is not.
    let _ = Interface::decode(decoded.fields(), header.link_type, header.snaplen);
}

fn packets() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    prop::collection::vec((0..1_u64 << 60, prop::collection::vec(any::<u8>(), 0..200)), 0..40)
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

proptest! {
    #[test]
    fn encoded_batches_are_decoded(packets in packets(), compression in compression()) {
        let message = message(filled(&packets), compression);
        let decoded = DecodedBatch::decode(message.as_slice()).unwrap();
        let header = decoded.header();
        prop_assert_eq!(Interface::decode(decoded.fields(), header.link_type, header.snaplen), Ok(interface()));
        prop_assert_eq!((header.sequence, header.sent_before, header.epoch), (3, 40, 77));
        prop_assert_eq!((header.captured, header.dropped.kernel, header.dropped.interface, header.dropped.relay), (9, 2, 1, 4));
        prop_assert_eq!((header.sent_at.as_nanos(), header.watermark.as_nanos(), header.ends), (99, 5, true));
        let mut sorted = packets;
        sorted.sort_by_key(|(nanos, _)| *nanos);
        let records: Vec<_> = Records::new(decoded.records()).map(|r| (r.time.as_nanos(), r.bytes.to_vec())).collect();
        prop_assert_eq!(records, sorted);
    }

    // Arbitrary bytes after a matching header, so that they reach the decompressors and the record parser.
    #[test]
    fn arbitrary_payloads_are_rejected_or_consistent(
        payload in prop::collection::vec(prop_oneof![3 => Just(0), 1 => any::<u8>()], 0..120),
        code in 0..4_u8,
        packets in 0..4_u8,
        claimed in prop_oneof![Just(None), (0..300_u16).prop_map(Some)],
    ) {
        let mut message = message(filled(&[]), Compression::None);
        message[5] = code;
        message[20] = packets;
        let claimed = claimed.unwrap_or(payload.len() as u16);
        message[24..28].copy_from_slice(&u32::from(claimed).to_le_bytes());
        message.extend_from_slice(&payload);
        check_consistent(&message);
    }

    #[test]
    fn mutated_batches_are_rejected_or_consistent(
        packets in packets(),
        compression in compression(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = message(filled(&packets), compression);
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        check_consistent(&message);
        check_consistent(&message[..cut.index(message.len() + 1)]);
    }

    #[test]
    fn truncated_batches_are_rejected(packets in packets(), cut in any::<prop::sample::Index>()) {
        let message = message(filled(&packets), Compression::None);
        let cut = cut.index(message.len());
        let error = error(&message[..cut]);
        prop_assert!(matches!(error, DecodeError::Truncated { .. } | DecodeError::Mismatch { .. }), "{error}");
    }
}

#[test]
fn fixed_header_has_the_documented_layout() {
    let message = message(filled(&[(0x0102, vec![7; 3])]), Compression::None);
    let hex: Vec<String> = message[..104].chunks(8).map(|row| format!("{row:02x?}")).collect();
    insta::assert_snapshot!(hex.join("\n"), @r"
    [50, 4b, 54, 52, 01, 00, 01, 00]
    [b2, 00, 00, 00, 14, 01, 00, 00]
    [00, 00, 04, 00, 01, 00, 00, 00]
    [13, 00, 00, 00, 00, 00, 00, 00]
    [4d, 00, 00, 00, 00, 00, 00, 00]
    [03, 00, 00, 00, 00, 00, 00, 00]
    [28, 00, 00, 00, 00, 00, 00, 00]
    [63, 00, 00, 00, 00, 00, 00, 00]
    [05, 00, 00, 00, 00, 00, 00, 00]
    [09, 00, 00, 00, 00, 00, 00, 00]
    [02, 00, 00, 00, 00, 00, 00, 00]
    [01, 00, 00, 00, 00, 00, 00, 00]
    [04, 00, 00, 00, 00, 00, 00, 00]
    ");
}

#[test]
fn errors_name_the_cause() {
    let good = message(filled(&[(1, vec![0; 64])]), Compression::None);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        error(&bad).to_string()
    };
    insta::assert_snapshot!(error(b"GET / HTTP/1.1\r\n"), @"not a batch: the message does not begin with `PKTR`");
    insta::assert_snapshot!(error(b""), @"the batch is truncated: its header has 104 bytes, the message 0");
    insta::assert_snapshot!(error(&good[..50]), @"the batch is truncated: its header has 104 bytes, the message 50");
    insta::assert_snapshot!(with(4, &[2]), @"batch version 2 is not supported, only version 1: update the older program");
    insta::assert_snapshot!(with(5, &[9]), @"unknown batch compression 9 (known: 0 none, 1 lz4, 2 zstd)");
    insta::assert_snapshot!(with(8, &[1, 0]), @"batch header length 1 is not between 104 and 65536");
    insta::assert_snapshot!(with(20, &[2]), @"the batch's header says 2 packets, the payload has 1");
    insta::assert_snapshot!(with(24, &[81]), @"the batch's header says 81 payload bytes, the payload has 80");
    insta::assert_snapshot!(with(27, &[255]), @"batch payload length 4278190160 is above 8388608");
    let record = good.len() - 80;
    insta::assert_snapshot!(with(record + 8, &[65]), @"batch payload: a record's packet needs 65 bytes, 64 are left");
    insta::assert_snapshot!(with(record + 11, &[1]), @"batch payload: a record claims 16777280 bytes, more than 262144");
    insta::assert_snapshot!(error(&message(filled(&[]), Compression::None)[..110]), @"the batch is truncated: its header has 178 bytes, the message 110");
}

#[test]
fn decompression_is_bounded_by_the_header() {
    // The header claims fewer bytes than the payload decompresses to, then more.
    let zeroes = vec![(1, vec![0; 2000]), (2, vec![0; 2000])];
    let mut bomb = message(filled(&zeroes), Compression::Zstd);
    bomb[24..28].copy_from_slice(&100_u32.to_le_bytes());
    assert!(matches!(error(&bomb), DecodeError::Decompress { .. }));
    bomb[24..28].copy_from_slice(&5000_u32.to_le_bytes());
    assert!(matches!(error(&bomb), DecodeError::Mismatch { .. }));
}

#[test]
fn a_payload_expands_by_a_bounded_factor() {
    for (len, fits) in [(100, true), (60_000, false)] {
        // Zeroes, which become one record without bytes for every 16.
        let payload = vec![0; len / 16 * 16];
        let compressed = zstd::bulk::compress(&payload, 1).unwrap();
        let mut bomb = message(filled(&[]), Compression::None);
        bomb[5] = 2;
        bomb[20..24].copy_from_slice(&(payload.len() as u32 / 16).to_le_bytes());
        bomb[24..28].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bomb.extend_from_slice(&compressed);
        match DecodedBatch::decode(bomb) {
            Ok(batch) => assert!(fits && batch.records() == payload),
            Err((_, error)) => assert!(!fits && matches!(error, DecodeError::Expansion { .. }), "{error}"),
        }
    }
}

#[test]
fn packets_of_zeroes_are_padded_or_sent_as_they_are() {
    let zeroes: Vec<_> = (0..20).map(|nanos| (nanos, vec![0; 9000])).collect();
    let plain = message(filled(&zeroes), Compression::None);
    for (compression, ratio) in [(Compression::Zstd, 60..65), (Compression::Lz4, 1..2)] {
        let compressed = message(filled(&zeroes), compression);
        assert!(ratio.contains(&(plain.len() / compressed.len())), "{compression}: {}", compressed.len());
        assert_eq!(DecodedBatch::decode(compressed).unwrap().records(), &plain[plain.len() - 20 * 9016..]);
    }
}

#[test]
fn records_take_no_more_memory_than_they_need() {
    for (packets, len, compression, kept) in [
        (1, 100, Compression::None, false),
        (100, 100, Compression::None, true),
        (100, 100, Compression::Zstd, false),
    ] {
        let packets: Vec<_> = (0..packets).map(|nanos| (nanos, vec![7; len])).collect();
        let message = message(filled(&packets), compression);
        let len = message.len();
        let batch = DecodedBatch::decode(message).unwrap();
        let expected = batch.records().to_vec();
        let records = batch.into_records();
        assert_eq!(records.as_ref(), expected);
        assert_eq!(records.memory(), if kept { len } else { expected.len() });
    }
}

#[test]
fn odd_names_are_escaped_when_they_are_sent_and_rejected_when_they_arrive() {
    let mut odd = interface();
    odd.origin.device = "e\u{1b}[2J".into();
    odd.names = vec![(1, "\u{202e}x".into())];
    odd.filter = "tcp\nor udp".into();
    let template = Template::new(Arc::new(odd), Timestamp::ZERO);
    let mut buf = Vec::new();
    template.open(&mut buf);
    let message = template.close(buf, Extent::EMPTY, CloseInfo::default()).into_message(&SendInfo::default());
    let batch = DecodedBatch::decode(message.clone()).unwrap();
    let read = Interface::decode(batch.fields(), batch.header().link_type, 96).unwrap();
    assert_eq!((&*read.origin.device, &*read.names[0].1), ("e\\u{1b}[2J", "\\u{202e}x"));
    assert_eq!(&*read.filter, "tcp or udp");
    for (kind, name, expected) in [
        (1, "a\r\nb", "the name in batch field 1 contains the control character U+000D"),
        (2, &"x".repeat(256), "the name in batch field 2 is longer than 255 bytes"),
        (6, "\0\0\0\0\u{7f}", "the name in batch field 6 contains the control character U+007F"),
    ] {
        let mut fields = Vec::new();
        fields.extend_from_slice(&u16::to_le_bytes(kind));
        fields.extend_from_slice(&(name.len() as u16).to_le_bytes());
        fields.extend_from_slice(name.as_bytes());
        let error = Interface::decode(&fields, LinkType::ETHERNET, 96).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn unknown_fields_are_skipped_and_long_texts_truncated() {
    let mut long = interface();
    long.origin.source = "ä".repeat(5000).into();
    long.names = (0..600).map(|i| (i, Arc::from("x".repeat(100).as_str()))).collect();
    let mut builder = Builder::new(Template::new(Arc::new(long), Timestamp::ZERO), LIMITS, Order::ByTime);
    let message = message(builder.close(CloseInfo::default(), Vec::new), Compression::None);
    let decoded = DecodedBatch::decode(message.as_slice()).unwrap();
    let mut fields = decoded.fields().to_vec();
    fields.extend_from_slice(&[99, 0, 2, 0, 1, 2]);
    let read = Interface::decode(&fields, LinkType::ETHERNET, 96).unwrap();
    assert_eq!(read.origin.source.len(), 254);
    assert_eq!(read.names.len(), 512);
    assert_eq!(read.names[0].1.len(), 64);
}

#[test]
fn a_batch_closes_by_size_and_by_age() {
    let mut builder = builder();
    assert_eq!((builder.due(), builder.is_full_for(100_000)), (None, false));
    let record = Record { time: Timestamp::from_nanos(1), original: 1000, bytes: &[0; 1000] };
    for _ in 0..4 {
        assert!(!builder.is_full_for(1000));
        builder.push(&record, || Timestamp::from_nanos(10));
    }
    assert_eq!(builder.due(), Some(Timestamp::from_nanos(50_000_010)));
    assert!(builder.is_full_for(1000), "4 × 1016 bytes leave no room for a fifth");
    let batch = builder.close(CloseInfo::default(), Vec::new);
    assert_eq!((batch.packets(), builder.is_empty(), builder.due()), (4, true, None));
}

#[test]
fn a_small_batch_occupies_little_memory() {
    let mut builder = builder();
    builder.push(&Record { time: Timestamp::ZERO, original: 64, bytes: &[0; 64] }, || Timestamp::ZERO);
    let batch = builder.close(CloseInfo::default(), || Vec::with_capacity(8192));
    assert!(batch.memory() < 512, "{} bytes", batch.memory());
}

#[test]
fn late_packets_are_sorted_into_the_next_batch() {
    let mut builder = builder();
    let time = |micros: u64| Timestamp::from_nanos(micros * 1000);
    let push = |builder: &mut Builder, micros| {
        builder.push(&Record { time: time(micros), original: 4, bytes: b"abcd" }, || time(micros));
    };
    let times = |batch: &Batch| -> Vec<u64> {
        Records::new(batch.payload()).map(|record| record.time.as_nanos() / 1000).collect()
    };
    for micros in [10, 700, 690, 900] {
        push(&mut builder, micros);
    }
    let first = builder.close_until(time(400), CloseInfo::default(), Vec::new).unwrap();
    assert_eq!(
        (times(&first), first.extent().latest, builder.due()),
        (vec![10], time(10), Some(time(50_690)))
    );
    push(&mut builder, 695);
    let second = builder.close_until(time(900), CloseInfo::default(), Vec::new).unwrap();
    assert_eq!(times(&second), [690, 695, 700, 900]);
    assert!(builder.is_empty());
}

#[test]
fn a_batch_grows_while_all_of_it_is_held_back() {
    let mut builder = builder();
    let record = Record { time: Timestamp::from_nanos(9), original: 4000, bytes: &[0; 4000] };
    builder.push(&record, || Timestamp::ZERO);
    assert!(builder.is_full_for(4000));
    assert!(builder.close_until(Timestamp::ZERO, CloseInfo::default(), Vec::new).is_none());
    assert!(!builder.is_full_for(4000));
    let batch = loop {
        builder.push(&record, || Timestamp::ZERO);
        if builder.is_full_for(4000)
            && let Some(batch) = builder.close_until(Timestamp::ZERO, CloseInfo::default(), Vec::new)
        {
            break batch;
        }
    };
    assert!((500_000..1 << 20).contains(&batch.payload().len()), "{}", batch.payload().len());
}
