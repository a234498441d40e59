use std::collections::HashSet;
use std::time::Duration;

use packet::{LinkType, Record, Timestamp};
use prometheus::{Registry, TextEncoder};

use super::*;

fn all() -> ObserversConfig {
    ObserversConfig {
        scope: Scope::None,
        sizes: true,
        flows: Some(FlowsConfig::default()),
        streams: Some(StreamsConfig::default()),
        pairs: Some(PairsConfig::default()),
    }
}

fn origin(device: &str) -> Origin {
    Origin { source: "edge".into(), device: device.into(), listen_port: None }
}

/// An IPv4 packet with a TCP segment of 10.0.0.1 with `len` bytes of data.
fn segment(src_port: u16, seq: u32, len: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40 + len, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend(src_port.to_be_bytes());
    packet.extend(80_u16.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0x50, 0x10, 3, 232, 0, 0, 0, 0]);
    packet.extend(vec![0; len.into()]);
    packet
}

fn seconds(secs: u32) -> Timestamp {
    Timestamp::from_parts(1_000 + secs, 0)
}

/// Observes a batch of packets, one per second.
fn observe(observers: &Observers, origin: OriginId, start: u32, packets: &[Vec<u8>]) {
    let mut records = Vec::new();
    for (secs, packet) in (start..).zip(packets) {
        let record = Record { time: seconds(secs), original: packet.len() as u32, bytes: packet };
        record.append_to(&mut records);
    }
    let count = packets.len() as u32;
    observers.observe(&ObservedBatch {
        origin,
        link_type: LinkType::RAW,
        packets: count,
        records: &records,
        watermark: seconds(start + count),
    });
}

fn expose(observers: &Arc<Observers>) -> String {
    let registry = Registry::new();
    for collector in observers.collectors().unwrap() {
        registry.register(collector).unwrap();
    }
    let mut out = Exposition::new();
    observers.write_tables(&mut out);
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap() + out.as_str()
}

/// The value of the only sample of this name.
fn value(text: &str, name: &str) -> f64 {
    let is_named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let lines: Vec<_> = text.lines().filter(is_named).collect();
    let [line] = lines[..] else { panic!("{name}: {lines:?}") };
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_batch_feeds_all_observers() {
    let observers = Observers::new(all());
    let id = observers.register(&origin("eth0"), &[]);
    // More than one chunk; the last segment is a retransmission.
    let mut packets: Vec<_> = (0..150).map(|n| segment(1024, 1 + 10 * n, 10)).collect();
    packets.push(segment(1024, 1, 10));
    observe(&observers, id, 0, &packets);
    let text = expose(&observers);
    for (name, expected) in [
        ("packeteur_capture_bytes_sum{address_family=\"IPv4\"}", 151.0 * 50.0),
        ("packeteur_flow_packets_total", 151.0),
        ("packeteur_tcp_segments_total", 151.0),
        ("packeteur_tcp_retransmits_total", 1.0),
        ("tcp_retransmits_total", 1.0),
        ("retransmission_metric", 1.0),
        ("packeteur_pairs", 1.0),
        ("packet_count", 151.0),
    ] {
        assert_eq!(value(&text, name), expected, "{name}");
    }
    assert_eq!(observers.packets(), 151);
}

#[test]
fn observers_run_alone_too() {
    let configs = [
        (
            ObserversConfig { sizes: true, ..ObserversConfig::default() },
            "packeteur_capture_bytes_count{address_family=\"IPv4\"}",
        ),
        (
            ObserversConfig { flows: all().flows, ..ObserversConfig::default() },
            "packeteur_flow_packets_total",
        ),
        (
            ObserversConfig { streams: all().streams, ..ObserversConfig::default() },
            "packeteur_tcp_segments_total",
        ),
        (ObserversConfig { pairs: all().pairs, ..ObserversConfig::default() }, "packet_count"),
    ];
    for (config, name) in configs {
        let observers = Observers::new(config);
        let id = observers.register(&origin("eth0"), &[]);
        observe(&observers, id, 0, &[segment(1024, 1, 10), segment(1024, 1, 10)]);
        let text = expose(&observers);
        assert_eq!(value(&text, name), 2.0, "{text}");
        if config.pairs.is_some() {
            assert_eq!(value(&text, "retransmission_metric"), 1.0);
        }
    }
    let none = Observers::new(ObserversConfig::default());
    observe(&none, OriginId(0), 0, &[segment(1024, 1, 10)]);
    assert_eq!((expose(&none), none.packets()), (String::new(), 1));
}

#[test]
fn an_empty_batch_advances_the_time() {
    let age = Duration::from_secs(30);
    let observers = Observers::new(ObserversConfig {
        flows: Some(FlowsConfig { age, ..FlowsConfig::default() }),
        streams: Some(StreamsConfig { age, ..StreamsConfig::default() }),
        pairs: Some(PairsConfig { age, ..PairsConfig::default() }),
        ..all()
    });
    let id = observers.register(&origin("eth0"), &[]);
    observe(&observers, id, 0, &[segment(1024, 1, 10)]);
    let series = |text: &str| {
        let names = ["packeteur_flow_packets_total", "tcp_retransmits_total", "retransmission_metric"];
        names.map(|name| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count())
    };
    assert_eq!(series(&expose(&observers)), [1, 1, 1]);
    observe(&observers, id, 30, &[]);
    assert_eq!(series(&expose(&observers)), [1, 1, 1]);
    observe(&observers, id, 31, &[]);
    assert_eq!(series(&expose(&observers)), [0, 0, 0]);
}

#[test]
fn an_origin_registered_twice_keeps_its_id() {
    let observers = Observers::new(all());
    let first = observers.register(&origin("any"), &[]);
    assert_ne!(observers.register(&origin("eth1"), &[]), first);
    assert_eq!(observers.register(&origin("any"), &[(2, "eth0".into())]), first);
    assert_eq!(observers.snapshot().device(first, Some(2)), "eth0");
}

#[test]
fn registering_does_not_change_a_snapshot() {
    let observers = Observers::new(all());
    let before = observers.snapshot();
    observers.register(&origin("eth0"), &[]);
    assert_eq!((before.canonical_ids().count(), observers.snapshot().canonical_ids().count()), (0, 1));
}

#[test]
fn each_family_is_exposed_once() {
    let observers = Observers::new(ObserversConfig { scope: Scope::SourceAndDevice, ..all() });
    for device in ["eth0", "eth1"] {
        let id = observers.register(&origin(device), &[]);
        observe(&observers, id, 0, &[segment(1024, 1, 10)]);
    }
    let text = expose(&observers);
    let mut families = HashSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, _) = line.split_once(' ').unwrap();
        assert!(families.insert(name.to_owned()), "{name} is there twice");
    }
    // sizes 2, flows 3, streams 29 and 24, pairs 2 and 9.
    assert_eq!(families.len(), 69);
    let declared = observers.observers.iter().flat_map(|observer| observer.declarations());
    for declaration in declared.chain(sizes::DECLARATIONS) {
        assert!(families.contains(declaration.name), "{} is missing", declaration.name);
    }
}

