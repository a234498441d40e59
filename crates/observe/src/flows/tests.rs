use std::net::IpAddr;

use insta::assert_snapshot;
use packet::{Headers, LinkType};

use super::*;

/// An IPv4 header without options, with this total length.
fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 7, 0, 0, 64, protocol, 0, 0];
    packet.extend(from);
    packet.extend(to);
    packet
}

/// An IPv6 header with this payload length.
fn ipv6(from: &str, to: &str, next: u8, len: u16) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
    for address in [from, to] {
        let IpAddr::V6(address) = address.parse().unwrap() else { panic!("{address}") };
        packet.extend(address.octets());
    }
    packet
}

/// The observer, and the origins registered with it.
struct Observed {
    flows: Mutex<Flows>,
    origins: Vec<Origin>,
}

impl Observed {
    fn new(config: FlowsConfig, scope: Scope) -> Self {
        Self { flows: Mutex::new(Flows::new(config, scope)), origins: Vec::new() }
    }

    fn with_defaults() -> Self {
        Self::new(FlowsConfig::default(), Scope::None)
    }

    fn origin(&mut self, source: &str, device: &str, listen_port: Option<u16>) -> OriginId {
        let origin = Origin { source: source.into(), device: device.into(), listen_port };
        let id = OriginId(self.origins.len() as u32);
        self.flows.get_mut().register(id, &origin, &[(2, "eth2".into()), (9, "eth2".into())]);
        self.origins.push(origin);
        id
    }

    fn see(&mut self, origin: OriginId, secs: u32, packet: &[u8]) {
        self.see_at(origin, secs, packet, None, packet.len() as u32);
    }

    fn see_at(&mut self, origin: OriginId, secs: u32, packet: &[u8], interface: Option<u32>, wire_len: u32) {
        let headers = Headers { interface, ..Headers::parse(LinkType::RAW, packet, wire_len) };
        let time = Timestamp::from_parts(secs, 0);
        self.flows.get_mut().observe(origin, &ObservedPacket { time, wire_len, bytes: packet, headers });
    }

    /// The samples of the exposition, sorted.
    fn samples(&self) -> String {
        let mut out = Exposition::new();
        Flows::write_table(&self.flows, &mut out);
        let mut lines: Vec<_> = out.as_str().lines().filter(|line| !line.starts_with('#')).collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [198, 51, 100, 2];

#[test]
fn tzsp_flows_have_the_series_of_the_dashboard() {
    let mut observed = Observed::with_defaults();
    let router = observed.origin("here", "192.0.2.1", Some(37008));
    observed.see(router, 0, &ipv4(A, B, 6, 20));
    observed.see(router, 0, &ipv4(A, B, 6, 1500));
    observed.see(router, 0, &ipv4(A, [224, 0, 0, 5], 89, 64));
    observed.see(router, 0, &ipv6("fe80::1", "ff02::1", 58, 32));
    let mut out = Exposition::new();
    Flows::write_table(&observed.flows, &mut out);
    assert_snapshot!(out.as_str(), @r#"
    # HELP tzsp_observed_packets_total Packets received by TZSP, by flow.
    # TYPE tzsp_observed_packets_total counter
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="tcp",listen_port="37008"} 2
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="224.0.0.5",to_type="multicast",protocol="unknown",listen_port="37008"} 1
    tzsp_observed_packets_total{from="fe80::1",from_type="private",to="ff02::1",to_type="multicast",protocol="icmpv6",listen_port="37008"} 1
    # HELP tzsp_observed_bytes_total Bytes of the IP packets received by TZSP, by flow, IP headers included.
    # TYPE tzsp_observed_bytes_total counter
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="tcp",listen_port="37008"} 1520
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="224.0.0.5",to_type="multicast",protocol="unknown",listen_port="37008"} 64
    tzsp_observed_bytes_total{from="fe80::1",from_type="private",to="ff02::1",to_type="multicast",protocol="icmpv6",listen_port="37008"} 72
    "#);
}

#[test]
fn origins_and_interfaces_with_the_same_labels_share_a_series() {
    // Two routers on one port, two interfaces with the same name, one without a name, two protocols without a name.
    let mut observed = Observed::with_defaults();
    let routers = ["192.0.2.1", "192.0.2.2"].map(|address| observed.origin("here", address, Some(1)));
    let any = observed.origin("here", "any", None);
    for router in routers {
        observed.see(router, 0, &ipv4(A, B, 1, 100));
    }
    for index in [None, Some(2), Some(9), Some(5)] {
        observed.see_at(any, 0, &ipv4(A, B, 1, 100), index, 100);
    }
    observed.see(any, 0, &ipv4(A, B, 89, 100));
    observed.see(any, 0, &ipv4(A, B, 112, 100));
    assert_snapshot!(observed.samples(), @r#"
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="any"} 200
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="eth2"} 200
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="unknown",device="any"} 200
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="any"} 2
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",device="eth2"} 2
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="unknown",device="any"} 2
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",listen_port="1"} 200
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="icmp",listen_port="1"} 2
    "#);
}

