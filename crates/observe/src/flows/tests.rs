use std::net::IpAddr;
use std::sync::Mutex;

use insta::assert_snapshot;
use packet::{Headers, LinkType};

use super::*;
use crate::Exposition;

/// An IPv4 header with an identification, options or payload after it, and the length that it states.
fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 7, 0, 0, 64, protocol, 0, 0];
    packet.extend(from);
    packet.extend(to);
    packet
}

/// An IPv6 header, and the length of the payload that it states.
fn ipv6(from: &str, to: &str, next: u8, len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
    for address in [from, to] {
        let IpAddr::V6(address) = address.parse().unwrap() else { panic!("{address}") };
        packet.extend(address.octets());
    }
    packet
}

/// The flows of a program, and what they are told.
struct Program {
    flows: Mutex<Flows>,
    origins: Vec<Origin>,
}

impl Program {
    fn new(config: Config) -> Self {
        Self { flows: Mutex::new(Flows::new(config)), origins: Vec::new() }
    }

    fn origin(&mut self, source: &str, device: &str, listen_port: Option<u16>) -> OriginId {
        let origin = Origin { source: source.into(), device: device.into(), listen_port };
        let id = OriginId(self.origins.len() as u32);
        self.flows.get_mut().unwrap().meet(id, &origin, &[(2, "eth2".into()), (9, "eth2".into())]);
        self.origins.push(origin);
        id
    }

    fn see(&mut self, origin: OriginId, secs: u32, packet: &[u8]) {
        self.see_at(origin, secs, packet, None, packet.len() as u32);
    }

    fn see_at(&mut self, origin: OriginId, secs: u32, packet: &[u8], interface: Option<u32>, wire_len: u32) {
        let headers = Headers { interface, ..Headers::parse(LinkType::RAW, packet, wire_len) };
        let time = Timestamp::from_parts(secs, 0);
        let flows = self.flows.get_mut().unwrap();
        flows.observe(&Observed { time, wire_len, bytes: packet, headers: &headers, origin });
    }

    /// The samples of the exposition, in their order's stead sorted.
    fn samples(&self) -> String {
        let mut out = Exposition::new();
        Flows::expose(&self.flows, &mut out);
        let mut lines: Vec<_> = out.as_str().lines().filter(|line| !line.starts_with('#')).collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [198, 51, 100, 2];

#[test]
fn flows_are_named_as_the_dashboard_knows_them() {
    let mut program = Program::new(Config::default());
    let router = program.origin("here", "192.0.2.1", Some(37008));
    program.see(router, 0, &ipv4(A, B, 6, 20));
    program.see(router, 0, &ipv4(A, B, 6, 1500));
    program.see(router, 0, &ipv4(A, [224, 0, 0, 5], 89, 64));
    program.see(router, 0, &ipv6("fe80::1", "ff02::1", 58, 32));
    let mut out = Exposition::new();
    Flows::expose(&program.flows, &mut out);
    assert_snapshot!(out.as_str(), @r#"
    # HELP tzsp_observed_packets_total Packets that were observed by TZSP.
    # TYPE tzsp_observed_packets_total counter
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="tcp",listen_port="37008"} 2
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="224.0.0.5",to_type="multicast",protocol="unknown",listen_port="37008"} 1
    tzsp_observed_packets_total{from="fe80::1",from_type="private",to="ff02::1",to_type="multicast",protocol="icmpv6",listen_port="37008"} 1
    # HELP tzsp_observed_bytes_total Bytes of the IP packets that were observed by TZSP, IP headers included.
    # TYPE tzsp_observed_bytes_total counter
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="tcp",listen_port="37008"} 1520
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="224.0.0.5",to_type="multicast",protocol="unknown",listen_port="37008"} 64
    tzsp_observed_bytes_total{from="fe80::1",from_type="private",to="ff02::1",to_type="multicast",protocol="icmpv6",listen_port="37008"} 72
    # HELP packeteur_flows_overflow_total Packets that were not counted for a flow, as it was a new one and MAX_FLOWS were there.
    # TYPE packeteur_flows_overflow_total counter
    packeteur_flows_overflow_total 0
    "#);
}

