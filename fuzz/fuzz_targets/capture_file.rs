//! A capture file in memory, read as the program reads it.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use batch::{Batch, DecodedBatch, Interface, Limits, SendInfo};
use packet::{Origin, Timestamp};
use rustix::fs::{MemfdFlags, memfd_create};
use source::{File, Outlet, Quota, Run};

/// What the relay would add.
const SEND_INFO: SendInfo =
    SendInfo { sequence: 0, sent_before: 0, sent_at: Timestamp::from_nanos(2), dropped_relay: 0 };

/// Reads a file of these bytes to where it ends or makes no sense. Whatever comes out has to be sound.
pub fn read(parts: &[&[u8]]) {
    let mut memory = std::fs::File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memory"));
    for part in parts {
        memory.write_all(part).expect("memory");
    }
    let run = Run {
        source: "fuzz".into(),
        epoch: Timestamp::from_nanos(1),
        // Small, so that an input has several.
        limits: Limits { bytes: 512, delay: Duration::from_millis(50) },
        stop: Arc::new(AtomicBool::new(false)),
        quota: Arc::new(Quota::new(None)),
        counted: true,
        in_order: false,
    };
    let Ok(file) = File::open(&format!("/proc/self/fd/{}", memory.as_raw_fd()), run) else { return };
    let mut judge = Judge::default();
    let _ = file.capture(&mut judge);
    // However the file ends: no source stays open at the collector, and its sums agree.
    for (origin, heard) in &judge.heard {
        assert!(heard.ended, "{origin} has not ended");
        assert_eq!(heard.packets, heard.captured, "packets of {origin}, and those that it says it captured");
    }
}

/// A collector that accepts no batch which is not one.
#[derive(Default)]
struct Judge {
    heard: HashMap<Origin, Heard>,
}

/// What a collector hears of a source.
#[derive(Default)]
struct Heard {
    packets: u64,
    /// What the last batch said.
    captured: u64,
    ended: bool,
}

impl Outlet for Judge {
    fn send(&mut self, batch: Batch) {
        let link_type = batch.interface().link_type;
        let message = batch.into_message(&SEND_INFO);
        let received = DecodedBatch::decode(message.as_slice()).expect("a collector can read it");
        let header = received.header();
        let fields = Interface::decode(received.fields(), header.link_type, header.snaplen);
        let interface = fields.expect("and its fields");
        assert_eq!(interface.link_type, link_type);
        let heard = self.heard.entry(interface.origin).or_default();
        heard.packets += u64::from(header.packets);
        heard.captured = header.captured;
        heard.ended = header.ends;
    }

    fn spare(&mut self) -> Vec<u8> {
        Vec::new()
    }
}
