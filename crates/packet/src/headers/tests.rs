//! Frames are in hexadecimal, one string per layer.

use proptest::prelude::*;

use super::*;

const MACS: &str = "020000000001 020000000002";
/// 10.0.0.1 to 10.0.0.2, 44 bytes, DF, TCP.
const IP4: &str = "4500 002c 0001 4000 40 06 0000 0a000001 0a000002";
/// 2001:db8::1 to 2001:db8::2, 24 bytes of TCP.
const IP6: &str = "60000000 0018 06 40 20010db8000000000000000000000001 20010db8000000000000000000000002";
/// Port 40000 to 80, sequence number 1000, acknowledgment 2000, ACK, window 512, four bytes of data.
const TCP: &str = "9c40 0050 000003e8 000007d0 5010 0200 0000 0000 61626364";
/// Port 40000 to 53, 12 bytes.
const UDP: &str = "9c40 0035 000c 0000 61626364";

fn bytes(layers: &[&str]) -> Vec<u8> {
    let digits: Vec<u8> =
        layers.concat().chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {layers:?}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn parse(link_type: LinkType, layers: &[&str]) -> Headers {
    let bytes = bytes(layers);
    let headers = Headers::parse(link_type, &bytes, bytes.len() as u32);
    assert_eq!(headers.family, address_family(link_type, &bytes));
    headers
}

/// The headers in a line.
fn line(headers: &Headers) -> String {
    let mut line = headers.family.to_string();
    if let Some(interface) = headers.interface {
        line += &format!(" if{interface}");
    }
    let Some(ip) = headers.ip else { return line };
    line += &format!(" {}>{} {} len={}", ip.src, ip.dst, ip.protocol, ip.total_len);
    match (ip.fragment, ip.first_fragment) {
        (true, true) => line += " first fragment",
        (true, false) => line += " fragment",
        (false, _) => {}
    }
    match headers.transport {
        Transport::Tcp(t) => {
            line += &format!(" tcp {}>{} {:?} data={}", t.src_port, t.dst_port, t.flags, t.payload_len);
            if let Some(shift) = t.window_scale {
                line += &format!(" scale={shift}");
            }
        }
        Transport::Udp(u) => {
            line += &format!(" udp {}>{} len={} at={}", u.src_port, u.dst_port, u.len, u.payload_at);
        }
        Transport::Other => {}
    }
    line
}

#[track_caller]
fn check(link_type: LinkType, layers: &[&str], expected: &str) {
    assert_eq!(line(&parse(link_type, layers)), expected);
}

const V4: &str = "IPv4 10.0.0.1>10.0.0.2 6 len=44 tcp 40000>80 [ACK] data=4";
const V6: &str = "IPv6 2001:db8::1>2001:db8::2 6 len=64 tcp 40000>80 [ACK] data=4";

#[test]
fn ip_is_found_behind_ethernet_tags() {
    for (shim4, shim6) in [
        ("0800", "86dd"),
        ("88a8 0001 0800", "88a8 0001 8100 0002 9100 0003 9200 0004 8100 0005 86dd"),
        ("8864 1100 0001 002e 0021", "8100 0001 8864 1100 0001 0041 57"),
        ("8847 00001 0 ff 00002 1 ff", "8848 00001 1 ff"),
        // An Ethernet pseudowire, with and without a control word.
        (
            "8847 00001 1 ff 00000000 020000000001 020000000002 0800",
            "8847 00001 1 ff 220000000001 020000000002 86dd",
        ),
        ("0034 aaaa03 000000 0800", "8100 0001 0048 aaaa03 0000f8 86dd"),
        ("002f 060603", "8870 aaaa03 0080c2 0007 0000 020000000001 020000000002 86dd"),
        ("8926 00000000 0800", "892f 00000000 86dd"),
        ("8909 0101 0001 0007 0800", "8909 0101 0001 0007 8100 0001 86dd"),
        (
            "88a8 0001 88e7 00000001 020000000001 020000000002 0800",
            "88e7 00000001 020000000001 020000000002 86dd",
        ),
    ] {
        check(LinkType::ETHERNET, &[MACS, shim4, IP4, TCP], V4);
        check(LinkType::ETHERNET, &[MACS, shim6, IP6, TCP], V6);
    }
}

#[test]
fn ip_is_found_in_other_link_types() {
    for (link_type, in_front4, in_front6) in [
        (LinkType::RAW, "", ""),
        (LinkType(12), "", ""),
        (LinkType::NULL, "02000000", "1e000000"),
        (LinkType::NULL, "00000002", "0000001c"),
        (LinkType::LOOP, "00000002", "00000018"),
        (LinkType::PPP, "ff03 0021", "ff03 0057"),
        (LinkType::PPP_HDLC, "21", "0f00 86dd"),
        (LinkType::PPP_ETHER, "1100 0001 002e 0021", "1100 0001 0042 0057"),
        (LinkType::C_HDLC, "0f00 0800", "0f00 86dd"),
        (LinkType::LINUX_SLL, "0000 0001 0006 0200000000010000 0800", "0000 0304 0000 0000000000000000 86dd"),
        (
            LinkType::LINUX_SLL,
            "0000 0001 0006 0200000000010000 0004 aaaa03 000000 0800",
            "0000 0001 0006 0200000000010000 8100 0001 86dd",
        ),
        (
            LinkType::IEEE802_11,
            "0802 0000 020000000001020000000002020000000003 1000 aaaa03 000000 0800",
            "8803 0000 020000000001020000000002020000000003 1000 020000000004 0000 aaaa03 000000 86dd",
        ),
        (
            LinkType::IEEE802_11_RADIOTAP,
            "0000 0900 02000000 20 8802 0000 020000000001020000000002020000000003 1000 0000 0000 aaaa03 000000 0800",
            "0000 0800 00000000 0802 0000 020000000001020000000002020000000003 1000 aaaa03 000000 86dd",
        ),
        (
            LinkType::IEEE802_11_AVS,
            "80211001 0000000c 00000000 0802 0000 020000000001020000000002020000000003 1000 aaaa03 000000 0800",
            "80211001 0000000c 00000000 8802 0000 020000000001020000000002020000000003 1000 8000 020000000005020000000006 0048 aaaa03 000000 86dd",
        ),
        (
            LinkType::NFLOG,
            "02 00 0000 0800 0100 00000000 0500 0a00 61000000 3000 0900",
            "0a 00 0000 4400 0900",
        ),
    ] {
        check(link_type, &[in_front4, IP4, TCP], V4);
        check(link_type, &[in_front6, IP6, TCP], V6);
    }
    check(
        LinkType::LINUX_SLL2,
        &["0800 0000 00000007 0001 00 06 0200000000010000", IP4, TCP],
        &V4.replace("IPv4", "IPv4 if7"),
    );
}

#[test]
fn other_protocols_have_no_ip_header() {
    for (link_type, layers) in [
        (LinkType::ETHERNET, vec![MACS, "0806 0001"]),
        (LinkType::ETHERNET, vec![MACS, "0026 424203 0000"]),
        (LinkType::ETHERNET, vec![MACS, "8864 11a7 0001 002e 0021", IP4, TCP]),
        (LinkType::ETHERNET, vec![MACS]),
        // An encrypted frame, a frame without data, a management frame.
        (LinkType::IEEE802_11, vec!["0842 0000", MACS, "020000000003 1000 aaaa03 000000 0800", IP4]),
        (LinkType::IEEE802_11, vec!["4802 0000", MACS, "020000000003 1000 aaaa03 000000 0800", IP4]),
        (LinkType::IEEE802_11, vec!["8000 0000", MACS, "020000000003 1000 aaaa03 000000 0800", IP4]),
        // Netlink messages in cooked capture.
        (LinkType::LINUX_SLL, vec!["0004 0338 0000 0000000000000000 0800", IP4]),
        (LinkType(147), vec![IP4, TCP]),
    ] {
        check(link_type, &layers, "other");
    }
}

#[test]
fn family_is_known_if_the_ip_header_is_invalid() {
    check(LinkType::ETHERNET, &[MACS, "0800 4500 002c"], "IPv4");
    check(LinkType::ETHERNET, &[MACS, "0800", &IP4.replacen("45", "44", 1), TCP], "IPv4");
    check(LinkType::ETHERNET, &[MACS, "0800", &IP4.replacen("002c", "0013", 1), TCP], "IPv4");
    check(LinkType::ETHERNET, &[MACS, "86dd", IP4, TCP], "IPv6");
}

#[test]
fn ipv6_extension_headers_are_skipped() {
    let next = |kind: &str| IP6.replacen("0018 06", &format!("0020 {kind}"), 1);
    let whole = V6.replace("len=64", "len=72");
    check(LinkType::IPV6, &[&next("00"), "06 00 0104 00000000", TCP], &whole);
    check(LinkType::IPV6, &[&next("2b"), "06 00 0000 00000000", TCP], &whole);
    check(LinkType::IPV6, &[&next("3c"), "06 00 0104 00000000", TCP], &whole);
    check(LinkType::IPV6, &[&next("33"), "06 00 0000 00000001", TCP], &whole);
    // An atomic fragment, a first fragment, a later fragment.
    check(LinkType::IPV6, &[&next("2c"), "06 00 0000 00000001", TCP], &whole);
    check(
        LinkType::IPV6,
        &[&next("2c"), "06 00 0001 00000001", TCP],
        &whole.replace("tcp", "first fragment tcp"),
    );
    check(
        LinkType::IPV6,
        &[&next("2c"), "06 00 0008 00000001", TCP],
        "IPv6 2001:db8::1>2001:db8::2 6 len=72 fragment",
    );
    // Two headers, and one that was cut within its first two bytes.
    let two = next("00").replacen("0020", "0028", 1);
    check(
        LinkType::IPV6,
        &[&two, "3c 00 0104 00000000", "06 00 0104 00000000", TCP],
        &V6.replace("len=64", "len=80"),
    );
    check(LinkType::IPV6, &[&next("00"), "06"], "IPv6 2001:db8::1>2001:db8::2 0 len=41");
}

#[test]
fn fragments_are_not_segments() {
    for (flags, is_segment, expected) in [
        ("4000", true, V4.to_owned()),
        ("2000", false, V4.replace("tcp", "first fragment tcp")),
        ("2001", false, "IPv4 10.0.0.1>10.0.0.2 6 len=44 fragment".to_owned()),
    ] {
        let ip = IP4.replacen("4000", flags, 1);
        check(LinkType::RAW, &[&ip, TCP], &expected);
        assert_eq!(parse(LinkType::RAW, &[&ip, TCP]).segment().is_some(), is_segment);
    }
}

#[test]
fn lengths_come_from_the_ip_header() {
    // Padding is not payload.
    check(LinkType::RAW, &[IP4, TCP, "000000000000"], V4);
    // The snaplen is not the length, but the frame's length is an upper bound.
    let cut = bytes(&[IP4, &TCP[..48]]);
    assert_eq!(line(&Headers::parse(LinkType::RAW, &cut, 44)), V4);
    assert_eq!(
        line(&Headers::parse(LinkType::RAW, &cut, 42)),
        V4.replace("44", "42").replace("data=4", "data=2")
    );
    // A length of 0 means that of the frame.
    let (v4, v6) = (IP4.replacen("002c", "0000", 1), IP6.replacen("0018", "0000", 1));
    let long = |layers: &[&str]| line(&Headers::parse(LinkType::RAW, &bytes(layers), 65_000));
    assert_eq!(long(&[&v4, TCP]), V4.replace("len=44", "len=65000").replace("data=4", "data=64960"));
    assert_eq!(long(&[&v6, TCP]), V6.replace("len=64", "len=65000").replace("data=4", "data=64940"));
}

#[test]
fn link_layer_length_bounds_the_packet() {
    // The IP header counts padding, the lengths of PPPoE and 802.3 do not.
    let ip = IP4.replacen("002c", "0030", 1);
    check(LinkType::ETHERNET, &[MACS, "8864 1100 0001 002e 0021", &ip, TCP, "00000000"], V4);
    check(LinkType::ETHERNET, &[MACS, "0034 aaaa03 000000 0800", &ip, TCP, "00000000"], V4);
}

#[test]
fn final_destination_is_the_end_of_the_source_route() {
    for (options, expected) in [
        ("83 0b 04 0a000003 0a000004 00", "10.0.0.4"),
        ("01 89 07 08 0a000005 01 01 01 01", "10.0.0.2"),
        ("01 89 07 04 0a000005 01 01 01 01", "10.0.0.5"),
        ("07 07 04 00000000 01 01 01 01 01", "10.0.0.2"),
        ("07 00 04 00000000 01 01 01 01 01", "10.0.0.2"),
        ("83 ff 04 00000000 01 01 01 01 01", "10.0.0.2"),
    ] {
        let layers = [&IP4.replacen("4500 002c", "4800 0038", 1), options, TCP];
        let headers = parse(LinkType::RAW, &layers);
        assert!(matches!(headers.transport, Transport::Tcp(_)), "{options}");
        let ip = headers.ip.unwrap();
        assert_eq!(ip.final_destination(&bytes(&layers)).to_string(), expected, "{options}");
    }
}

#[test]
fn tcp_header_may_be_cut_after_its_fixed_part() {
    let without = "IPv4 10.0.0.1>10.0.0.2 6 len=44";
    // Header lengths of 16, and of 60 in a segment of 24 bytes.
    check(LinkType::RAW, &[IP4, &TCP.replacen("5010", "4010", 1)], without);
    check(LinkType::RAW, &[IP4, &TCP.replacen("5010", "f010", 1)], without);
    // One byte less than the fixed part.
    let bytes = bytes(&[IP4, TCP]);
    assert_eq!(line(&Headers::parse(LinkType::RAW, &bytes[..39], 44)), without);
    // Options before the cut are read.
    let ip = IP4.replacen("002c", "0034", 1);
    let syn = "9c40 0050 000003e8 00000000 8002 0200 0000 0000 020405b4 030307";
    let cut = parse_cut(&[&ip, syn], 52);
    assert_eq!(cut, "IPv4 10.0.0.1>10.0.0.2 6 len=52 tcp 40000>80 [SYN] data=0 scale=7");
    // An option of length 0 ends the options.
    let broken = "9c40 0050 000003e8 00000000 7002 0200 0000 0000 0200 01 030307 01 01";
    assert_eq!(parse_cut(&[&ip, broken], 52), "IPv4 10.0.0.1>10.0.0.2 6 len=52 tcp 40000>80 [SYN] data=4");
}

#[test]
fn cut_options_keep_the_rest_of_the_ip_header() {
    let options = IP4.replacen("4500 002c", "4600 0030", 1);
    let whole = bytes(&[&options, "01010100", TCP]);
    let expected = Headers::parse(LinkType::RAW, &whole, 48);
    assert_eq!(line(&expected), V4.replace("len=44", "len=48"));
    for len in 20..24 {
        let cut = Headers::parse(LinkType::RAW, &whole[..len], 48);
        assert_eq!((cut.ip, cut.transport), (expected.ip, Transport::Other), "{len} bytes");
    }
}

fn parse_cut(layers: &[&str], original_len: u32) -> String {
    line(&Headers::parse(LinkType::RAW, &bytes(layers), original_len))
}

#[test]
fn udp_and_tunnels_are_read_at_the_outer_header() {
    let udp = IP4.replacen("002c", "0020", 1).replacen("40 06", "40 11", 1);
    check(LinkType::RAW, &[&udp, UDP], "IPv4 10.0.0.1>10.0.0.2 17 len=32 udp 40000>53 len=12 at=28");
    let first = udp.replacen("4000", "2000", 1);
    check(
        LinkType::RAW,
        &[&first, UDP],
        "IPv4 10.0.0.1>10.0.0.2 17 len=32 first fragment udp 40000>53 len=12 at=28",
    );
    // IP in IP is payload of the outer packet.
    let outer = IP4.replacen("002c", "0040", 1).replacen("40 06", "40 04", 1);
    check(LinkType::RAW, &[&outer, IP4, TCP], "IPv4 10.0.0.1>10.0.0.2 4 len=64");
}

fn link_types() -> impl Strategy<Value = LinkType> {
    prop_oneof![
        prop::sample::select(vec![0, 1, 8, 9, 10, 12, 50, 51, 100, 101, 104, 105, 106, 108, 113, 119, 127]),
        prop::sample::select(vec![163, 166, 192, 204, 228, 229, 239, 276]),
        any::<u32>(),
    ]
    .prop_map(LinkType)
}

/// Random bytes mixed with valid headers and EtherTypes, so that many packets reach the inner parsers.
fn packet_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(vec![0x08, 0x00]),
        Just(vec![0x86, 0xdd]),
        Just(vec![0x81, 0x00]),
        Just(vec![0x88, 0x64]),
        Just(vec![0x88, 0x47]),
        Just(vec![0xaa, 0xaa, 0x03, 0, 0, 0]),
        Just(bytes(&[MACS])),
        Just(bytes(&[IP4])),
        Just(bytes(&[IP6])),
        Just(bytes(&[TCP])),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(link_type in link_types(), bytes in packet_bytes(), original in any::<u32>()) {
        let headers = Headers::parse(link_type, &bytes, original);
        prop_assert_eq!(headers.family, address_family(link_type, &bytes));
        if let Some(ip) = headers.ip {
            let _ = ip.final_destination(&bytes);
            prop_assert!(ip.end <= original.max(bytes.len() as u32));
            if let Transport::Tcp(tcp) = headers.transport {
                prop_assert!(tcp.payload_len + 20 <= ip.total_len);
            }
        }
    }

    #[test]
    fn a_cut_packet_keeps_the_headers_before_the_cut(len in 0usize..90) {
        let bytes = bytes(&[MACS, "8100 0001 86dd", IP6, TCP]);
        let whole = Headers::parse(LinkType::ETHERNET, &bytes, bytes.len() as u32);
        let cut = Headers::parse(LinkType::ETHERNET, &bytes[..len.min(bytes.len())], bytes.len() as u32);
        prop_assert!(cut.ip.is_none() || cut.ip == whole.ip);
        prop_assert!(cut.transport == Transport::Other || cut.transport == whole.transport);
    }
}
