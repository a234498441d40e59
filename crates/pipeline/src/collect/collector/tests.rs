use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use batch::{BatchLimits, Builder, CloseInfo, Compression, Interface, Order, SendInfo, Template};
use observe::Observers;
use packet::{LinkType, Record, Records};
use sink::{CaptureFormat, Stream};

use super::*;
use crate::collect::rejections::RejectReason;

/// Encodes the batches of one source.
#[derive(Clone)]
pub(in crate::collect) struct Batches {
    interface: Interface,
    packet_len: usize,
    epoch: u64,
}

impl Batches {
    pub(in crate::collect) fn new(source: &str, link_type: LinkType) -> Self {
        let origin = Origin { source: source.into(), device: "eth0".into(), listen_port: None };
        Self { interface: Interface::new(origin, link_type, 96), packet_len: 4, epoch: 1 }
    }

    pub(in crate::collect) fn snaplen(mut self, snaplen: u32) -> Self {
        self.interface.snaplen = snaplen;
        self
    }

    pub(in crate::collect) fn names(mut self, names: Vec<(u32, Arc<str>)>) -> Self {
        self.interface.names = names;
        self
    }

    fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    fn packet_len(mut self, bytes: usize) -> Self {
        self.packet_len = bytes;
        self
    }

    /// A batch of packets at these times, in nanoseconds.
    pub(in crate::collect) fn message(
        &self,
        sequence: u64,
        sent_before: u64,
        packets: &[u64],
        info: CloseInfo,
    ) -> Vec<u8> {
        let template = Template::new(Arc::new(self.interface.clone()), Timestamp::from_nanos(self.epoch));
        let limits = BatchLimits { bytes: 1 << 20, delay: Duration::ZERO };
        let mut builder = Builder::new(template, limits, Order::AsTheyCame);
        for nanos in packets {
            let time = Timestamp::from_nanos(*nanos);
            builder.push(&Record { time, original: 60, bytes: &vec![0; self.packet_len] }, || time);
        }
        let mut batch = builder.close(info, Vec::new);
        batch.compress(Compression::Lz4);
        batch.into_message(&SendInfo { sequence, sent_before, sent_at: Timestamp::ZERO, dropped_relay: 0 })
    }

    pub(in crate::collect) fn decoded(&self, packets: &[u64]) -> DecodedBatch<Vec<u8>> {
        DecodedBatch::decode(self.message(0, 0, packets, CloseInfo::default())).unwrap()
    }
}

/// An output whose reader has gone.
#[derive(Debug)]
pub(in crate::collect) struct Failing;

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output that breaks after a number of bytes.
#[derive(Clone, Default)]
pub(in crate::collect) struct File {
    pub(in crate::collect) bytes: Rc<RefCell<Vec<u8>>>,
    pub(in crate::collect) breaks_at: Option<usize>,
}

