use std::net::Ipv6Addr;

use insta::assert_snapshot;
use packet::tzsp::{TzspHeader, encode};

use super::*;

/// An Ethernet frame with an IPv4 packet of `len` bytes, filled with `letter` after the headers.
fn inner(len: u16, letter: u8) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let mut frame = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.resize(14 + usize::from(len), letter);
    frame
}

/// The UDP datagram that carries an inner frame to a port.
fn datagram(port: u16, inner: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    encode(&TzspHeader::ROUTER_OS, inner, &mut payload);
    let mut datagram =
        [[0x90, 0x90], port.to_be_bytes(), (payload.len() as u16 + 8).to_be_bytes(), [0, 0]].concat();
    datagram.extend(payload);
    datagram
}

/// The IPv4 packets (raw, without a frame) that carry `datagram` with this MTU.
fn ipv4(identification: u8, datagram: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let room = (mtu - 20) / 8 * 8;
    let parts = datagram.chunks(room).enumerate();
    let packet = |(number, part): (usize, &[u8])| {
        let [high, low] = (20 + part.len() as u16).to_be_bytes();
        let offset = number * room / 8;
        let more = if offset * 8 + part.len() < datagram.len() { 0x20 } else { 0 };
        let mut packet = vec![0x45, 0, high, low, 0, identification];
        packet.extend([more | (offset >> 8) as u8, offset as u8, 64, 17, 0, 0]);
        packet.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend(part);
        packet
    };
    parts.map(packet).collect()
}

/// The same in IPv6, where a datagram that fits has no fragment header.
fn ipv6(identification: u8, datagram: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = |next, len: usize| {
        let [high, low] = (len as u16).to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
        for last in [1, 2] {
            packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).octets());
        }
        packet
    };
    if 40 + datagram.len() <= mtu {
        return vec![[&header(17, datagram.len()), datagram].concat()];
    }
    let room = (mtu - 48) / 8 * 8;
    let packet = |(number, part): (usize, &[u8])| {
        let offset = number * room;
        let field = offset as u16 | u16::from(offset + part.len() < datagram.len());
        let fragment = [&[17, 0], &field.to_be_bytes()[..], &[0, 0, 0, identification]].concat();
        [&header(44, 8 + part.len()), &fragment[..], part].concat()
    };
    datagram.chunks(room).enumerate().map(packet).collect()
}

const PORT: u16 = 37008;

/// A source of one frame per millisecond, and the packets unpacked from it.
struct Passing {
    wire: TzspFromFrames,
    millis: u64,
    given: Vec<String>,
}

impl Passing {
    fn new() -> Self {
        let wire = TzspFromFrames::new(LinkType::RAW, &[PORT, 7], ReassemblyLimits::default());
        Self { wire, millis: 0, given: Vec::new() }
    }

    fn pass(&mut self, packets: &[Vec<u8>]) {
        packets.iter().for_each(|packet| self.pass_cut(packet, packet.len()));
    }

    /// A packet cut to `captured` bytes; its headers are unchanged.
    fn pass_cut(&mut self, packet: &[u8], captured: usize) {
        let time = Timestamp::from_nanos(self.millis * 1_000_000);
        self.millis += 1;
        let frame = Record { time, original: packet.len() as u32, bytes: &packet[..captured] };
        let given = &mut self.given;
        self.wire.handle_frame(&frame, &mut |datagram| given.push(describe(&datagram)));
    }

    fn finish(mut self) -> String {
        let given = &mut self.given;
        self.wire.finish(&mut |datagram| given.push(describe(&datagram)));
        for (port, counters) in self.wire.counters().filter(|(_, counters)| counters.datagrams > 0) {
            let TzspCounters { datagrams, packets, keepalives, errors, truncated } = counters;
            given.push(format!("port {port}: {datagrams} datagrams, {packets} packets, {keepalives} keepalives, {errors:?} errors, {truncated} truncated"));
        }
        let fragments = self.wire.fragments();
        given.push(format!(
            "{} fragments: {} whole, {:?} lost",
            fragments.fragments, fragments.whole, fragments.lost
        ));
        self.given.join("\n")
    }
}

fn describe(datagram: &TzspDatagram<'_>) -> String {
    let TzspDatagram { sender, listen_port, time, link_type, original, bytes, .. } = datagram;
    let letter = bytes.last().map(|&last| char::from(last));
    let millis = time.as_nanos() / 1_000_000;
    format!("{millis} ms {sender}>{listen_port}: {link_type}, {} of {original}, {letter:?}", bytes.len())
}

