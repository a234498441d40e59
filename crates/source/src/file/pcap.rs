//! Classic pcap, read straight into batches.
//!
//! A batch consists of the records of a little-endian nanosecond file, so the file is read into the batch's memory and walked
//! over once. Other kinds of pcap are converted in place. This costs 7 to 10 ns a packet, where `pcap-file` costs 10 and a copy,
//! and libpcap 50.
//!
//! The format: draft-ietf-opsawg-pcap, sections 4 and 5.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use batch::{Batch, CloseInfo, Interface, Template};
use packet::record::{self, Extent, HEADER_LEN, MAX_CAPTURED};
use packet::{LinkType, Records, Timestamp};

use super::input::{Filled, Input};
use super::{FileError, origin};
use crate::Progress;
use crate::batcher::{HEARTBEAT, InterfaceSlot, Timing};
use crate::context::{CaptureContext, Quota, now};
use crate::filter::FilterSpec;
use crate::stages::Stages;
use crate::tzsp::TzspReport;

/// Bytes before the first record.
const FILE_HEADER_LEN: usize = 24;

/// The bits of the link type's field that are the link type; others describe the frame check sequence (libpcap,
/// `LT_LINKTYPE`).
const LINK_TYPE_MASK: u32 = 0x03ff_ffff;

/// The kind of a pcap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    big_endian: bool,
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
        let (big_endian, (unit, header_len)) = match kind(u32::from_le_bytes(magic)) {
            Some(kind) => (false, kind),
            None => (true, kind(u32::from_be_bytes(magic))?),
        };
        Some(Self { big_endian, unit, header_len })
    }

    /// Whether the file's records have the layout of a batch's.
    const fn is_native(self) -> bool {
        !self.big_endian && self.unit == 1 && self.header_len == HEADER_LEN
    }

    fn u32_at(self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    }
}

/// A pcap file after its header.
#[derive(Debug)]
pub(super) struct Reader {
    input: Input,
    link_type: LinkType,
    template: Template,
    walk: Walk,
    context: CaptureContext,
    /// The stages behind the file, with the slot of its interface; `None` if its batches leave as they are.
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
        spec: FilterSpec,
        tzsp_ports: Option<&[u16]>,
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
        let stages = (!spec.keeps_all() || tzsp_ports.is_some()).then(|| {
            let mut stages = Stages::new(context.clone(), input.timing(), spec, tzsp_ports);
            let slot = stages.open(interface);
            (stages, slot)
        });
        let walk = Walk::new(&template, format, context.limits.bytes);
        Ok(Self {
            input,
            link_type,
            template,
            walk,
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
        loop {
            if self.context.is_over() {
                return self.end(Ok(()));
            }
            let due = self.walk.opened.map_or(self.heartbeat, |opened| opened + self.context.limits.delay);
            let timeout = if is_pipe { due.since(now()) } else { Duration::MAX };
            match self.input.fill(&mut self.walk.buf, timeout) {
                Ok(Filled::Bytes(_) | Filled::NothingYet) => {}
                Ok(Filled::End) if self.walk.is_at_boundary() => return self.end(Ok(())),
                Ok(Filled::End) => {
                    let (path, packet) = (self.input.path().to_owned(), self.walk.packets() + 1);
                    return self.end(Err(FileError::Truncated { path, packet }));
                }
                Err(why) => {
                    let (path, packets) = (self.input.path().to_owned(), self.walk.packets());
                    return self.end(Err(FileError::Read { path, packets, why }));
                }
            }
            // Stages behind the file count against `MAX_PACKETS` themselves.
            let quota = self.stages.is_none().then_some(&*self.context.quota);
            if let Err(captured) = self.walk.advance(quota) {
                let (path, packets) = (self.input.path().to_owned(), self.walk.packets());
                let why = format!("the next packet claims {captured} bytes, more than {MAX_CAPTURED}");
                return self.end(Err(FileError::Corrupt { path, packets, why }));
            }
            if is_pipe && self.walk.opened.is_none() && self.walk.extent.packets > 0 {
                self.walk.opened = Some(now());
            }
            if self.walk.is_full() || is_pipe && now() >= due {
                let spare = self.spare.pop().unwrap_or_default();
                let batch = self.walk.close(&self.template, spare, self.context.limits.bytes, false);
                self.heartbeat = now() + HEARTBEAT;
                self.hand_on(batch);
                return Ok(Progress::Running);
            }
        }
    }

    /// Hands a batch to the stages, or out as it is.
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
        let batch = self.walk.close(&self.template, Vec::new(), 0, true);
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

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        match &mut self.stages {
            Some((stages, _)) => stages.batcher().recycle(buffer),
            None if self.spare.is_empty() => self.spare.push(buffer),
            None => {}
        }
    }
}

