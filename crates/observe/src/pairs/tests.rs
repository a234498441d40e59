use packet::headers::{AddressFamily, Headers, Ip, Tcp, TcpFlags, Transport};
use packet::{Origin, Timestamp};
use prometheus::TextEncoder;

use super::*;
use crate::Scope;

const HERE: OriginId = OriginId(0);

/// A segment between two hosts, given by the last bytes of their addresses in 10.0.0.0/8.
struct Segment {
    millis: u64,
    hosts: (u8, u8),
    flags: u8,
    numbers: (u32, u32),
    len: u32,
}

const FIN_ACK: u8 = 0x11;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn headers(segment: &Segment, interface: Option<u32>) -> Headers {
    let address = |last| IpAddr::from([10, 0, 0, last]);
    let (src, dst) = segment.hosts;
    let (seq, ack) = segment.numbers;
    let tcp = Tcp {
        src_port: u16::from(src),
        dst_port: u16::from(dst),
        seq,
        ack,
        flags: TcpFlags(segment.flags),
        window: if segment.flags == RST { 0 } else { 100 },
        payload_len: segment.len,
        window_scale: (segment.flags == SYN).then_some(7),
        mptcp: 0,
    };
    let ip = Ip {
        src: address(src),
        dst: address(dst),
        protocol: 6,
        total_len: 40 + segment.len,
        dont_fragment: segment.flags != RST,
        fragment: false,
        first_fragment: true,
        payload_at: 20,
        end: 40 + segment.len,
    };
    Headers { family: AddressFamily::IPv4, ip: Some(ip), transport: Transport::Tcp(tcp), interface }
}

fn time(millis: u64) -> Timestamp {
    Timestamp::from_parts(1_000, 0) + Duration::from_millis(millis)
}

fn packet(interface: Option<u32>, segment: &Segment) -> ObservedPacket<'static> {
    let (time, wire_len) = (time(segment.millis), 54 + segment.len);
    ObservedPacket { time, wire_len, bytes: &[], headers: headers(segment, interface) }
}

/// Observes a packet that no other observer has analyzed.
fn observe(pairs: &mut Pairs, interface: Option<u32>, segment: &Segment) {
    let packet = packet(interface, segment);
    let analysis = pairs.analyze(HERE, &packet);
    pairs.observe(HERE, &packet, &analysis);
}

fn pairs(max_pairs: usize) -> Pairs {
    Pairs::new(PairsConfig { age: Duration::from_secs(300), max_pairs, ..PairsConfig::default() })
}