impl File {
    /// The times of its packets.
    pub(in crate::collect) fn times(&self) -> Vec<u64> {
        let bytes = self.bytes.borrow();
        Records::new(bytes.get(24..).unwrap_or_default()).map(|record| record.time.as_nanos()).collect()
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.bytes.borrow_mut();
        if self.breaks_at.is_some_and(|limit| written.len() + bytes.len() > limit) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A collector, its output, and the time.
struct Bench {
    collector: Collector<Vec<u8>, File>,
    shared: Arc<Shared>,
    file: File,
    /// Milliseconds.
    now: u64,
}

impl Bench {
    fn new(max_packets: u64, breaks_at: Option<usize>) -> Self {
        Self::with_format(CaptureFormat::Pcap, max_packets, breaks_at)
    }

    fn with_format(format: CaptureFormat, max_packets: u64, breaks_at: Option<usize>) -> Self {
        let shared = Shared::new(Observers::new(observe::ObserversConfig::default()), 64);
        let file = File { breaks_at, ..File::default() };
        let writer = CaptureWriter::new(Stream::new(file.clone()), format).unwrap();
        let limit = NonZeroU64::new(max_packets);
        let collector = Collector::new(merge::MergeConfig::default(), writer, limit, Arc::clone(&shared));
        Self { collector, shared, file, now: 1000 }
    }

    fn now(&self) -> Now {
        let since = Duration::from_millis(self.now);
        Now { wall: Timestamp::ZERO + since, merge: MonotonicTime::ZERO + since }
    }

    /// Handles a batch whose watermark is the time of its last packet.
    fn handle(&mut self, source: &Batches, sequence: u64, sent_before: u64, packets: &[u64]) {
        let watermark = Timestamp::from_nanos(packets.last().copied().unwrap_or_default());
        let captured = sent_before + packets.len() as u64;
        let info = CloseInfo { watermark, captured, ..CloseInfo::default() };
        self.handle_message(source.message(sequence, sent_before, packets, info)).unwrap();
    }

    fn handle_end(&mut self, source: &Batches, sequence: u64, sent_before: u64) {
        let info = CloseInfo { ends: true, captured: sent_before, ..CloseInfo::default() };
        self.handle_message(source.message(sequence, sent_before, &[], info)).unwrap();
    }

    /// Handles a heartbeat of a source at an address. Returns why it is rejected.
    fn announce(&mut self, address: &str, source: &str) -> Option<RejectReason> {
        let message = ethernet(source).message(0, 0, &[], CloseInfo::default());
        let now = self.now();
        match self.collector.handle_message(message, Peer::at(address.parse().ok()), now) {
            Ok(()) => None,
            Err(HandleError::Rejected(_, rejection)) => Some(rejection.reason()),
            Err(HandleError::Output(error)) => panic!("{error}"),
        }
    }

    fn sources(&self) -> Vec<String> {
        self.shared.ledger.lock().sources().map(|(origin, _)| origin.source.to_string()).collect()
    }

    fn handle_message(&mut self, message: Vec<u8>) -> Result<(), HandleError<Vec<u8>>> {
        let now = self.now();
        self.collector.handle_message(message, Peer::Other, now)
    }

    /// Lets time pass and writes what is due.
    fn write_after(&mut self, millis: u64) -> Result<(), StreamError> {
        self.now += millis;
        let now = self.now();
        self.collector.write_ready(now.merge)
    }

    /// The times of the packets in the file.
    fn written(&mut self) -> Vec<u64> {
        self.collector.flush().unwrap();
        self.file.times()
    }

    fn stats(&self, source: u32) -> SourceStats {
        self.shared.ledger.lock().stats(SourceId(source)).unwrap()
    }

    /// Received, written, buffered and discarded packets of a source.
    fn sums(&self, source: u32) -> (u64, u64, u64, [u64; 3]) {
        let stats = self.stats(source);
        (stats.received.packets, stats.written, stats.buffered(), stats.discarded)
    }
}

fn ethernet(source: &str) -> Batches {
    Batches::new(source, LinkType::ETHERNET)
}

#[test]
fn sources_are_merged_in_timestamp_order() {
    let mut bench = Bench::new(0, None);
    let (a, b) = (ethernet("a"), ethernet("b"));
    bench.handle(&a, 0, 0, &[10, 30, 50]);
    bench.handle(&b, 0, 0, &[20, 40]);
    bench.write_after(0).unwrap();
    assert_eq!(bench.written(), [], "the merge waits for further sources");
    assert_eq!(bench.collector.next_deadline(), Some(bench.now().merge + Duration::from_millis(100)));
    bench.write_after(100).unwrap();
    assert_eq!(bench.written(), [10, 20, 30, 40]);
    assert_eq!((bench.sums(0), bench.sums(1)), ((3, 2, 1, [0; 3]), (2, 2, 0, [0; 3])));
    assert_eq!(bench.shared.merge_packets.load(Ordering::Relaxed), 1);
    bench.handle_end(&b, 1, 2);
    bench.write_after(0).unwrap();
    assert_eq!(bench.written(), [10, 20, 30, 40, 50]);
    assert_eq!(bench.shared.observers.packets(), 5);
}

#[test]
fn duplicates_are_ignored_and_counted() {
    let mut bench = Bench::new(0, None);
    let a = ethernet("a");
    bench.handle(&a, 0, 0, &[10, 20]);
    bench.handle(&a, 0, 0, &[10, 20]);
    bench.collector.write_all(bench.now().merge).unwrap();
    assert_eq!(bench.written(), [10, 20]);
    assert_eq!((bench.sums(0), bench.stats(0).duplicates.packets), ((2, 2, 0, [0; 3]), 2));
    assert_eq!(bench.shared.observers.packets(), 2);
}

#[test]
fn missing_packets_count_as_lost_at_the_end() {
    let mut bench = Bench::new(0, None);
    let a = ethernet("a");
    bench.handle(&a, 0, 0, &[10]);
    bench.handle(&a, 3, 8, &[90]);
    assert_eq!((bench.stats(0).missing.packets, bench.stats(0).lost.packets), (7, 0));
    bench.collector.write_all(bench.now().merge).unwrap();
    bench.collector.settle(bench.now().merge);
    let stats = bench.stats(0);
    assert_eq!((stats.missing.packets, stats.lost.packets, stats.lost.batches), (0, 7, 2));
    assert_eq!((stats.sent, bench.sums(0)), (9, (2, 2, 0, [0; 3])));
}

#[test]
fn other_link_types_are_discarded_in_pcap() {
    let mut bench = Bench::new(0, None);
    bench.handle(&ethernet("a"), 0, 0, &[10]);
    bench.handle(&Batches::new("b", LinkType::RAW), 0, 0, &[5, 20]);
    bench.collector.write_all(bench.now().merge).unwrap();
    assert_eq!(bench.written(), [10]);
    assert_eq!((bench.sums(0), bench.sums(1)), ((1, 1, 0, [0; 3]), (2, 0, 0, [2, 0, 0])));
}

#[test]
fn max_packets_ends_inside_a_run() {
    let mut bench = Bench::new(3, None);
    bench.handle(&ethernet("a"), 0, 0, &[10, 20, 30, 40, 50]);
    bench.write_after(100).unwrap();
    assert!(bench.collector.is_full());
    bench.handle(&ethernet("b"), 0, 0, &[60]);
    bench.collector.write_all(bench.now().merge).unwrap();
    assert_eq!(bench.written(), [10, 20, 30]);
    assert_eq!((bench.sums(0), bench.sums(1)), ((5, 3, 0, [0, 2, 0]), (1, 0, 0, [0, 1, 0])));
}

#[test]
fn a_write_error_discards_what_is_left() {
    // Packets of this length are written one batch at a time. The second one does not fit.
    let mut bench = Bench::new(0, Some(100_000));
    let a = ethernet("a").packet_len(60_000);
    for sequence in 0..4 {
        bench.handle(&a, sequence, sequence, &[10 * sequence]);
    }
    bench.handle(&ethernet("b"), 0, 0, &[100]);
    assert!(matches!(bench.write_after(1000), Err(StreamError::ReaderGone)));
    bench.collector.settle(bench.now().merge);
    assert_eq!((bench.sums(0), bench.sums(1)), ((4, 1, 0, [0, 0, 3]), (1, 0, 0, [0, 0, 1])));
    assert_eq!(bench.shared.merge_packets.load(Ordering::Relaxed), 0);
}

#[test]
fn an_interface_that_cannot_be_added_discards_its_batch() {
    let mut bench = Bench::new(0, Some(0));
    let message = ethernet("a").message(0, 0, &[10, 20], CloseInfo::default());
    assert!(matches!(bench.handle_message(message), Err(HandleError::Output(StreamError::ReaderGone))));
    assert_eq!(bench.sums(0), (2, 0, 0, [0, 0, 2]));
}

#[test]
fn invalid_messages_are_returned_with_the_reason() {
    let mut bench = Bench::new(0, None);
    let mut broken = ethernet("a").message(0, 0, &[], CloseInfo::default());
    // The first field's length.
    broken[106] = 255;
    for (message, reason) in [(b"hello".to_vec(), RejectReason::Magic), (broken, RejectReason::Field)] {
        let Err(HandleError::Rejected(returned, rejection)) = bench.handle_message(message.clone()) else {
            panic!("{reason:?}: the message was accepted")
        };
        assert_eq!((returned, rejection.reason()), (message, reason));
    }
    assert_eq!(bench.shared.ledger.lock().sources().count(), 0);
}

#[test]
fn it_has_ended_when_all_sources_have_and_their_packets_are_written() {
    let mut bench = Bench::new(0, None);
    let (a, b) = (ethernet("a"), ethernet("b"));
    assert!(!bench.collector.has_ended(bench.now().wall), "no source has appeared");
    bench.handle(&a, 0, 0, &[10]);
    bench.handle_end(&a, 1, 1);
    bench.handle(&b, 0, 0, &[]);
    bench.write_after(300).unwrap();
    assert_eq!(bench.written(), [10]);
    assert!(!bench.collector.has_ended(bench.now().wall), "one source has not ended");
    // Its second batch is missing, and may still arrive.
    bench.handle_end(&b, 2, 5);
    assert!(!bench.collector.has_ended(bench.now().wall));
    bench.now += ledger::LOSS_TIMEOUT.as_millis() as u64;
    assert!(bench.collector.has_ended(bench.now().wall));
    assert_eq!(bench.stats(1).lost.packets, 5);
}

#[test]
fn receiving_pauses_while_the_merge_holds_enough_and_waits_for_sources() {
    let mut bench = Bench::new(0, None);
    let a = ethernet("a").packet_len(200_000);
    let mut sequence = 0;
    while !bench.collector.should_pause(bench.now().merge) {
        bench.handle(&a, sequence, sequence * 20, &[7; 20]);
        sequence += 1;
    }
    assert_eq!(sequence, (MAX_GATHERED as u64).div_ceil(20 * 200_016));
    bench.now += 100;
    assert!(!bench.collector.should_pause(bench.now().merge));
}

#[test]
fn a_pcapng_capture_ends_with_the_statistics_of_its_interfaces() {
    let mut bench = Bench::with_format(CaptureFormat::PcapNg, 0, None);
    bench.handle(&ethernet("a"), 0, 0, &[10]);
    bench.handle(&Batches::new("a", LinkType::RAW), 1, 1, &[20]);
    let Bench { mut collector, file, .. } = bench;
    collector.write_all(MonotonicTime::ZERO).unwrap();
    collector.finish(Timestamp::ZERO).unwrap();
    let bytes = file.bytes.borrow();
    let mut rest = bytes.as_slice();
    let mut types = Vec::new();
    while let Some((head, _)) = rest.split_first_chunk::<8>() {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        types.push(word(0));
        rest = &rest[word(4) as usize..];
    }
    // Section header, interface descriptions, enhanced packets, interface statistics.
    assert_eq!(types, [0x0a0d_0d0a, 1, 1, 6, 6, 5, 5]);
}

#[test]
fn interface_statistics_add_up_the_losses() {
    let stats = SourceStats {
        captured: 100,
        dropped: batch::Dropped { kernel: 1, interface: 2, relay: 4 },
        lost: ledger::Counts { batches: 1, packets: 8 },
        written: 50,
        ..SourceStats::default()
    };
    let at = Timestamp::from_parts(7, 0);
    assert_eq!(
        counts(&stats, at),
        InterfaceCounts { at, received: 101, dropped_interface: 2, dropped_system: 13, delivered: 50 }
    );
}

#[test]
fn the_five_thousandth_source_is_as_welcome_as_the_first() {
    // 64 sources at a time.
    let mut bench = Bench::with_format(CaptureFormat::PcapNg, 0, None);
    for number in 0..500 {
        let source = ethernet(&number.to_string());
        bench.handle(&source, 0, 0, &[number]);
        bench.handle_end(&source, 1, 1);
        bench.write_after(300_000).unwrap();
        let now = bench.now();
        bench.collector.forget_idle(now);
    }
    assert!(bench.sources().len() <= 13, "{:?}", bench.sources());
    assert_eq!(bench.collector.interfaces.in_output().count(), bench.sources().len());
}

/// An output that finds out whether the ledger can be read while it is written: if its reader stalls, that may take long.
struct Stalling {
    shared: Arc<Shared>,
    writes: Rc<RefCell<u32>>,
}

impl Write for Stalling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(self.shared.ledger.try_lock().is_some(), "the ledger is locked");
        *self.writes.borrow_mut() += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn ledger_is_not_locked_while_a_forgotten_source_is_written() {
    let shared = Shared::new(Observers::new(observe::ObserversConfig::default()), 16_384);
    let writes = Rc::<RefCell<u32>>::default();
    let output = Stalling { shared: Arc::clone(&shared), writes: Rc::clone(&writes) };
    let writer = CaptureWriter::new(Stream::new(output), CaptureFormat::PcapNg).unwrap();
    let mut collector = Collector::new(merge::MergeConfig::default(), writer, None, shared);
    let at = |seconds| {
        let since = Duration::from_secs(seconds);
        Now { wall: Timestamp::ZERO + since, merge: MonotonicTime::ZERO + since }
    };
    for number in 0..5_000 {
        let message = ethernet(&number.to_string()).message(0, 0, &[], CloseInfo::default());
        collector.handle_message(message, Peer::Other, at(number)).unwrap();
    }
    let before = *writes.borrow();
    // The counts of all of them are more than the output buffers.
    collector.forget_idle(at(100_000));
    assert!(*writes.borrow() > before, "{before} writes, none of them while forgetting a source");
}

#[test]
fn sources_that_are_alive_are_not_displaced() {
    let mut bench = Bench::new(0, None);
    for number in 0..40 {
        let rejected = (number >= 32).then_some(RejectReason::MaxSources);
        assert_eq!(bench.announce("192.0.2.1", &format!("a{number}")), rejected);
        assert_eq!(bench.announce("192.0.2.2", &format!("b{number}")), rejected);
    }
    bench.now += 9_000;
    assert_eq!(bench.announce("192.0.2.3", "c"), Some(RejectReason::MaxSources));
    // They are silent, and have never sent a packet.
    bench.now += 2_000;
    assert_eq!(bench.announce("192.0.2.3", "c"), None);
    assert!(bench.sources().contains(&"c".to_owned()));
    assert_eq!(bench.sources().len(), 61);
}

#[test]
fn an_address_that_may_announce_nothing_displaces_nobody() {
    let mut bench = Bench::new(0, None);
    for number in 0..64 {
        assert_eq!(bench.announce("192.0.2.1", &format!("a{number}")), None);
    }
    // What is refused for want of room can be announced later.
    for number in 0..100 {
        assert_eq!(bench.announce("192.0.2.2", &format!("b{number}")), Some(RejectReason::MaxSources));
    }
    bench.now += 11_000;
    assert_eq!(bench.announce("192.0.2.1", "more"), Some(RejectReason::MaxSourcesPerAddress));
    assert_eq!(bench.sources().len(), 64);
    assert_eq!(bench.announce("192.0.2.2", "b"), None);
}

#[test]
fn a_source_has_a_bounded_number_of_link_types() {
    let mut bench = Bench::with_format(CaptureFormat::PcapNg, 0, None);
    let reasons: Vec<_> = (0..20)
        .map(|link_type| {
            let batches = Batches::new("a", LinkType(link_type));
            bench.handle_message(batches.message(link_type.into(), 0, &[], CloseInfo::default()))
        })
        .filter_map(|handled| match handled {
            Err(HandleError::Rejected(_, rejection)) => Some(rejection.reason()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [RejectReason::LinkTypes; 4]);
    assert_eq!(bench.collector.interfaces.in_output().count(), 16);
}

#[test]
fn packets_ahead_of_the_clock_are_counted() {
    let mut bench = Bench::new(0, None);
    let hour = 3_600_000_000_000;
    bench.handle(&ethernet("a"), 0, 0, &[10, 20]);
    bench.handle(&ethernet("b"), 0, 0, &[hour, hour + 1, hour + 2]);
    assert_eq!((bench.stats(0).ahead, bench.stats(1).ahead), (0, 3));
}

#[test]
fn a_name_that_the_key_may_not_use_leaves_no_trace() {
    let mut bench = Bench::new(u64::MAX, None);
    assert_eq!(bench.announce("192.0.2.1", "forbidden"), Some(RejectReason::UnauthorizedName));
    assert_eq!(bench.announce("192.0.2.1", "allowed"), None);
    assert_eq!(bench.sources(), ["allowed"]);
}

#[test]
fn the_end_of_a_run_is_not_the_end_of_its_source() {
    let mut bench = Bench::new(0, None);
    bench.handle(&ethernet("a"), 0, 0, &[10]);
    bench.handle_end(&ethernet("a").epoch(u64::MAX), 0, 0);
    bench.write_after(300).unwrap();
    assert!(!bench.collector.has_ended(bench.now().wall));
    assert!(bench.stats(0).is_up(bench.now().wall, Duration::from_secs(2)));
    bench.handle_end(&ethernet("a"), 1, 1);
    assert!(bench.collector.has_ended(bench.now().wall));
}
