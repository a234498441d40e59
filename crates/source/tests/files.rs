//! Capture files of every kind are read packet by packet as they were written.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use batch::{Batch, BatchLimits};
use packet::{LinkType, Records, Timestamp};
use proptest::prelude::*;
use source::{
    CaptureContext, File, FileError, FilterSpec, InterfaceOrder, PacketSource, Progress, Quota, StagesConfig,
};

/// Time, original length, bytes.
type Packet = (u64, u32, Vec<u8>);

const LIMITS: BatchLimits = BatchLimits { bytes: 4096, delay: Duration::from_millis(50) };

#[derive(Default)]
struct Collected {
    batches: Vec<Batch>,
}

impl Collected {
    /// Reads a file to its end.
    fn read(&mut self, mut file: File) -> Result<(), FileError> {
        loop {
            let progress = file.poll();
            while let Some(batch) = file.poll_batch() {
                self.batches.push(batch);
            }
            if progress? == Progress::Ended {
                return Ok(());
            }
        }
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

fn context(quota: Option<u64>) -> CaptureContext {
    CaptureContext {
        source: "test".into(),
        epoch: Timestamp::ZERO,
        limits: LIMITS,
        stop: Arc::new(AtomicBool::new(false)),
        quota: Arc::new(Quota::new(quota)),
        interface_order: InterfaceOrder::Interleaved,
    }
}

/// A temporary file.
struct Made(PathBuf);

impl Made {
    fn new(bytes: &[u8]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pcktr-files-{}-{number}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn open(&self, spec: FilterSpec, context: CaptureContext) -> Result<File, FileError> {
        File::open(self.0.to_str().unwrap(), &StagesConfig { filter: spec, tzsp_ports: None }, context)
    }

    /// The batches of the file, and how reading it ended.
    fn read(&self) -> (Collected, Result<(), FileError>) {
        let mut collected = Collected::default();
        let ended = self.open(FilterSpec::KEEP_ALL, context(None)).and_then(|file| collected.read(file));
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
    // Whole microseconds, which every kind can hold. Some packets are larger than a batch.
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

#[test]
fn invalid_times_stay_within_what_a_record_holds() {
    let check = |kind: Kind, secs: u32, fraction: u32, expected: u64| {
        let mut file = kind.file(&[(0, 1, b"x".to_vec())]);
        file[24..28].copy_from_slice(&kind.word(secs));
        file[28..32].copy_from_slice(&kind.word(fraction));
        let (collected, ended) = Made::new(&file).read();
        ended.unwrap();
        // The batch's summary, which makes its watermark, agrees with its records.
        for batch in &collected.batches {
            assert_eq!(Ok(batch.extent()), packet::record::Extent::of(batch.payload()), "{kind:?}");
        }
        assert_eq!(collected.packets(), [(expected, 1, b"x".to_vec())], "{kind:?} {secs} {fraction}");
    };
    for big_endian in [false, true] {
        let nanos = Kind { big_endian, magic: 0xa1b2_3c4d };
        check(nanos, 1, 2_000_000_000, 3_000_000_000);
        check(nanos, u32::MAX, 2_000_000_000, 4_294_967_295_999_999_999);
        check(Kind { big_endian, magic: 0xa1b2_c3d4 }, u32::MAX, u32::MAX, 4_294_967_295_999_999_999);
    }
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
    fn a_truncated_file_keeps_its_whole_packets(kind in kind(), packets in packets(), cut in any::<prop::sample::Index>()) {
        let whole = kind.file(&packets);
        let len = 24 + cut.index(whole.len() - 24 + 1);
        let (collected, ended) = Made::new(&whole[..len]).read();
        let kept = collected.packets();
        prop_assert_eq!(&kept[..], &packets[..kept.len()]);
        prop_assert_eq!(kind.file(&kept).len() == len, ended.is_ok());
        if let Err(error) = ended {
            let FileError::Truncated { packet, .. } = error else { panic!("{error}") };
            prop_assert_eq!(packet, kept.len() as u64 + 1);
        }
    }

    #[test]
    fn a_quota_ends_the_file_exactly(kind in kind(), packets in packets(), quota in 0_u64..70) {
        let made = Made::new(&kind.file(&packets));
        let mut collected = Collected::default();
        collected.read(made.open(FilterSpec::KEEP_ALL, context(Some(quota))).unwrap()).unwrap();
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
fn pcapng_interfaces_have_their_own_names_and_clocks() {
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
        pcapng::packet(0, 5, b"five"),
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
        "a simple packet has the time of the packet before it"
    );
    let eth0 = collected.batches.iter().find(|batch| *batch.interface().origin.device == *"eth0").unwrap();
    let interface = eth0.interface();
    assert_eq!((&*interface.description, &*interface.filter), ("uplink", "udp"));
    let types: Vec<_> = collected.batches.iter().map(|batch| batch.interface().link_type).collect();
    assert!(types.contains(&LinkType::RAW) && types.contains(&LinkType::ETHERNET));
    assert_eq!(collected.batches.iter().filter(|batch| batch.ends()).count(), 3);
}

/// The error of a file with these bytes, without its path.
fn error(bytes: &[u8]) -> String {
    let made = Made::new(bytes);
    let error = made.read().1.expect_err("an error").to_string();
    error.replace(made.0.to_str().unwrap(), "FILE")
}

#[test]
fn errors_say_what_is_wrong() {
    let pcap = Kind { big_endian: false, magic: 0xa1b2_3c4d }.file(&[(1, 3, b"abc".to_vec())]);
    insta::assert_snapshot!(error(b""), @"READ_FILE: `FILE` is not a pcap or pcapng file: it is empty");
    insta::assert_snapshot!(error(b"GIF89a"), @"READ_FILE: `FILE` is not a pcap or pcapng file: it does not start with a magic number of pcap or pcapng");
    insta::assert_snapshot!(error(&[0x1f, 0x8b, 8, 0]), @"READ_FILE: `FILE` is not a pcap or pcapng file: it is compressed with gzip; use `zcat FILE | pcktr --read-file -`");
    insta::assert_snapshot!(error(&pcap[..20]), @"READ_FILE: `FILE` is not a pcap or pcapng file: it ends within the file header");
    insta::assert_snapshot!(error(&pcap[..30]), @"READ_FILE: `FILE` is truncated in packet 1; 0 packets were read");
    let mut huge = pcap.clone();
    huge[24 + 11] = 1;
    insta::assert_snapshot!(error(&huge), @"READ_FILE: `FILE` is corrupt after packet 0: the next packet claims 16777219 bytes, more than 262144");
    let stray = [pcapng::section(), pcapng::packet(7, 0, b"")].concat();
    insta::assert_snapshot!(error(&stray), @"READ_FILE: `FILE` is corrupt after packet 0: a packet refers to interface 7, which is not described");
    let missing = File::open("/does/not/exist", &StagesConfig::NONE, context(None)).unwrap_err();
    insta::assert_snapshot!(missing, @"READ_FILE: cannot open `/does/not/exist`: No such file or directory (os error 2)");
}

fn ethernet(kind: u16, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
    frame
}

#[test]
fn a_filter_rejects_cuts_and_counts() {
    let packets: Vec<_> = (0..10_u64)
        .map(|nanos| (nanos, 99, ethernet(if nanos % 2 == 0 { 0x0806 } else { 0x86dd }, 60)))
        .collect();
    let made = Made::new(&Kind { big_endian: false, magic: 0xa1b2_3c4d }.file(&packets));
    let spec = FilterSpec { filter: Some("arp".to_owned()), snaplen: 20 };
    let mut collected = Collected::default();
    collected.read(made.open(spec, context(Some(3))).unwrap()).unwrap();
    let expected: Vec<_> = [0, 2, 4].map(|nanos| (nanos, 99, ethernet(0x0806, 20))).into();
    assert_eq!(collected.packets(), expected);
    let interface = collected.batches[0].interface();
    assert_eq!((interface.snaplen, &*interface.filter), (20, "arp"));
}

/// Two interfaces, one of which has few packets.
fn two_interfaces() -> Vec<u8> {
    let name = |name: &str| pcapng::option(2, name.as_bytes());
    let mut file = [
        pcapng::section(),
        pcapng::interface(1, &[name("in"), pcapng::option(9, &[9])]),
        pcapng::interface(1, &[name("out"), pcapng::option(9, &[9])]),
    ]
    .concat();
    for time in 0..1000_u64 {
        file.extend(pcapng::packet(u32::from(time % 100 == 50), time, &ethernet(0x0800, 60)));
    }
    file
}

#[test]
fn a_filter_keeps_the_order_of_interfaces() {
    let made = Made::new(&two_interfaces());
    for filter in [None, Some("ip".to_owned())] {
        let spec = FilterSpec { filter, snaplen: 262_144 };
        let mut collected = Collected::default();
        collected.read(made.open(spec.clone(), context(None)).unwrap()).unwrap();
        // No batch holds a packet older than the watermark of an earlier one.
        let mut watermark = Timestamp::ZERO;
        for pair in collected.batches.chunks(2) {
            let oldest = pair.iter().flat_map(|batch| Records::new(batch.payload())).map(|r| r.time).min();
            assert!(oldest.is_none_or(|oldest| oldest >= watermark), "{spec:?}");
            watermark = pair[0].close_info().watermark;
            assert_eq!(pair[0].close_info().watermark, pair[1].close_info().watermark);
        }
        // In file order, the observers see the packets in order.
        let mut collected = Collected::default();
        let context = CaptureContext { interface_order: InterfaceOrder::FileOrder, ..context(None) };
        collected.read(made.open(spec, context).unwrap()).unwrap();
        let times: Vec<_> = collected.packets().into_iter().map(|(time, ..)| time).collect();
        assert_eq!(times, (0..1000).collect::<Vec<_>>());
    }
}
