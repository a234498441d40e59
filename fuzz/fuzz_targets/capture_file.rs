//! Reads a capture file in memory as the program does.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use batch::{Batch, BatchLimits, DecodedBatch, Interface, SendInfo};
use packet::{Origin, Timestamp};
use rustix::fs::{MemfdFlags, memfd_create};
use source::{CaptureContext, File, InterfaceOrder, PacketSource, Progress, Quota, StagesConfig};

/// What the relay would add.
const SEND_INFO: SendInfo =
    SendInfo { sequence: 0, sent_before: 0, sent_at: Timestamp::from_nanos(2), dropped_relay: 0 };

/// Reads a file of these bytes to its end or its first error. All batches must be valid.
pub fn read(parts: &[&[u8]]) {
    let mut memory = std::fs::File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memory"));
    for part in parts {
        memory.write_all(part).expect("memory");
    }
    let context = CaptureContext {
        source: "fuzz".into(),
        epoch: Timestamp::from_nanos(1),
        // Small, so that an input has several.
        limits: BatchLimits { bytes: 512, delay: Duration::from_millis(50) },
        stop: Arc::new(AtomicBool::new(false)),
        quota: Arc::new(Quota::new(None)),
        interface_order: InterfaceOrder::Interleaved,
    };
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let Ok(mut file) = File::open(&path, &StagesConfig::NONE, context) else { return };
    let mut sources = HashMap::new();
    loop {
        let progress = file.poll();
        while let Some(batch) = file.poll_batch() {
            receive(batch, &mut sources);
        }
        if !matches!(progress, Ok(Progress::Running)) {
            break;
        }
    }
    // However the file ends, every source has ended, and its counts agree.
    for (origin, source) in &sources {
        assert!(source.ended, "{origin} has not ended");
        assert_eq!(source.packets, source.captured, "received and captured packets of {origin}");
    }
}

/// What a collector knows of a source.
#[derive(Default)]
struct Source {
    packets: u64,
    /// The count in the last batch.
    captured: u64,
    ended: bool,
}

/// Receives a batch as a collector does.
fn receive(batch: Batch, sources: &mut HashMap<Origin, Source>) {
    let link_type = batch.interface().link_type;
    let message = batch.into_message(&SEND_INFO);
    let batch = DecodedBatch::decode(message.as_slice()).expect("a valid batch");
    let header = batch.header();
    let interface =
        Interface::decode(batch.fields(), header.link_type, header.snaplen).expect("valid fields");
    assert_eq!(interface.link_type, link_type);
    let source = sources.entry(interface.origin).or_default();
    source.packets += u64::from(header.packets);
    source.captured = header.captured;
    source.ended = header.ends;
}