fn expose(pairs: Pairs, origins: &Origins) -> String {
    let (pairs, mut out) = (Mutex::new(pairs), Exposition::new());
    Pairs::write_table(&pairs, origins, &mut out);
    let collected = TextEncoder::new().encode_to_string(&collect::collect(&pairs, origins)).unwrap();
    out.as_str()
        .lines()
        .chain(collected.lines())
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn origins() -> Origins {
    let mut origins = Origins::new(Scope::None);
    origins.register(&Origin { source: "edge".into(), device: "any".into(), listen_port: None });
    origins.name_interfaces(HERE, &[(2, "eth0".into())]);
    origins
}

/// Host 1 sends a request, which host 2 answers after 30 ms.
const EXCHANGE: [Segment; 6] = [
    Segment { millis: 0, hosts: (1, 2), flags: SYN, numbers: (1000, 0), len: 0 },
    Segment { millis: 10, hosts: (2, 1), flags: 0x12, numbers: (5000, 1001), len: 0 },
    Segment { millis: 20, hosts: (1, 2), flags: ACK, numbers: (1001, 5001), len: 100 },
    Segment { millis: 50, hosts: (2, 1), flags: ACK, numbers: (5001, 1101), len: 300 },
    Segment { millis: 300, hosts: (2, 1), flags: ACK, numbers: (5001, 1101), len: 300 },
    Segment { millis: 301, hosts: (1, 2), flags: RST, numbers: (1101, 0), len: 0 },
];

#[test]
fn segments_are_counted_by_pair_and_device() {
    let mut pairs = pairs(10);
    for segment in &EXCHANGE {
        observe(&mut pairs, None, segment);
    }
    insta::assert_snapshot!(expose(pairs, &origins()), @r#"
    retransmission_metric{srcIp="10.0.0.1",dstIp="10.0.0.2",deviceName="any"} 0
    retransmission_metric{srcIp="10.0.0.2",dstIp="10.0.0.1",deviceName="any"} 1
    duration_metric{srcIp="10.0.0.1",dstIp="10.0.0.2",deviceName="any"} 10000000
    duration_metric{srcIp="10.0.0.2",dstIp="10.0.0.1",deviceName="any"} 30000000
    window_scale_metric{srcIp="10.0.0.1",dstIp="10.0.0.2",deviceName="any"} 1
    window_scale_metric{srcIp="10.0.0.2",dstIp="10.0.0.1",deviceName="any"} 0
    rst_metric{srcIp="10.0.0.1",dstIp="10.0.0.2",deviceName="any"} 1
    rst_metric{srcIp="10.0.0.2",dstIp="10.0.0.1",deviceName="any"} 0
    ip_df_metric{srcIp="10.0.0.1",dstIp="10.0.0.2",deviceName="any"} 2
    ip_df_metric{srcIp="10.0.0.2",dstIp="10.0.0.1",deviceName="any"} 3
    zerowindow_metric{srcIp="10.0.0.1",dstIp="10.0.0.2",deviceName="any"} 1
    zerowindow_metric{srcIp="10.0.0.2",dstIp="10.0.0.1",deviceName="any"} 0
    ip_packet_size{deviceName="any"} 760
    tcp_packet_size{deviceName="any"} 700
    packet_count{deviceName="any"} 6
    packeteur_pairs 2
    packeteur_pairs_evicted_total 0
    "#);
}

#[test]
fn the_device_is_the_named_interface_of_the_packet() {
    let mut pairs = pairs(10);
    for interface in [Some(2), Some(3), Some(4), None] {
        observe(&mut pairs, interface, &EXCHANGE[0]);
    }
    let text = expose(pairs, &origins());
    let counts: String =
        text.lines().filter(|line| line.starts_with("packet_count")).map(|l| format!("{l}\n")).collect();
    insta::assert_snapshot!(counts, @r#"
    packet_count{deviceName="any"} 3
    packet_count{deviceName="eth0"} 1
    "#);
}

#[test]
fn an_analyzed_packet_is_not_analyzed_again() {
    let [with_streams, alone] = [(); 2].map(|()| Mutex::new(pairs(10)));
    let streams = Mutex::new(Streams::new(StreamsConfig::default()));
    let origin = BatchOrigin { id: HERE, canonical: HERE, canonical_with_device: HERE };
    let chunk = || Chunk::of(origin, EXCHANGE.iter().map(|segment| packet(None, segment)).collect());
    let mut shared = chunk();
    Observer::observe(&streams, &mut shared);
    Observer::observe(&with_streams, &mut shared);
    Observer::observe(&alone, &mut chunk());
    let [with_streams, alone] = [with_streams, alone].map(Mutex::into_inner);
    assert!(with_streams.streams.is_none() && alone.streams.is_some());
    assert_eq!(expose(with_streams, &origins()), expose(alone, &origins()));
}

#[test]
fn pairs_are_evicted_and_expire() {
    let mut pairs = pairs(3);
    for (millis, host) in [(0, 1), (2_000, 2), (4_000, 3), (6_000, 1), (8_000, 4)] {
        observe(
            &mut pairs,
            None,
            &Segment { millis, hosts: (host, 9), flags: FIN_ACK, numbers: (1, 1), len: 0 },
        );
    }
    assert_eq!((pairs.table.len(), &pairs.evicted[..]), (3, &[1][..]));
    pairs.advance(HERE, time(305_000));
    assert_eq!(pairs.table.len(), 2);
    pairs.advance(HERE, time(308_001));
    assert_eq!(pairs.table.len(), 0);
}