#[test]
fn whole_datagrams() {
    let mut passing = Passing::new();
    passing.pass(&ipv4(1, &datagram(PORT, &inner(100, b'a')), 1500));
    passing.pass(&ipv6(2, &datagram(7, &inner(100, b'b')), 1500));
    passing.pass(&ipv4(3, &datagram(8, &inner(100, b'c')), 1500));
    // A keepalive, and Ethernet's padding after a datagram.
    passing.pass(&ipv4(4, &[0, 0, 0x90, 0x90, 0, 12, 0, 0, 1, 4, 0, 0], 1500));
    passing.pass(&ipv4(5, &[0, 0, 0x90, 0x90, 0, 12, 0, 0, 9, 0, 0, 0], 1500));
    passing.pass(&[[ipv4(6, &datagram(PORT, &[b'd'; 3]), 1500).concat(), vec![0; 9]].concat()]);
    assert_snapshot!(passing.finish(), @r#"
    0 ms 192.0.2.1>37008: EN10MB, 114 of 114, Some('a')
    1 ms 2001:db8::1>7: EN10MB, 114 of 114, Some('b')
    5 ms 192.0.2.1>37008: EN10MB, 3 of 3, Some('d')
    port 37008: 4 datagrams, 2 packets, 1 keepalives, [0, 1, 0, 0, 0, 0] errors, 0 truncated
    port 7: 1 datagrams, 1 packets, 0 keepalives, [0, 0, 0, 0, 0, 0] errors, 0 truncated
    0 fragments: 0 whole, [0, 0, 0, 0, 0] lost
    "#);
}

#[test]
fn fragments_are_reassembled() {
    let mut passing = Passing::new();
    let large = datagram(PORT, &inner(1500, b'a'));
    passing.pass(&ipv4(1, &large, 1500));
    let mut backwards = ipv6(2, &datagram(7, &inner(4000, b'b')), 1280);
    backwards.reverse();
    passing.pass(&backwards);
    // To another port, in either order.
    let mut other = ipv4(3, &datagram(8, &inner(1500, b'c')), 1500);
    passing.pass(&other);
    other.reverse();
    passing.pass(&other);
    assert_snapshot!(passing.finish(), @r#"
    1 ms 192.0.2.1>37008: EN10MB, 1514 of 1514, Some('a')
    5 ms 2001:db8::1>7: EN10MB, 4014 of 4014, Some('b')
    port 37008: 1 datagrams, 1 packets, 0 keepalives, [0, 0, 0, 0, 0, 0] errors, 0 truncated
    port 7: 1 datagrams, 1 packets, 0 keepalives, [0, 0, 0, 0, 0, 0] errors, 0 truncated
    8 fragments: 2 whole, [0, 0, 0, 0, 0] lost
    "#);
}

#[test]
fn heads_have_the_original_length_of_their_packets() {
    let mut passing = Passing::new();
    let large = datagram(PORT, &inner(1500, b'a'));
    // Lost fragments: the last of two, the middle of three, the first.
    passing.pass(&ipv4(1, &large, 1500)[..1]);
    let mut three = ipv4(2, &large, 600);
    three.remove(1);
    passing.pass(&three);
    passing.pass(&ipv6(3, &large, 1500)[1..]);
    // Truncated by the router: the UDP length is the original one, then the truncated one; the inner IP length is the
    // original.
    let [whole] = &ipv4(4, &large, 9000)[..] else { panic!() };
    let mut truncated = whole[..500].to_vec();
    truncated[2..4].copy_from_slice(&500_u16.to_be_bytes());
    passing.pass(&[truncated.clone()]);
    truncated[24..26].copy_from_slice(&480_u16.to_be_bytes());
    passing.pass(&[truncated]);
    // Cut by a snaplen: in the inner packet, in the TZSP header.
    passing.pass_cut(whole, 200);
    passing.pass_cut(whole, 30);
    assert_snapshot!(passing.finish(), @r#"
    4 ms 192.0.2.1>37008: EN10MB, 467 of 1514, Some('a')
    5 ms 192.0.2.1>37008: EN10MB, 467 of 1514, Some('a')
    6 ms 192.0.2.1>37008: EN10MB, 167 of 1514, Some('a')
    0 ms 192.0.2.1>37008: EN10MB, 1467 of 1514, Some('a')
    1 ms 192.0.2.1>37008: EN10MB, 563 of 1514, Some('a')
    port 37008: 6 datagrams, 5 packets, 0 keepalives, [1, 0, 0, 0, 0, 0] errors, 5 truncated
    4 fragments: 0 whole, [0, 0, 0, 0, 3] lost
    "#);
}

#[test]
fn an_overdue_head_is_delivered_when_time_advances() {
    let mut passing = Passing::new();
    passing.pass(&ipv4(1, &datagram(PORT, &inner(1500, b'a')), 1500)[..1]);
    assert_eq!(passing.wire.oldest(), Some(Timestamp::ZERO));
    let mut lens = Vec::new();
    for millis in [99, 100, 101] {
        let now = Timestamp::from_nanos(millis * 1_000_000);
        passing.wire.advance(now, &mut |datagram| lens.push((millis, datagram.bytes.len())));
    }
    assert_eq!((lens, passing.wire.oldest()), (vec![(100, 1467)], None));
}