#[test]
fn no_series_comes_twice() {
    // Two routers on one port, two interfaces of one name, one without a name; two protocols without a name.
    let mut program = Program::new(Config::default());
    let routers = ["192.0.2.1", "192.0.2.2"].map(|address| program.origin("here", address, Some(1)));
    let any = program.origin("here", "any", None);
    for router in routers {
        program.see(router, 0, &ipv4(A, B, 1, 100));
    }
    for index in [None, Some(2), Some(9), Some(5)] {
        program.see_at(any, 0, &ipv4(A, B, 1, 100), index, 100);
    }
    program.see(any, 0, &ipv4(A, B, 89, 100));
    program.see(any, 0, &ipv4(A, B, 112, 100));
    assert_snapshot!(program.samples(), @r#"
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="any"} 200
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="eth2"} 200
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="unknown",device="any"} 200
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="any"} 2
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="eth2"} 2
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="unknown",device="any"} 2
    packeteur_flows_overflow_total 0
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",listen_port="1"} 200
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",listen_port="1"} 2
    "#);
}

#[test]
fn a_collector_tells_sources_and_devices_apart() {
    let mut program = Program::new(Config { scope: Scope::SourceAndDevice, ..Config::default() });
    let origins = [
        program.origin("a", "192.0.2.1", Some(1)),
        program.origin("a", "192.0.2.2", Some(1)),
        program.origin("b\"", "eth0", None),
    ];
    for origin in origins {
        program.see(origin, 0, &ipv4(A, B, 17, 100));
    }
    assert_snapshot!(program.samples(), @r#"
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="b\"",device="eth0"} 100
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="b\"",device="eth0"} 1
    packeteur_flows_overflow_total 0
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.1",listen_port="1"} 100
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.2",listen_port="1"} 100
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.1",listen_port="1"} 1
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.2",listen_port="1"} 1
    "#);
}

/// What a packet is counted as: protocol and bytes; `None` if it is not.
fn check(packet: &[u8], wire_len: u32, expected: Option<(&str, u32)>) {
    let mut program = Program::new(Config::default());
    let origin = program.origin("here", "eth0", None);
    program.see_at(origin, 0, packet, None, wire_len);
    let samples = program.samples();
    let counted = samples.lines().find(|line| line.starts_with("packeteur_flow_bytes_total")).map(|line| {
        let (_, protocol) = line.split_once("protocol=\"").unwrap();
        let (_, bytes) = line.rsplit_once(' ').unwrap();
        (protocol.split('"').next().unwrap(), bytes.parse().unwrap())
    });
    assert_eq!(counted, expected, "{packet:02x?}");
}