/// The memory of a batch, into which the file is read: whole records, followed by what is not a whole record yet.
#[derive(Debug)]
struct Walk {
    format: Format,
    buf: Vec<u8>,
    /// Where this batch's records end.
    records_end: usize,
    /// Where the bytes that were not walked over start: after `records_end` if the file's record headers are longer than the
    /// batch's.
    unread: usize,
    extent: Extent,
    /// Bytes that the record at `unread` needs, as far as known.
    needed: usize,
    /// Packets of earlier batches.
    packets_before: u64,
    /// When the first packet of this batch arrived, for pipes.
    opened: Option<Timestamp>,
    /// The latest time of any packet so far.
    latest: Timestamp,
}

impl Walk {
    /// An empty batch with room for `bytes` of records.
    fn new(template: &Template, format: Format, bytes: usize) -> Self {
        let mut buf = Vec::new();
        template.open(&mut buf);
        buf.reserve_exact(bytes);
        Self {
            format,
            records_end: buf.len(),
            unread: buf.len(),
            buf,
            extent: Extent::EMPTY,
            needed: format.header_len,
            packets_before: 0,
            opened: None,
            latest: Timestamp::ZERO,
        }
    }

    fn packets(&self) -> u64 {
        self.packets_before + u64::from(self.extent.packets)
    }

    fn is_at_boundary(&self) -> bool {
        self.unread == self.buf.len()
    }

    /// Whether the next record has no room in this batch.
    fn is_full(&self) -> bool {
        self.extent.packets > 0 && self.unread + self.needed > self.buf.capacity()
    }

    /// Walks over all whole records and converts them. The error is an impossible captured length.
    fn advance(&mut self, quota: Option<&Quota>) -> Result<(), u32> {
        loop {
            let had = self.buf.len() - self.unread;
            self.needed = self.format.header_len;
            if had < self.needed {
                break;
            }
            let at = self.unread;
            let captured = self.format.u32_at(&self.buf, at + 8);
            if captured as usize > MAX_CAPTURED {
                return Err(captured);
            }
            self.needed += captured as usize;
            if had < self.needed {
                break;
            }
            if !quota.is_none_or(Quota::take) {
                self.buf.truncate(self.unread);
                return Ok(());
            }
            self.take_record(at, captured as usize);
        }
        // A packet larger than a batch gets the room it needs.
        if self.extent.packets == 0 {
            self.buf.reserve_exact((self.unread + self.needed).saturating_sub(self.buf.len()));
        }
        Ok(())
    }

    /// Converts the record at `at`, which is whole.
    #[inline]
    fn take_record(&mut self, at: usize, captured: usize) {
        let secs = self.format.u32_at(&self.buf, at);
        let fraction = self.format.u32_at(&self.buf, at + 4);
        let nanos = u64::from(secs) * 1_000_000_000 + u64::from(fraction) * u64::from(self.format.unit);
        // Limited to what a record can hold: the year 2106.
        let (secs, fraction) = Timestamp::from_nanos(nanos).to_parts();
        let time = Timestamp::from_parts(secs, fraction);
        let end = at + self.format.header_len + captured;
        if self.format.is_native() {
            self.records_end = end;
        } else {
            let original = self.format.u32_at(&self.buf, at + 12);
            let header = record::header(time, captured as u32, original);
            let to = self.records_end;
            self.buf[to..to + HEADER_LEN].copy_from_slice(&header);
            self.buf.copy_within(end - captured..end, to + HEADER_LEN);
            self.records_end = to + HEADER_LEN + captured;
        }
        self.unread = end;
        self.extent.add(time);
        self.latest = self.latest.max(time);
    }

    /// Closes the batch. What is not a whole record yet goes into the next one, which has room for `bytes` of records.
    fn close(&mut self, template: &Template, mut next: Vec<u8>, bytes: usize, ends: bool) -> Batch {
        template.open(&mut next);
        // The next packet may be larger than a batch.
        next.reserve_exact(bytes.max(self.needed));
        next.extend_from_slice(&self.buf[self.unread..]);
        let closing =
            CloseInfo { watermark: self.latest, captured: self.packets(), ends, ..CloseInfo::default() };
        self.packets_before = self.packets();
        let extent = mem::replace(&mut self.extent, Extent::EMPTY);
        let mut buf = mem::replace(&mut self.buf, next);
        buf.truncate(self.records_end);
        if buf.len() < buf.capacity() / 2 {
            buf.shrink_to_fit();
        }
        self.records_end = template.head_len();
        self.unread = self.records_end;
        self.opened = None;
        template.close(buf, extent, closing)
    }
}
