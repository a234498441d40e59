//! Reads a capture file as the program does.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use batch::{Batch, BatchLimits, DecodedBatch, Interface, SendInfo};
use packet::{Origin, Timestamp};
use rustix::fs::{MemfdFlags, memfd_create};
use source::{CaptureContext, File, FilterSpec, InterfaceOrder, PacketSource, Progress, Quota, StagesConfig};

/// What the relay would add.
const SEND_INFO: SendInfo =
    SendInfo { sequence: 0, sent_before: 0, sent_at: Timestamp::from_nanos(2), dropped_relay: 0 };

/// The most bytes that a pipe takes before they are read (pipe(7)).
const PIPE_CAPACITY: usize = 65_536;

/// How a file is read.
pub struct ReadOptions {
    /// Whether it is read from standard input, through a pipe.
    piped: bool,
    order: InterfaceOrder,
    stages: StagesConfig,
}

impl ReadOptions {
    /// The options that the bits of a byte stand for; `tzsp_port` is used if one of them says so.
    pub fn from_bits(bits: u8, tzsp_port: u16) -> Self {
        let (piped, file_order) = (bits & 1 != 0, bits & 2 != 0);
        let filter = if bits & 4 != 0 {
            FilterSpec { filter: Some("ip or ip6".to_owned()), snaplen: 60 }
        } else {
            FilterSpec::KEEP_ALL
        };
        Self {
            piped,
            order: if file_order { InterfaceOrder::FileOrder } else { InterfaceOrder::Interleaved },
            stages: StagesConfig { filter, tzsp_ports: (bits & 8 != 0).then(|| vec![tzsp_port]) },
        }
    }
}

/// Reads a file of these bytes to its end or its first error. All batches must be valid.
pub fn read(bytes: &[u8], options: &ReadOptions) {
    let context = CaptureContext {
        source: "fuzz".into(),
        epoch: Timestamp::from_nanos(1),
        // Small, so that an input has several.
        limits: BatchLimits { bytes: 512, delay: Duration::from_millis(50) },
        stop: Arc::new(AtomicBool::new(false)),
        quota: Arc::new(Quota::new(None)),
        interface_order: options.order,
    };
    let memory;
    let path = if options.piped && bytes.len() <= PIPE_CAPACITY {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        std::fs::File::from(writer).write_all(bytes).expect("it fits");
        rustix::stdio::dup2_stdin(reader).expect("a descriptor");
        "-".to_owned()
    } else {
        let mut file = std::fs::File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memory"));
        file.write_all(bytes).expect("memory");
        memory = file;
        format!("/proc/self/fd/{}", memory.as_raw_fd())
    };
    let Ok(mut file) = File::open(&path, &options.stages, context) else { return };
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
