//! Capture files of every kind, made here, come out packet by packet as they went in.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use batch::{Batch, Limits};
use packet::{LinkType, Records, Timestamp};
use proptest::prelude::*;
use source::{File, FileError, Mesh, Outlet, Pace, Quota, Run, Sieve};

/// Time, original length, bytes.
type Packet = (u64, u32, Vec<u8>);

const LIMITS: Limits = Limits { bytes: 4096, delay: Duration::from_millis(50) };

#[derive(Default)]
struct Collected {
    batches: Vec<Batch>,
}

impl Outlet for Collected {
    fn send(&mut self, batch: Batch) {
        self.batches.push(batch);
    }

    fn spare(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

impl Collected {
    fn packets(&self) -> Vec<Packet> {
        let records = self.batches.iter().flat_map(|batch| Records::new(batch.payload()));
        records.map(|r| (r.time.as_nanos(), r.original, r.bytes.to_vec())).collect()
    }

    fn of(&self, device: &str) -> Vec<u64> {
        let of_device = self.batches.iter().filter(|batch| *batch.interface().origin.device == *device);
        of_device.flat_map(|batch| Records::new(batch.payload())).map(|r| r.time.as_nanos()).collect()
    }
}

fn run(quota: Option<u64>) -> Run {
    Run {
        source: "test".into(),
        epoch: Timestamp::ZERO,
        limits: LIMITS,
        stop: Arc::new(AtomicBool::new(false)),
        quota: Arc::new(Quota::new(quota)),
        counted: true,
        in_order: false,
    }
}

/// A file that goes away with the test.
struct Made(PathBuf);

impl Made {
    fn new(bytes: &[u8]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pcktr-files-{}-{number}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn open(&self, run: Run) -> Result<File, FileError> {
        File::open(self.0.to_str().unwrap(), run)
    }

    /// What comes out, and how it ends.
    fn read(&self) -> (Collected, Result<(), FileError>) {
        let mut collected = Collected::default();
        let ended = self.open(run(None)).and_then(|file| file.capture(&mut collected));
        (collected, ended)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    big_endian: bool,
    magic: u32,
}

impl Kind {
    fn word(self, word: u32) -> [u8; 4] {
        if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn unit(self) -> u64 {
        if self.magic == 0xa1b2_3c4d { 1 } else { 1000 }
    }

    fn file(self, packets: &[Packet]) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [self.magic, 0, 0, 0, 65_535, 1] {
            out.extend(self.word(word));
        }
        for (nanos, original, bytes) in packets {
            let fraction = nanos % 1_000_000_000 / self.unit();
            for word in [(nanos / 1_000_000_000) as u32, fraction as u32, bytes.len() as u32, *original] {
                out.extend(self.word(word));
            }
            if self.magic == 0xa1b2_cd34 {
                out.extend([9; 8]);
            }
            out.extend(bytes);
        }
        out
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    let magic = prop_oneof![Just(0xa1b2_c3d4_u32), Just(0xa1b2_3c4d), Just(0xa1b2_cd34)];
    (any::<bool>(), magic).prop_map(|(big_endian, magic)| Kind { big_endian, magic })
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    // Whole microseconds, so that every kind can hold them; and now and then one larger than a batch.
    let bytes = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        1 => prop::collection::vec(any::<u8>(), 4000..9000),
    ];
    prop::collection::vec((0..u64::from(u32::MAX) * 1_000_000, any::<u32>(), bytes), 0..60).prop_map(
        |packets| {
            packets.into_iter().map(|(micros, original, bytes)| (micros * 1000, original, bytes)).collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_kind_of_pcap_is_read(kind in kind(), packets in packets()) {
        let (collected, ended) = Made::new(&kind.file(&packets)).read();
        prop_assert!(ended.is_ok());
        prop_assert_eq!(collected.packets(), packets);
        let last = collected.batches.last().unwrap();
        prop_assert!(last.ends());
        prop_assert_eq!(collected.batches.iter().filter(|batch| batch.ends()).count(), 1);
    }

    #[test]
    fn what_is_whole_is_kept_of_a_cut_file(kind in kind(), packets in packets(), cut in any::<prop::sample::Index>()) {
        let whole = kind.file(&packets);
        let len = 24 + cut.index(whole.len() - 24 + 1);
        let (collected, ended) = Made::new(&whole[..len]).read();
        let kept = collected.packets();
        prop_assert_eq!(&kept[..], &packets[..kept.len()]);
        prop_assert_eq!(kind.file(&kept).len() == len, ended.is_ok());
        if let Err(error) = ended {
            let FileError::Cut { packet, .. } = error else { panic!("{error}") };
            prop_assert_eq!(packet, kept.len() as u64 + 1);
        }
    }

    #[test]
    fn a_quota_ends_it_exactly(kind in kind(), packets in packets(), quota in 0_u64..70) {
        let made = Made::new(&kind.file(&packets));
        let mut collected = Collected::default();
        made.open(run(Some(quota))).unwrap().capture(&mut collected).unwrap();
        prop_assert_eq!(collected.packets().len(), packets.len().min(quota as usize));
    }

    #[test]
    fn any_bytes_are_safe(kind in kind(), packets in packets(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..9)) {
        let mut bytes = kind.file(&packets);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Made::new(&bytes).read();
    }
}

/// Blocks of pcapng, little-endian.
mod pcapng {
    pub(super) fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let len = (padded as u32 + 12).to_le_bytes();
        let mut out = [&kind.to_le_bytes(), &len, body].concat();
        out.resize(8 + padded, 0);
        out.extend(len);
        out
    }

    pub(super) fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let mut out = [&code.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    pub(super) fn section() -> Vec<u8> {
        block(0x0a0d_0d0a, &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat())
    }

    pub(super) fn interface(link_type: u16, options: &[Vec<u8>]) -> Vec<u8> {
        let fixed = [&link_type.to_le_bytes()[..], &[0, 0], &262_144_u32.to_le_bytes()].concat();
        block(
            1,
            &[fixed, options.concat(), if options.is_empty() { Vec::new() } else { option(0, &[]) }].concat(),
        )
    }

    pub(super) fn packet(interface: u32, ticks: u64, bytes: &[u8]) -> Vec<u8> {
        let len = (bytes.len() as u32).to_le_bytes();
        let high = ((ticks >> 32) as u32).to_le_bytes();
        block(
            6,
            &[&interface.to_le_bytes()[..], &high, &(ticks as u32).to_le_bytes(), &len, &len, bytes].concat(),
        )
    }

    pub(super) fn simple_packet(bytes: &[u8]) -> Vec<u8> {
        block(3, &[&(bytes.len() as u32).to_le_bytes()[..], bytes].concat())
    }
}

#[test]
fn pcapng_has_interfaces_and_clocks_of_its_own() {
    let name = |name: &str| pcapng::option(2, name.as_bytes());
    let file = [
        pcapng::section(),
        pcapng::interface(1, &[name("eth0"), pcapng::option(3, b"uplink"), pcapng::option(11, b"\0udp")]),
        pcapng::interface(101, &[name("tun0"), pcapng::option(9, &[9])]),
        pcapng::packet(0, 1_000_001, b"one"),
        pcapng::packet(1, 1_000_000_002, b"two"),
        pcapng::block(0xbad, b"unknown blocks are skipped"),
        pcapng::packet(0, 1_000_002, b"three"),
        pcapng::section(),
        pcapng::interface(1, &[]),
        pcapng::simple_packet(b"four"),
        pcapng::packet(0, 5, b"an old one"),
    ]
    .concat();
    let made = Made::new(&file);
    let (collected, ended) = made.read();
    ended.unwrap();
    assert_eq!(collected.of("eth0"), [1_000_001_000, 1_000_002_000]);
    assert_eq!(collected.of("tun0"), [1_000_000_002]);
    let unnamed = made.0.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        collected.of(unnamed),
        [1_000_002_000, 5000],
        "a simple packet is not before the one in front of it"
    );
    let eth0 = collected.batches.iter().find(|batch| *batch.interface().origin.device == *"eth0").unwrap();
    let interface = eth0.interface();
    assert_eq!((&*interface.description, &*interface.filter), ("uplink", "udp"));
    let types: Vec<_> = collected.batches.iter().map(|batch| batch.interface().link_type).collect();
    assert!(types.contains(&LinkType::RAW) && types.contains(&LinkType::ETHERNET));
    assert_eq!(collected.batches.iter().filter(|batch| batch.ends()).count(), 3);
}

/// What the error of a file with these bytes says, without its path.
fn error(bytes: &[u8]) -> String {
    let made = Made::new(bytes);
    let error = made.read().1.expect_err("this is no capture").to_string();
    error.replace(made.0.to_str().unwrap(), "FILE")
}

#[test]
fn errors_say_what_is_wrong() {
    let pcap = Kind { big_endian: false, magic: 0xa1b2_3c4d }.file(&[(1, 3, b"abc".to_vec())]);
    insta::assert_snapshot!(error(b""), @"READ_FILE: `FILE` is no capture: it is empty");
    insta::assert_snapshot!(error(b"GIF89a"), @"READ_FILE: `FILE` is no capture: it begins with none of the magic numbers of pcap and pcapng");
    insta::assert_snapshot!(error(&[0x1f, 0x8b, 8, 0]), @"READ_FILE: `FILE` is no capture: it is compressed by gzip: `zcat FILE | pcktr --read-file -`");
    insta::assert_snapshot!(error(&pcap[..20]), @"READ_FILE: `FILE` is no capture: it ends within the header of the file");
    insta::assert_snapshot!(error(&pcap[..30]), @"READ_FILE: `FILE` is cut off in the middle of packet 1; the 0 before it are whole");
    let mut huge = pcap.clone();
    huge[24 + 11] = 1;
    insta::assert_snapshot!(error(&huge), @"READ_FILE: `FILE` is damaged behind packet 0: the next packet claims 16777219 bytes, more than 262144");
    let stray = [pcapng::section(), pcapng::packet(7, 0, b"")].concat();
    insta::assert_snapshot!(error(&stray), @"READ_FILE: `FILE` is damaged behind packet 0: a packet is of interface 7, which is not described");
    let missing = File::open("/does/not/exist", run(None)).unwrap_err();
    insta::assert_snapshot!(missing, @"READ_FILE: cannot open `/does/not/exist`: No such file or directory (os error 2)");
}

#[test]
fn a_sieve_filters_cuts_and_counts() {
    let ethernet = |kind: u16, len: usize| {
        let mut frame = vec![0; len];
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        frame
    };
    let packets: Vec<_> = (0..10_u64)
        .map(|nanos| (nanos, 99, ethernet(if nanos % 2 == 0 { 0x0806 } else { 0x86dd }, 60)))
        .collect();
    let made = Made::new(&Kind { big_endian: false, magic: 0xa1b2_3c4d }.file(&packets));
    let run = run(Some(3));
    let mesh = Mesh { filter: Some("arp".to_owned()), snaplen: 20 };
    let mut collected = Collected::default();
    let mut sieve = Sieve::new(mesh.clone(), &mut collected, run.clone(), Pace::Stored);
    made.open(run.uncounted()).unwrap().capture(&mut sieve).unwrap();
    sieve.end();
    let expected: Vec<_> = [0, 2, 4].map(|nanos| (nanos, 99, ethernet(0x0806, 20))).into();
    assert_eq!(collected.packets(), expected);
    let interface = collected.batches[0].interface();
    assert_eq!((interface.snaplen, &*interface.filter), (20, "arp"));
    let wrong = Mesh { filter: Some("arp or".to_owned()), ..mesh };
    let wrong = wrong.compile(LinkType::ETHERNET).map(|_| ()).unwrap_err();
    assert_eq!((wrong.filter.as_str(), wrong.link_type), ("arp or", LinkType::ETHERNET));
    // The rest of the words are libpcap's.
    assert!(wrong.to_string().ends_with(", behind `arp`"), "{wrong}");
}