#[test]
fn a_collector_labels_sources_and_devices() {
    let mut observed = Observed::new(FlowsConfig::default(), Scope::SourceAndDevice);
    let origins = [
        observed.origin("a", "192.0.2.1", Some(1)),
        observed.origin("a", "192.0.2.2", Some(1)),
        observed.origin("b\"", "eth0", None),
    ];
    for origin in origins {
        observed.see(origin, 0, &ipv4(A, B, 17, 100));
    }
    assert_snapshot!(observed.samples(), @r#"
    packeteur_flow_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="b\"",device="eth0"} 100
    packeteur_flow_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="b\"",device="eth0"} 1
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.1",listen_port="1"} 100
    tzsp_observed_bytes_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.2",listen_port="1"} 100
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.1",listen_port="1"} 1
    tzsp_observed_packets_total{from="10.0.0.1",from_type="private",to="198.51.100.2",to_type="public",protocol="udp",source="a",device="192.0.2.2",listen_port="1"} 1
    "#);
}

/// Checks the protocol and the bytes that a packet is counted as; `None` if it is not counted.
fn check(packet: &[u8], wire_len: u32, expected: Option<(&str, u32)>) {
    let mut observed = Observed::with_defaults();
    let origin = observed.origin("here", "eth0", None);
    observed.see_at(origin, 0, packet, None, wire_len);
    let samples = observed.samples();
    let counted = samples.lines().find(|line| line.starts_with("packeteur_flow_bytes_total")).map(|line| {
        let (_, protocol) = line.split_once("protocol=\"").unwrap();
        let (_, bytes) = line.rsplit_once(' ').unwrap();
        (protocol.split('"').next().unwrap(), bytes.parse().unwrap())
    });
    assert_eq!(counted, expected, "{packet:02x?}");
}

