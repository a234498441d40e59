use std::collections::VecDeque;

use batch::CloseInfo;
use observe::Observers;
use packet::{LinkType, Timestamp};
use sink::{CaptureFormat, CaptureWriter, Stream};

use super::*;
use crate::collect::clock::tests::FakeTime;
use crate::collect::collector::tests::{Batches, File};

/// Messages and the milliseconds at which they arrive. Waiting for one lets the time pass.
struct Arrivals {
    time: FakeTime,
    messages: VecDeque<(u64, Vec<u8>)>,
    /// From this millisecond on, the stop is requested.
    stops_at: u64,
    /// From this millisecond on, receiving fails.
    fails_at: u64,
    stop: Stop,
}

impl Receive for Arrivals {
    type Message = Vec<u8>;

    fn receive(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, PullError> {
        let deadline = self.time.elapsed() + timeout;
        assert!(deadline < Duration::from_secs(60), "the loop does not end");
        let arrival = self.messages.front().map(|(millis, _)| Duration::from_millis(*millis));
        let message = match arrival {
            Some(arrival) if arrival <= deadline => {
                self.time.set(arrival.max(self.time.elapsed()));
                self.messages.pop_front().map(|(_, message)| message)
            }
            _ => {
                self.time.set(deadline);
                None
            }
        };
        if self.time.elapsed() >= Duration::from_millis(self.fails_at) {
            return Err(PullError::Start(std::io::ErrorKind::OutOfMemory.into()));
        }
        if self.time.elapsed() >= Duration::from_millis(self.stops_at) {
            self.stop.set();
        }
        Ok(message)
    }
}

/// A collector of these messages that is stopped after 10 s.
struct Bench {
    collect: CollectLoop<Arrivals, File, FakeTime>,
    file: File,
    time: FakeTime,
    shared: Arc<Shared>,
}

impl Bench {
    fn new(messages: Vec<(u64, Vec<u8>)>) -> Self {
        Self::with_output(messages, None, 0)
    }

    fn with_output(messages: Vec<(u64, Vec<u8>)>, breaks_at: Option<usize>, max_packets: u64) -> Self {
        let (time, stop) = (FakeTime::default(), Stop::new());
        let shared = Shared::new(Observers::new(observe::ObserversConfig::default()), 64);
        let file = File { breaks_at, ..File::default() };
        let writer = CaptureWriter::new(Stream::new(file.clone()), CaptureFormat::Pcap).unwrap();
        let limit = std::num::NonZeroU64::new(max_packets);
        let receiver = Arrivals {
            time: time.clone(),
            messages: messages.into(),
            stops_at: 10_000,
            fails_at: u64::MAX,
            stop: stop.clone(),
        };
        let collect = CollectLoop {
            receiver,
            collector: Collector::new(merge::MergeConfig::default(), writer, limit, Arc::clone(&shared)),
            clock: MergeClock::new(time.clone()),
            stop,
            exit_on_end: false,
            shared: Arc::clone(&shared),
        };
        Self { collect, file, time, shared }
    }

    /// Runs the loop. Returns its result, the milliseconds that passed, and the times of the written packets.
    fn run(self) -> (Result<(), CollectError>, u64, Vec<u64>) {
        let ended = self.collect.run();
        let millis = u64::try_from(self.time.elapsed().as_millis()).unwrap();
        (ended, millis, self.file.times())
    }
}

/// A batch of one packet.
fn packet(sequence: u64, nanos: u64) -> Vec<u8> {
    let info =
        CloseInfo { watermark: Timestamp::from_nanos(nanos), captured: sequence + 1, ..CloseInfo::default() };
    source().message(sequence, sequence, &[nanos], info)
}

/// The batch that ends the source.
fn end(sequence: u64) -> Vec<u8> {
    let info = CloseInfo { ends: true, captured: sequence, ..CloseInfo::default() };
    source().message(sequence, sequence, &[], info)
}

fn source() -> Batches {
    Batches::new("a", LinkType::ETHERNET)
}

#[test]
fn the_output_is_complete_when_the_loop_waits() {
    let mut bench = Bench::new(vec![(500, packet(0, 10))]);
    bench.collect.receiver.fails_at = 2000;
    let (ended, millis, written) = bench.run();
    // Receiving fails: nothing is written after that. The packet was.
    assert!(matches!(ended, Err(CollectError::Pull(PullError::Start(_)))), "{ended:?}");
    assert_eq!((millis, written), (2000, vec![10]));
}

#[test]
fn messages_in_transit_are_written_after_a_stop() {
    let messages =
        vec![(999, packet(0, 10)), (1003, packet(1, 20)), (1007, packet(2, 30)), (1100, packet(3, 40))];
    let mut bench = Bench::new(messages);
    bench.collect.receiver.stops_at = 1000;
    let (ended, millis, written) = bench.run();
    ended.unwrap();
    assert_eq!(written, [10, 20, 30], "the last one arrives after a pause");
    assert!(millis < 1100, "{millis}");
}

#[test]
fn sources_that_go_on_sending_do_not_prevent_the_exit() {
    let messages = (0..2000).map(|sequence| (4 * sequence, packet(sequence, 10 * sequence))).collect();
    let mut bench = Bench::new(messages);
    bench.collect.receiver.stops_at = 1000;
    let (ended, millis, written) = bench.run();
    ended.unwrap();
    assert!((1200..1600).contains(&millis), "{millis}");
    let expected: Vec<_> = (0..written.len() as u64).map(|sequence| 10 * sequence).collect();
    assert_eq!(written, expected);
    assert!(written.len() >= 300, "{}", written.len());
}

#[test]
fn with_exit_on_end_it_exits_after_the_last_source() {
    for (exit_on_end, expected) in [(true, 500..1000), (false, 10_000..10_300)] {
        let mut bench = Bench::new(vec![(10, packet(0, 10)), (500, end(1))]);
        bench.collect.exit_on_end = exit_on_end;
        let (ended, millis, written) = bench.run();
        ended.unwrap();
        assert!(expected.contains(&millis), "{exit_on_end}: {millis}");
        assert_eq!(written, [10]);
    }
}

#[test]
fn max_packets_ends_the_loop() {
    let messages = vec![(10, packet(0, 10)), (20, packet(1, 20)), (1000, packet(2, 30))];
    let (ended, millis, written) = Bench::with_output(messages, None, 2).run();
    ended.unwrap();
    assert_eq!(written, [10, 20]);
    assert!(millis < 1000, "{millis}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let bench = Bench::with_output(vec![(10, packet(0, 10))], Some(24), 0);
    let shared = Arc::clone(&bench.shared);
    let (ended, millis, written) = bench.run();
    ended.unwrap();
    assert!(written.is_empty());
    assert!(millis < 10_000, "{millis}");
    let ledger = shared.ledger.lock();
    assert_eq!(ledger.sources().map(|(_, stats)| stats.buffered()).sum::<u64>(), 0);
}

#[test]
fn invalid_messages_are_counted_and_others_are_written() {
    let bench = Bench::new(vec![(10, b"hello".to_vec()), (10, packet(0, 10)), (20, b"GET /".to_vec())]);
    let shared = Arc::clone(&bench.shared);
    let (ended, _, written) = bench.run();
    ended.unwrap();
    assert_eq!(written, [10]);
    let counts: Vec<_> = shared.rejections.counts().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counts, [("magic", 2)]);
}
