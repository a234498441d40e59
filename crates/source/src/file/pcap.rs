//! Classic pcap, read straight into batches.
//!
//! A batch consists of the records of a little-endian nanosecond file, so the file is read into the batch's memory and
//! its records are walked once. Other kinds of pcap are converted in place. This costs 7 to 10 ns a packet, where
//! `pcap-file` costs 10 and a copy, and libpcap 50.
//!
//! The format: draft-ietf-opsawg-pcap, sections 4 and 5.

mod buffer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use batch::{Batch, Interface, Template};
use packet::bytes::ByteOrder;
use packet::record::{HEADER_LEN, MAX_CAPTURED};
use packet::{LinkType, Records, Timestamp};

use super::input::{Filled, Input};
use super::{FileError, origin};
use crate::Progress;
use crate::batcher::{HEARTBEAT, InterfaceSlot, Timing};
use crate::clock::is_due;
use crate::context::{CaptureContext, now};
use crate::stages::{Stages, StagesConfig};
use crate::tzsp::TzspReport;
use buffer::BatchBuffer;

/// Bytes before the first record.
const FILE_HEADER_LEN: usize = 24;

/// The bits of the link type's field that are the link type; others describe the frame check sequence (libpcap,
/// `LT_LINKTYPE`).
const LINK_TYPE_MASK: u32 = 0x03ff_ffff;

/// The kind of a pcap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    order: ByteOrder,
    /// Nanoseconds per unit of the sub-second field.
    unit: u32,
    /// Bytes of a record header.
    header_len: usize,
}

impl Format {
    /// The kind that the first four bytes of a file stand for.
    pub(super) fn from_magic(magic: [u8; 4]) -> Option<Self> {
        let kind = |magic: u32| match magic {
            0xa1b2_c3d4 => Some((1000, HEADER_LEN)),
            0xa1b2_3c4d => Some((1, HEADER_LEN)),
            // Written by Alexey Kuznetsov's patched libpcap: eight more bytes, with interface and protocol.
            0xa1b2_cd34 => Some((1000, HEADER_LEN + 8)),
            _ => None,
        };
        let (order, (unit, header_len)) = match kind(u32::from_le_bytes(magic)) {
            Some(kind) => (ByteOrder::Little, kind),
            None => (ByteOrder::Big, kind(u32::from_be_bytes(magic))?),
        };
        Some(Self { order, unit, header_len })
    }

    /// Whether the file's records have the layout of a batch's.
    fn is_native(self) -> bool {
        self.order == ByteOrder::Little && self.unit == 1 && self.header_len == HEADER_LEN
    }

    fn u32_at(self, bytes: &[u8], at: usize) -> u32 {
        self.order.u32_at(bytes, at).unwrap_or_default()
    }
}

/// A pcap file after its header.
#[derive(Debug)]
pub(super) struct Reader {
    input: Input,
    link_type: LinkType,
    template: Template,
    buffer: BatchBuffer,
    context: CaptureContext,
    /// The stages after the file, with the slot of its interface; `None` if its batches are passed on unchanged.
    stages: Option<(Stages, InterfaceSlot)>,
    ready: VecDeque<Batch>,
    spare: Vec<Vec<u8>>,
    /// When the next heartbeat is due, for pipes.
    heartbeat: Timestamp,
}

impl Reader {
    pub(super) fn open(
        mut input: Input,
        format: Format,
        stages: &StagesConfig,
        context: CaptureContext,
    ) -> Result<Self, FileError> {
        let Some(header) = input.peek::<FILE_HEADER_LEN>()? else {
            return Err(input.not_a_capture("it ends within the file header"));
        };
        let mut header_again = Vec::with_capacity(FILE_HEADER_LEN);
        input.fill(&mut header_again, Duration::ZERO).map_err(|why| FileError::Read {
            path: input.path().to_owned(),
            packets: 0,
            why,
        })?;
        let link_type = LinkType(format.u32_at(&header, 20) & LINK_TYPE_MASK);
        // 0 and absurd values mean no limit.
        let snaplen = match format.u32_at(&header, 16) {
            snaplen @ 1..=262_144 => snaplen,
            _ => MAX_CAPTURED as u32,
        };
        let origin = origin(&context.source, &input.name());
        let interface = Arc::new(Interface::new(origin, link_type, snaplen));
        let template = Template::new(Arc::clone(&interface), context.epoch);
        let stages = (!stages.is_none()).then(|| {
            let mut stages = Stages::new(context.clone(), input.timing(), stages);
            let slot = stages.open(interface);
            (stages, slot)
        });
        let buffer = BatchBuffer::new(&template, format, context.limits.bytes);
        Ok(Self {
            input,
            link_type,
            template,
            buffer,
            context,
            stages,
            ready: VecDeque::new(),
            spare: Vec::new(),
            heartbeat: now(),
        })
    }