#[test]
fn the_outermost_ip_header_is_what_counts() {
    // Cut behind the addresses; cut before their end; padded; and a length that only the frame can tell.
    check(&ipv4(A, B, 6, 1500), 20, Some(("tcp", 1500)));
    check(&ipv4(A, B, 6, 1500)[..19], 1500, None);
    check(&[ipv4(A, B, 6, 40), vec![0; 26]].concat(), 46, Some(("tcp", 40)));
    check(&ipv4(A, B, 6, 0), 9000, Some(("tcp", 9000)));
    check(&ipv6("::1", "::1", 17, 0), 70_000, Some(("udp", 70_000)));

    // Fragments, the first and the others.
    for fragmentation in [[0x20, 0], [0x20, 0xb9], [0, 0xb9]] {
        let mut fragment = ipv4(A, B, 17, 1500);
        fragment[6..8].copy_from_slice(&fragmentation);
        check(&fragment, 1500, Some(("udp", 1500)));
    }
    let fragment = [ipv6("::1", "::1", 44, 1448), vec![17, 0, 5, 0xa8, 0, 0, 0, 1]].concat();
    check(&fragment, 1488, Some(("udp", 1488)));

    // IPv4's protocol is what its header says, IPv6's what follows the extension headers.
    let authenticated = [6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    check(&[&ipv4(A, B, 51, 32), &authenticated[..]].concat(), 32, Some(("ipsecauthenticationheader", 32)));
    check(&[&ipv6("::1", "::1", 51, 12), &authenticated[..]].concat(), 52, Some(("tcp", 52)));
    check(&[ipv4(A, B, 4, 40), ipv4(B, A, 6, 20)].concat(), 40, Some(("ipv4", 40)));
    check(&[ipv6("::1", "::1", 41, 40), ipv6("::1", "::2", 6, 0)].concat(), 80, Some(("ipv6", 80)));
}

#[test]
fn a_source_route_leads_to_its_last_address() {
    let mut packet = [ipv4(A, B, 6, 40), vec![1, 131, 11, 4, 192, 0, 2, 1, 192, 0, 2, 2]].concat();
    packet[0] += 3;
    let mut program = Program::new(Config::default());
    let origin = program.origin("here", "eth0", None);
    program.see(origin, 0, &packet);
    assert_eq!(packets(&program, [192, 0, 2, 2]), Some(1));
}

#[test]
fn mapped_addresses_are_not_ipv4() {
    let mut program = Program::new(Config::default());
    let origin = program.origin("here", "eth0", None);
    program.see(origin, 0, &ipv4([10, 0, 0, 1], [10, 0, 0, 2], 6, 40));
    program.see(origin, 0, &ipv6("::a00:1", "::a00:2", 6, 40));
    assert_eq!(program.flows.get_mut().unwrap().len(), 2);
}

/// Packets of the flow to `to`, by the exposition.
fn packets(program: &Program, to: [u8; 4]) -> Option<u64> {
    let to = format!("to=\"{}\"", IpAddr::from(to));
    let samples = program.samples();
    let line = samples.lines().find(|line| line.contains("packets") && line.contains(&to))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_silent_flow_leaves_and_a_speaking_one_never_goes_back() {
    let age = Duration::from_secs(160);
    let mut program = Program::new(Config { age, ..Config::default() });
    let origin = program.origin("here", "eth0", None);
    let idle = |program: &mut Program, secs| {
        program.flows.get_mut().unwrap().advance(origin, Timestamp::from_parts(secs, 0));
    };
    let (speaking, silent, late) = ([192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]);
    for secs in 0..1000 {
        program.see(origin, secs, &ipv4(A, speaking, 6, 40));
        assert_eq!(packets(&program, speaking), Some(u64::from(secs) + 1));
        if secs <= 20 {
            program.see(origin, secs, &ipv4(A, silent, 6, 40));
        }
        // Silent for as long as it may be, and then for longer.
        if secs == 0 || secs == 160 || secs == 325 {
            program.see(origin, secs, &ipv4(A, late, 6, 40));
        }
        let expected = match secs {
            0..160 => Some(1),
            160..=320 => Some(2),
            325..=485 => Some(1),
            _ => None,
        };
        assert_eq!(packets(&program, late), expected, "{secs}");
        idle(&mut program, secs);
        assert_eq!(packets(&program, silent), (secs <= 180).then_some(u64::from(secs.min(20)) + 1), "{secs}");
    }
    assert_eq!(program.flows.get_mut().unwrap().len(), 1);
    idle(&mut program, 999 + 160);
    assert_eq!(packets(&program, speaking), Some(1000));
    idle(&mut program, 999 + 161);
    assert_eq!(packets(&program, speaking), None);
    assert!(program.flows.get_mut().unwrap().is_empty());
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut program =
        Program::new(Config { max_flows: 2, age: Duration::from_secs(16), ..Config::default() });
    let origin = program.origin("here", "eth0", None);
    for (secs, last) in [(0, 1), (0, 2), (1, 3), (1, 3), (1, 1), (16, 3)] {
        program.see(origin, secs, &ipv4(A, [192, 0, 2, last], 6, 40));
    }
    // The third finds no place until the second has been silent for long enough.
    assert_eq!([1, 2, 3].map(|last| packets(&program, [192, 0, 2, last])), [Some(2), Some(1), None]);
    program.see(origin, 17, &ipv4(A, [192, 0, 2, 3], 6, 40));
    assert_eq!([1, 2, 3].map(|last| packets(&program, [192, 0, 2, last])), [Some(2), None, Some(1)]);
    assert!(program.samples().contains("packeteur_flows_overflow_total 3"));
}

#[test]
fn who_was_not_introduced_counts_too() {
    let mut program = Program::new(Config::default());
    program.see(OriginId(7), 0, &ipv4(A, B, 6, 40));
    assert!(program.samples().contains("protocol=\"tcp\",device=\"\"} 1"));
}

#[test]
fn a_flow_that_returns_during_a_scrape_is_there_once() {
    // As the scrape sees it: copied, then gone and back, in whatever place.
    let mut program = Program::new(Config { age: Duration::from_secs(16), ..Config::default() });
    let origin = program.origin("here", "eth0", None);
    program.see(origin, 0, &ipv4(A, B, 6, 40));
    let began = program.flows.get_mut().unwrap().began;
    let copied = |program: &mut Program| program.flows.get_mut().unwrap().counters(0, began).count();
    assert_eq!(copied(&mut program), 1);
    program.flows.get_mut().unwrap().advance(origin, Timestamp::from_parts(60, 0));
    program.see(origin, 60, &ipv4(A, B, 6, 40));
    assert_eq!((copied(&mut program), packets(&program, B)), (0, Some(1)));
}
