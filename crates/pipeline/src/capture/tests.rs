use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use ::metrics::Exposition;
use batch::{Builder, CloseInfo, Order, Template};
use packet::{LinkType, Origin, Record, Timestamp};
use prometheus::{Registry, TextEncoder};
use source::{DeviceCounts, FileError};

use super::*;
use crate::{PipelineHandle, Totals};

/// A source that hands out prepared batches.
struct Prepared {
    /// The batches of each poll.
    polls: VecDeque<Vec<Batch>>,
    ready: VecDeque<Batch>,
    error: Option<FileError>,
    has_buffer: bool,
    recycled: usize,
}

impl PacketSource for &mut Prepared {
    type Error = FileError;

    fn poll(&mut self) -> Result<Progress, FileError> {
        self.has_buffer = false;
        self.ready.extend(self.polls.pop_front().unwrap_or_default());
        if !self.polls.is_empty() {
            return Ok(Progress::Running);
        }
        self.error.take().map_or(Ok(Progress::Ended), Err)
    }

    fn poll_batch(&mut self) -> Option<Batch> {
        self.ready.pop_front()
    }

    fn wants_buffer(&mut self) -> bool {
        !std::mem::replace(&mut self.has_buffer, true)
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.recycled += usize::from(buffer.capacity() > 0);
    }
}

fn batch(device: impl Into<Arc<str>>, packets: u64) -> Batch {
    let origin = Origin { source: "".into(), device: device.into(), listen_port: None };
    let interface = Arc::new(Interface::new(origin, LinkType::ETHERNET, 96));
    let template = Template::new(interface, Timestamp::ZERO);
    let mut builder = Builder::new(template, OBSERVE_LIMITS, Order::AsTheyCame);
    for nanos in 0..packets {
        let time = Timestamp::from_nanos(nanos);
        builder.push(&Record { time, original: 60, bytes: &[0; 60] }, || time);
    }
    builder.close(CloseInfo::default(), Vec::new)
}

fn observers() -> Arc<Observers> {
    Observers::new(observe::ObserversConfig { sizes: true, ..Default::default() })
}

fn text(metrics: &CaptureHandle) -> String {
    let registry = Registry::new();
    metrics.register_metrics(&registry).unwrap();
    let mut tables = Exposition::new();
    metrics.write_tables(&mut tables);
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap() + &tables.into_string()
}

#[test]
fn all_batches_are_observed_also_after_a_failure() {
    let observers = observers();
    let truncated = || FileError::Truncated { path: "x".to_owned(), packet: 7 };
    for (error, expected) in [(None, Ended::Well), (Some(truncated()), Ended::Well)] {
        let polls = [vec![], vec![batch("a", 2), batch("b", 3)], vec![batch("a", 1)]];
        let mut source =
            Prepared { polls: polls.into(), ready: VecDeque::new(), error, has_buffer: false, recycled: 0 };
        let before = observers.packets();
        let ended = run_source(&mut source, Consumer::new(Arc::clone(&observers), None));
        assert_eq!(log_end(ended), expected);
        assert_eq!((observers.packets() - before, source.recycled), (6, 1));
    }
    let error = FileError::Corrupt { path: "x".to_owned(), packets: 1, why: "y".to_owned() };
    assert_eq!(log_end(Err(error)), Ended::Badly);
}

#[test]
fn the_metrics_of_a_capture_are_complete() {
    let counts = DeviceCounts::default();
    counts.received.store(7, Ordering::Relaxed);
    counts.dropped_kernel.store(2, Ordering::Relaxed);
    counts.dropped_interface.store(1, Ordering::Relaxed);
    counts.queue_freezes.store(3, Ordering::Relaxed);
    let metrics = CaptureHandle::new(observers(), vec![("eth0".into(), Arc::new(counts))], Vec::new(), None);
    assert_eq!(metrics.totals(), Totals { packets: 0, dropped: 3, lost: 0, queue_freezes: 3 });
    assert_eq!(metrics.unfinished(), "0 packets are not sent");
    let samples: Vec<_> = text(&metrics)
        .lines()
        .filter(|line| line.starts_with("capture_") || line.starts_with("packeteur_device"))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        samples,
        [
            "capture_dropped_packets_total 3",
            "capture_packets_processed_total 0",
            "capture_queue_freezes_total 3",
            "packeteur_device_dropped_packets_total{device=\"eth0\",place=\"interface\"} 1",
            "packeteur_device_dropped_packets_total{device=\"eth0\",place=\"kernel\"} 2",
            "packeteur_device_received_packets_total{device=\"eth0\"} 7",
        ]
    );
}

#[test]
fn a_file_blocks_and_a_device_drops() {
    let relay = RelayConfig {
        keys: None,
        endpoint: "tcp://localhost:1".parse().unwrap(),
        buffer: 64 << 20,
        batch: OBSERVE_LIMITS,
        compression: batch::Compression::None,
    };
    let input =
        |input| InputConfig { input, filter: None, snaplen: 96, buffer_size: 1 << 20, promiscuous: false };
    let file = push_config(&relay, None, &input(Input::File(crate::config::FileOrStdio::Stdio)));
    assert_eq!((file.overflow, file.buffer_bytes), (OverflowPolicy::Block, 2 << 20));
    let device = push_config(&relay, None, &input(Input::Devices(vec!["lo".to_owned()])));
    assert_eq!((device.overflow, device.buffer_bytes), (OverflowPolicy::DropOldest, 64 << 20));
}

#[test]
fn a_thread_that_panics_stops_the_others() {
    let stop = Stop::new();
    let ended = StopOnPanic(stop.clone());
    thread::spawn(move || drop(ended)).join().unwrap();
    assert!(!stop.is_set());
    let panics = StopOnPanic(stop.clone());
    let thread = thread::spawn(move || {
        let _panics = panics;
        std::panic::resume_unwind(Box::new("a panic without a message"));
    });
    assert!(thread.join().is_err());
    assert!(stop.is_set());
}

#[test]
fn routers_that_ended_are_forgotten() {
    const ROUTERS: usize = 5000;
    let mut consumer = Consumer::new(observers(), None);
    let devices: Vec<Arc<str>> = (0..ROUTERS).map(|number| number.to_string().into()).collect();
    for device in &devices {
        let known = batch(Arc::clone(device), 1);
        let template = Template::new(Arc::clone(known.interface()), Timestamp::ZERO);
        consumer.consume(known);
        assert_eq!(consumer.origins.len(), 1);
        let mut builder = Builder::new(template, OBSERVE_LIMITS, Order::AsTheyCame);
        consumer.consume(builder.close(CloseInfo { ends: true, ..CloseInfo::default() }, Vec::new));
        assert!(consumer.origins.is_empty());
    }
    // The first one stays, because all are counted with it.
    let kept = devices.iter().filter(|device| Arc::strong_count(device) > 1).count();
    assert!((1000..ROUTERS - 500).contains(&kept), "{kept} routers are kept");
}
