//! Sends the packets of a capture file over TZSP, as a router would: for tests and demonstrations.

#![expect(clippy::print_stdout, reason = "a program for the command line")]

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader};
use std::net::{ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use packet::LinkType;
use packet::tzsp::{Encapsulation, PacketType, Tag, TzspHeader, encode};
use pcap_file::pcap::PcapReader;

const HELP: &str = "\
tzsp_send: sends the packets of a pcap file over TZSP, as RouterOS does

    cargo run --release -p source --example tzsp_send -- FILE HOST:PORT [FLAG]...

FILE is a pcap file whose link type TZSP can carry: Ethernet, 802.11, Prism or AVS.

    --rate N      packets per second; default: as fast as the socket accepts them
    --repeat N    sends the file N times; default 1
    --segment     lets the kernel split trains of equally long datagrams (UDP_SEGMENT)
    --tags        sends tags before each packet: padding, RSSI, and its length on the wire
    --transmit    marks the packets as to be transmitted (type 1), as some routers do
    --keepalives  sends a keepalive before every hundredth packet

The kernel fragments packets that exceed the MTU. At the end, the number of packets sent is printed.
";

/// Maximum datagrams in a train (`UDP_MAX_SEGMENTS` before Linux 6.9), and maximum bytes.
const TRAIN: usize = 64;
const TRAIN_LEN: usize = 65_000;

/// How far ahead of its rate the sender may be: a sleep takes longer than a packet.
const AHEAD: Duration = Duration::from_millis(1);

struct Settings {
    file: String,
    target: String,
    rate: Option<f64>,
    repeat: u64,
    segment: bool,
    tags: bool,
    transmit: bool,
    keepalives: bool,
}

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args().skip(1)) {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}\n\n{HELP}");
            return ExitCode::from(64);
        }
    };
    match send(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

impl Settings {
    /// `None` if help was requested.
    fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut places = Vec::new();
        let (mut rate, mut repeat) = (None, 1);
        let (mut segment, mut tags, mut transmit, mut keepalives) = (false, false, false, false);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word}: a number is missing"));
            let no_number = |text: &str| format!("{word}: `{text}` is not a number above 0");
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--rate" => {
                    let text = value()?;
                    let number = text.parse().ok().filter(|&rate: &f64| rate > 0.0);
                    rate = Some(number.ok_or_else(|| no_number(&text))?);
                }
                "--repeat" => {
                    let text = value()?;
                    repeat = text.parse().map_err(|_| no_number(&text))?;
                }
                "--segment" => segment = true,
                "--tags" => tags = true,
                "--transmit" => transmit = true,
                "--keepalives" => keepalives = true,
                flag if flag.starts_with('-') => return Err(format!("{flag}: no such flag")),
                _ => places.push(word),
            }
        }
        let [file, target] = <[String; 2]>::try_from(places)
            .map_err(|places| format!("expected FILE and HOST:PORT, got {places:?}"))?;
        Ok(Some(Self { file, target, rate, repeat, segment, tags, transmit, keepalives }))
    }
}

/// Reads the file, then sends it, so that reading does not slow down sending.
fn send(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let datagrams = datagrams(settings)?;
    let target = settings.target.to_socket_addrs()?.next().ok_or("the host has no address")?;
    let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(target)?;
    let mut sender = Sender { socket, train: Vec::new(), lens: Vec::new(), segment_len: 0 };
    let started = Instant::now();
    let mut sent = 0_u64;
    for _ in 0..settings.repeat {
        for datagram in &datagrams {
            if settings.keepalives && sent.is_multiple_of(100) {
                sender.flush()?;
                sender.send_one(&[1, 4, 0, 0])?;
            }
            if let Some(rate) = settings.rate {
                let due = Duration::from_secs_f64(sent as f64 / rate);
                let early = due.saturating_sub(started.elapsed());
                if early > AHEAD {
                    sender.flush()?;
                    std::thread::sleep(early);
                }
            }
            if settings.segment {
                sender.send_in_train(datagram)?;
            } else {
                sender.send_one(datagram)?;
            }
            sent += 1;
        }
    }
    sender.flush()?;
    let seconds = started.elapsed().as_secs_f64();
    println!("sent {sent} packets in {seconds:.3} s: {:.0} a second", sent as f64 / seconds);
    Ok(())
}

/// The datagrams for all packets of the file.
fn datagrams(settings: &Settings) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut reader = PcapReader::new(BufReader::new(File::open(&settings.file)?))?;
    let link_type = LinkType(u32::from(reader.header().datalink));
    let encapsulation =
        Encapsulation::of(link_type).ok_or_else(|| format!("TZSP cannot carry {link_type}"))?;
    let packet_type = if settings.transmit { PacketType::Transmit } else { PacketType::Received };
    let mut datagrams = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        let original = u16::try_from(packet.orig_len).unwrap_or(u16::MAX).to_be_bytes();
        let tags = [
            Tag { number: Tag::PAD, value: &[] },
            // RSSI: -60 dBm.
            Tag { number: 10, value: &[0xc4] },
            Tag { number: Tag::ORIGINAL_LEN, value: &original },
        ];
        let tags = if settings.tags { &tags[..] } else { &[] };
        let mut datagram = Vec::new();
        encode(&TzspHeader { packet_type, encapsulation, tags }, &packet.data, &mut datagram);
        datagrams.push(datagram);
    }
    Ok(datagrams)
}

/// A socket, and the train that waits for more datagrams.
struct Sender {
    socket: UdpSocket,
    train: Vec<u8>,
    /// The length of each datagram in the train.
    lens: Vec<usize>,
    /// The length into which the socket splits trains; 0: it does not split.
    segment_len: usize,
}

impl Sender {
    /// All datagrams of a train have the same length, except for the last, which may be shorter.
    fn send_in_train(&mut self, datagram: &[u8]) -> io::Result<()> {
        let joins = match self.lens[..] {
            [] => true,
            [first, .., last] if last < first => false,
            [first, ..] => datagram.len() <= first,
        };
        let fits = self.lens.len() < TRAIN && self.train.len() + datagram.len() <= TRAIN_LEN;
        if !(joins && fits) {
            self.flush()?;
        }
        self.train.extend_from_slice(datagram);
        self.lens.push(datagram.len());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(&first) = self.lens.first() else { return Ok(()) };
        self.cut_into(if self.lens.len() > 1 { first } else { 0 })?;
        let sent = skip_refusals(self.socket.send(&self.train));
        self.train.clear();
        self.lens.clear();
        sent
    }

    fn send_one(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.cut_into(0)?;
        skip_refusals(self.socket.send(datagram))
    }

    fn cut_into(&mut self, segment_len: usize) -> io::Result<()> {
        if segment_len == self.segment_len {
            return Ok(());
        }
        setsockopt(&self.socket, sockopt::UdpGsoSegment, &(segment_len as i32))?;
        self.segment_len = segment_len;
        Ok(())
    }
}

/// A closed port does not stop a router from sending.
fn skip_refusals(sent: io::Result<usize>) -> io::Result<()> {
    match sent {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}