    pub(super) fn link_type(&self) -> LinkType {
        self.link_type
    }

    pub(super) fn tzsp_report(&self) -> Option<TzspReport> {
        self.stages.as_ref().and_then(|(stages, _)| stages.tzsp_report())
    }

    /// Reads until a batch is closed, the file ends, or a pipe has nothing more for the moment.
    pub(super) fn poll(&mut self) -> Result<Progress, FileError> {
        let is_pipe = self.input.timing() == Timing::Piped;
        // A batch or a heartbeat is due within this time.
        let ahead = self.context.limits.delay.max(HEARTBEAT);
        loop {
            if self.context.is_over() {
                return self.end(Ok(()));
            }
            let due = self.buffer.opened.map_or(self.heartbeat, |opened| opened + self.context.limits.delay);
            let timeout = if is_pipe { due.since(now()).min(ahead) } else { Duration::MAX };
            match self.input.fill(self.buffer.memory_mut(), timeout) {
                Ok(Filled::Bytes(_) | Filled::NothingYet) => {}
                Ok(Filled::End) if self.buffer.is_at_boundary() => return self.end(Ok(())),
                Ok(Filled::End) => {
                    let (path, packet) = (self.input.path().to_owned(), self.buffer.packets() + 1);
                    return self.end(Err(FileError::Truncated { path, packet }));
                }
                Err(why) => {
                    let (path, packets) = (self.input.path().to_owned(), self.buffer.packets());
                    return self.end(Err(FileError::Read { path, packets, why }));
                }
            }
            // Stages after the file count against `MAX_PACKETS` themselves.
            let quota = self.stages.is_none().then_some(&*self.context.quota);
            if let Err(captured) = self.buffer.advance(quota) {
                let (path, packets) = (self.input.path().to_owned(), self.buffer.packets());
                let why = format!("the next packet claims {captured} bytes, more than {MAX_CAPTURED}");
                return self.end(Err(FileError::Corrupt { path, packets, why }));
            }
            if is_pipe && self.buffer.opened.is_none() && !self.buffer.is_empty() {
                self.buffer.opened = Some(now());
            }
            if self.buffer.is_full() || is_pipe && is_due(due, now(), ahead) {
                if is_pipe {
                    self.buffer.follow_clock();
                }
                let spare = self.spare.pop().unwrap_or_default();
                let batch = self.buffer.close(&self.template, spare, self.context.limits.bytes, false);
                self.heartbeat = now() + HEARTBEAT;
                self.hand_on(batch);
                return Ok(Progress::Running);
            }
        }
    }

    /// Passes a batch to the stages, or on unchanged.
    fn hand_on(&mut self, batch: Batch) {
        let Some((stages, slot)) = &mut self.stages else {
            self.ready.push_back(batch);
            return;
        };
        let arrived = now();
        for record in Records::new(batch.payload()) {
            if !stages.push(*slot, &record, arrived) {
                break;
            }
        }
        if self.input.timing() == Timing::Piped {
            stages.tick(arrived, Some(batch.close_info().watermark));
        }
        self.spare.push(batch.into_spare());
    }

    /// Ends the file: the last batch says so.
    fn end(&mut self, ended: Result<(), FileError>) -> Result<Progress, FileError> {
        let batch = self.buffer.close(&self.template, Vec::new(), 0, true);
        self.hand_on(batch);
        if let Some((stages, _)) = &mut self.stages {
            stages.end(Timestamp::ZERO);
        }
        ended.map(|()| Progress::Ended)
    }

    pub(super) fn poll_batch(&mut self) -> Option<Batch> {
        match &mut self.stages {
            Some((stages, _)) => stages.poll_batch(),
            None => self.ready.pop_front(),
        }
    }

    pub(super) fn wants_buffer(&mut self) -> bool {
        match &mut self.stages {
            Some((stages, _)) => stages.batcher().wants_buffer(),
            None => self.spare.is_empty(),
        }
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        match &mut self.stages {
            Some((stages, _)) => stages.batcher().recycle(buffer),
            None => self.spare.push(buffer),
        }
    }
}