#[test]
fn a_forgotten_origin_leaves_nothing_behind() {
    let observers = Observers::new(ObserversConfig { scope: Scope::SourceAndDevice, ..all() });
    let names: Vec<(u32, Arc<str>)> = vec![(2, "veth2".into())];
    for round in 0..3 {
        let stays = observers.register(&origin("eth0"), &[]);
        let goes = observers.register(&origin("any"), &names);
        for id in [stays, goes] {
            observe(&observers, id, 0, &[segment(1024, 1, 10)]);
        }
        assert!(expose(&observers).matches("device=\"any\"").count() > 10, "round {round}");
        observers.forget(goes);
        let text = expose(&observers);
        assert!(!text.contains("\"any\"") && !text.contains("veth2"), "{text}");
        assert!(text.contains("device=\"eth0\""));
        // The number is used again.
        assert_eq!((stays, goes), (OriginId(0), OriginId(1)));
    }
}

#[test]
fn a_number_is_not_used_again_during_a_scrape() {
    let observers = Observers::new(all());
    let first = observers.register(&origin("eth0"), &[]);
    let snapshot = observers.snapshot();
    observers.forget(first);
    assert_ne!(observers.register(&origin("eth1"), &[]), first);
    assert_eq!(snapshot.device(first, None), "eth0");
    drop(snapshot);
    assert_eq!(observers.register(&origin("eth2"), &[]), first);
}

#[test]
fn released_origins_are_forgotten_when_there_are_many() {
    // What a flood of made-up routers causes in 20 seconds.
    const ROUTERS: u32 = 20_000;
    for scope in [Scope::None, Scope::Device] {
        let observers = Observers::new(ObserversConfig { scope, ..all() });
        let stays = observers.register(&origin("eth0"), &[]);
        for router in 0..ROUTERS {
            let id = observers.register(&origin(&router.to_string()), &[]);
            if router % 100 == 0 {
                observe(&observers, id, 0, &[segment(1024, 1, 10)]);
            }
            observers.release(id);
        }
        let snapshot = observers.snapshot();
        assert!(snapshot.numbers() < 5000, "{}", snapshot.numbers());
        assert_eq!(snapshot.labels(stays), if scope == Scope::None { "" } else { "device=\"eth0\"" });
        assert_eq!(observers.register(&origin("eth0"), &[]), stays);
    }
}