#[test]
fn the_outermost_ip_header_counts() {
    // Truncated after the addresses, truncated within them, padded, and with a length that only the frame has.
    check(&ipv4(A, B, 6, 1500), 20, Some(("tcp", 1500)));
    check(&ipv4(A, B, 6, 1500)[..19], 1500, None);
    check(&[ipv4(A, B, 6, 40), vec![0; 26]].concat(), 46, Some(("tcp", 40)));
    check(&ipv4(A, B, 6, 0), 9000, Some(("tcp", 9000)));
    check(&ipv6("::1", "::1", 17, 0), 70_000, Some(("udp", 70_000)));

    // First and later fragments.
    for fragmentation in [[0x20, 0], [0x20, 0xb9], [0, 0xb9]] {
        let mut fragment = ipv4(A, B, 17, 1500);
        fragment[6..8].copy_from_slice(&fragmentation);
        check(&fragment, 1500, Some(("udp", 1500)));
    }
    let fragment = [ipv6("::1", "::1", 44, 1448), vec![17, 0, 5, 0xa8, 0, 0, 0, 1]].concat();
    check(&fragment, 1488, Some(("udp", 1488)));

    // The protocol is that of the IPv4 header, or of the last IPv6 extension header.
    let authenticated = [6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    check(&[&ipv4(A, B, 51, 32), &authenticated[..]].concat(), 32, Some(("ipsecauthenticationheader", 32)));
    check(&[&ipv6("::1", "::1", 51, 12), &authenticated[..]].concat(), 52, Some(("tcp", 52)));
    check(&[ipv4(A, B, 4, 40), ipv4(B, A, 6, 20)].concat(), 40, Some(("ipv4", 40)));
    check(&[ipv6("::1", "::1", 41, 40), ipv6("::1", "::2", 6, 0)].concat(), 80, Some(("ipv6", 80)));
}

#[test]
fn the_destination_of_a_source_route_is_its_last_address() {
    let mut packet = [ipv4(A, B, 6, 40), vec![1, 131, 11, 4, 192, 0, 2, 1, 192, 0, 2, 2]].concat();
    packet[0] += 3;
    let mut observed = Observed::with_defaults();
    let origin = observed.origin("here", "eth0", None);
    observed.see(origin, 0, &packet);
    assert_eq!(packets(&observed, [192, 0, 2, 2]), Some(1));
}

#[test]
fn mapped_ipv6_addresses_are_not_ipv4() {
    let mut observed = Observed::with_defaults();
    let origin = observed.origin("here", "eth0", None);
    observed.see(origin, 0, &ipv4([10, 0, 0, 1], [10, 0, 0, 2], 6, 40));
    observed.see(origin, 0, &ipv6("::a00:1", "::a00:2", 6, 40));
    assert_eq!(observed.flows.get_mut().table.len(), 2);
}

/// The exposed packets of the flow to `to`.
fn packets(observed: &Observed, to: [u8; 4]) -> Option<u64> {
    let to = format!("to=\"{}\"", IpAddr::from(to));
    let samples = observed.samples();
    let line = samples.lines().find(|line| line.contains("packets") && line.contains(&to))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn idle_flows_leave_the_exposition_and_active_ones_never_decrease() {
    let age = Duration::from_secs(160);
    let mut observed = Observed::new(FlowsConfig { age, ..FlowsConfig::default() }, Scope::None);
    let origin = observed.origin("here", "eth0", None);
    let advance = |observed: &mut Observed, secs| {
        observed.flows.get_mut().advance(origin, Timestamp::from_parts(secs, 0));
    };
    let (active, idle, returning) = ([192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]);
    for secs in 0..1000 {
        observed.see(origin, secs, &ipv4(A, active, 6, 40));
        assert_eq!(packets(&observed, active), Some(u64::from(secs) + 1));
        if secs <= 20 {
            observed.see(origin, secs, &ipv4(A, idle, 6, 40));
        }
        // Idle for exactly the time limit, and then for longer.
        if secs == 0 || secs == 160 || secs == 325 {
            observed.see(origin, secs, &ipv4(A, returning, 6, 40));
        }
        let expected = match secs {
            0..160 => Some(1),
            160..=320 => Some(2),
            325..=485 => Some(1),
            _ => None,
        };
        assert_eq!(packets(&observed, returning), expected, "{secs}");
        advance(&mut observed, secs);
        assert_eq!(packets(&observed, idle), (secs <= 180).then_some(u64::from(secs.min(20)) + 1), "{secs}");
    }
    assert_eq!(observed.flows.get_mut().table.len(), 1);
    advance(&mut observed, 999 + 160);
    assert_eq!(packets(&observed, active), Some(1000));
    advance(&mut observed, 999 + 161);
    assert_eq!(packets(&observed, active), None);
    assert_eq!(observed.flows.get_mut().table.len(), 0);
}

#[test]
fn packets_of_flows_that_do_not_fit_are_counted() {
    let config = FlowsConfig { max_flows: 2, age: Duration::from_secs(16) };
    let mut observed = Observed::new(config, Scope::None);
    let origin = observed.origin("here", "eth0", None);
    for (secs, last) in [(0, 1), (0, 2), (1, 3), (1, 3), (1, 1), (16, 3)] {
        observed.see(origin, secs, &ipv4(A, [192, 0, 2, last], 6, 40));
    }
    // The third does not fit until the second expires.
    assert_eq!([1, 2, 3].map(|last| packets(&observed, [192, 0, 2, last])), [Some(2), Some(1), None]);
    observed.see(origin, 17, &ipv4(A, [192, 0, 2, 3], 6, 40));
    assert_eq!([1, 2, 3].map(|last| packets(&observed, [192, 0, 2, last])), [Some(2), None, Some(1)]);
    assert_eq!(observed.flows.get_mut().untracked, 3);
}

#[test]
fn packets_of_an_unregistered_origin_are_counted() {
    let mut observed = Observed::with_defaults();
    observed.see(OriginId(7), 0, &ipv4(A, B, 6, 40));
    assert!(observed.samples().contains("protocol=\"tcp\",device=\"\"} 1"));
}

#[test]
fn a_flow_that_restarts_during_a_scrape_is_written_once() {
    // The scrape copies it. Then it expires and restarts, in any slot.
    let mut observed =
        Observed::new(FlowsConfig { age: Duration::from_secs(16), ..FlowsConfig::default() }, Scope::None);
    let origin = observed.origin("here", "eth0", None);
    observed.see(origin, 0, &ipv4(A, B, 6, 40));
    let started = observed.flows.get_mut().started;
    let copied = |observed: &mut Observed| observed.flows.get_mut().counters(0, started).count();
    assert_eq!(copied(&mut observed), 1);
    observed.flows.get_mut().advance(origin, Timestamp::from_parts(60, 0));
    observed.see(origin, 60, &ipv4(A, B, 6, 40));
    assert_eq!((copied(&mut observed), packets(&observed, B)), (0, Some(1)));
}
