//! Tests with segments described in text.

mod rules;
mod series;
mod table;

use std::fmt::Write;
use std::time::Duration;

use packet::headers::{AddressFamily, Headers, Ip, Tcp, TcpFlags, Transport};
use packet::{Origin, Timestamp};

use super::{Event, SegmentAnalysis, Streams, StreamsConfig};
use crate::{ObservedPacket, OriginId, Origins, Scope};

/// The default origin.
const HERE: OriginId = OriginId(0);

/// A segment described as `milliseconds direction flags seq ack`, followed by options, whose defaults are `len=0`,
/// `win=1000`, no `ws=`, no `mptcp=`, `a=40000` and `b=80` (ports).
///
/// `>` is from 10.0.0.1 to 10.0.0.2, `<` the reverse. Flags are letters, `-` for none.
#[derive(Debug)]
struct Described {
    time: Timestamp,
    headers: Headers,
}

/// The time of millisecond 0, in seconds.
const START: u32 = 1_700_000_000;

fn at(millis: f64) -> Timestamp {
    Timestamp::from_parts(START, 0) + Duration::from_nanos((millis * 1e6).round() as u64)
}

impl Described {
    fn new(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let mut word = || words.next().unwrap_or_else(|| panic!("`{text}` is too short"));
        let time = at(word().parse().unwrap());
        let back = word() == "<";
        let letters = "FSRPAUEC";
        let flags = word().chars().filter_map(|c| letters.find(c)).fold(0, |flags, bit| flags | 1 << bit);
        let (seq, ack): (u32, u32) = (word().parse().unwrap(), word().parse().unwrap());
        let (mut len, mut window, mut ports) = (0, 1_000, (40_000, 80));
        let (mut window_scale, mut mptcp) = (None, 0);
        for option in words {
            let (name, value) = option.split_once('=').unwrap();
            match name {
                "len" => len = value.parse().unwrap(),
                "win" => window = value.parse().unwrap(),
                "ws" => window_scale = Some(value.parse().unwrap()),
                "mptcp" => mptcp = value.parse().unwrap(),
                "a" => ports.0 = value.parse().unwrap(),
                "b" => ports.1 = value.parse().unwrap(),
                _ => panic!("`{option}` in `{text}`"),
            }
        }
        let mut ends = [("10.0.0.1".parse().unwrap(), ports.0), ("10.0.0.2".parse().unwrap(), ports.1)];
        if back {
            ends.reverse();
        }
        let [(src, src_port), (dst, dst_port)] = ends;
        let flags = TcpFlags(flags);
        let tcp = Tcp { src_port, dst_port, seq, ack, flags, window, payload_len: len, window_scale, mptcp };
        let total_len = 40 + len;
        let ip = Ip {
            src,
            dst,
            protocol: 6,
            total_len,
            dont_fragment: true,
            fragment: false,
            first_fragment: true,
            payload_at: 20,
            end: total_len,
        };
        let transport = Transport::Tcp(tcp);
        Self {
            time,
            headers: Headers { family: AddressFamily::IPv4, ip: Some(ip), transport, interface: None },
        }
    }

    fn packet(&self) -> ObservedPacket<'_> {
        ObservedPacket { time: self.time, wire_len: 54, bytes: &[], headers: self.headers }
    }
}

/// Observes the segments of `text`, one per line, as captured at `origin`.
fn observe(streams: &mut Streams, origin: OriginId, text: &str) -> Vec<SegmentAnalysis> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| streams.observe(origin, &Described::new(line).packet())).collect()
}

/// Streams with enough room for the tests.
fn streams() -> Streams {
    Streams::new(StreamsConfig { max_streams: 100, ..StreamsConfig::default() })
}

fn origins() -> Origins {
    let mut origins = Origins::new(Scope::None);
    origins.register(&Origin { source: "edge".into(), device: "eth0".into(), listen_port: None });
    origins
}

const NAMES: [(Event, &str); Event::COUNT] = [
    (Event::Retransmission, "retransmission"),
    (Event::FastRetransmission, "fast"),
    (Event::SpuriousRetransmission, "spurious"),
    (Event::OutOfOrder, "out-of-order"),
    (Event::DuplicateAck, "duplicate-ack"),
    (Event::Gap, "gap"),
    (Event::ZeroWindow, "zero-window"),
    (Event::Reset, "reset"),
    (Event::KeepAlive, "keep-alive"),
    (Event::WindowFull, "window-full"),
    (Event::KeepAliveAck, "keep-alive-ack"),
    (Event::ZeroWindowProbe, "zero-window-probe"),
    (Event::ZeroWindowProbeAck, "zero-window-probe-ack"),
    (Event::WindowUpdate, "window-update"),
    (Event::AckedUnseenSegment, "acked-unseen"),
    (Event::PortReuse, "port-reuse"),
];

fn describe(analysis: &SegmentAnalysis) -> String {
    let mut text = String::new();
    for (event, name) in NAMES {
        if analysis.events.has(event) {
            write!(text, " {name}").unwrap();
        }
    }
    if let Some(nanos) = analysis.delay {
        write!(text, " delay={}", nanos as f64 / 1e6).unwrap();
    }
    text.trim().to_owned()
}

/// Checks the analysis of each segment. A line is a segment, `:`, and the expected events and delay in milliseconds.
#[track_caller]
fn check(conversation: &str) {
    let mut streams = streams();
    let expected: Vec<_> = conversation.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let found = expected.iter().map(|line| {
        let (segment, _) = line.split_once(':').unwrap_or_else(|| panic!("`{line}` expects nothing"));
        let analysis = streams.observe(HERE, &Described::new(segment).packet());
        format!("{segment}: {}", describe(&analysis)).trim().to_owned()
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found, expected);
}
