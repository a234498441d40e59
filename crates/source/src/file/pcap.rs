//! Classic pcap, read straight into batches.
//!
//! The records of a nanosecond file of this byte order are what a batch consists of: the file is read into the batch's
//! memory, and walked over once. Other kinds of pcap are turned into that where they lie.
//!
//! The format: draft-ietf-opsawg-pcap, sections 4 and 5.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use batch::{CloseInfo, Interface, Template};
use packet::record::{self, Extent, HEADER_LEN, MAX_CAPTURED};
use packet::{LinkType, Timestamp};

use super::input::{Filled, Input};
use super::{FileError, origin};
use crate::outlet::{HEARTBEAT, Outlet, Run, now};
use crate::packer::Pace;

/// Bytes in front of the first record.
const FILE_HEADER_LEN: usize = 24;

/// The link type's field also says whether frames have a check sequence; these bits are the type (libpcap,
/// `LT_LINKTYPE`).
const LINK_TYPE_MASK: u32 = 0x03ff_ffff;

/// Which kind of pcap a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    big_endian: bool,
    /// Nanoseconds in one unit of a record's fraction of a second.
    unit: u32,
    /// Bytes of a record in front of its packet.
    header_len: usize,
}

impl Format {
    /// By the first four bytes of a file.
    pub(super) fn of(magic: [u8; 4]) -> Option<Self> {
        let kind = |magic: u32| match magic {
            0xa1b2_c3d4 => Some((1000, HEADER_LEN)),
            0xa1b2_3c4d => Some((1, HEADER_LEN)),
            // The kind that Alexey Kuznetsov's patched libpcap wrote: eight more bytes, of the interface and the protocol.
            0xa1b2_cd34 => Some((1000, HEADER_LEN + 8)),
            _ => None,
        };
        let (big_endian, (unit, header_len)) = match kind(u32::from_le_bytes(magic)) {
            Some(kind) => (false, kind),
            None => (true, kind(u32::from_be_bytes(magic))?),
        };
        Some(Self { big_endian, unit, header_len })
    }

    /// Whether records lie in the file as they do in a batch.
    const fn is_ours(self) -> bool {
        !self.big_endian && self.unit == 1 && self.header_len == HEADER_LEN
    }

    fn u32_at(self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    }
}

/// A pcap file behind its header.
#[derive(Debug)]
pub(super) struct Reader {
    input: Input,
    format: Format,
    link_type: LinkType,
    snaplen: u32,
}

impl Reader {
    pub(super) fn open(mut input: Input, format: Format) -> Result<Self, FileError> {
        let Some(header) = input.peek::<FILE_HEADER_LEN>()? else {
            return Err(input.not_a_capture("it ends within the header of the file"));
        };
        let mut taken = Vec::with_capacity(FILE_HEADER_LEN);
        input.fill(&mut taken, Duration::ZERO).map_err(|why| FileError::Read {
            path: input.path().to_owned(),
            packets: 0,
            why,
        })?;
        let link_type = LinkType(format.u32_at(&header, 20) & LINK_TYPE_MASK);
        // Files that say 0, or nonsense, are read as if they had no limit.
        let snaplen = match format.u32_at(&header, 16) {
            snaplen @ 1..=262_144 => snaplen,
            _ => MAX_CAPTURED as u32,
        };
        Ok(Self { input, format, link_type, snaplen })
    }

    pub(super) fn link_type(&self) -> LinkType {
        self.link_type
    }

    pub(super) fn pace(&self) -> Pace {
        self.input.pace()
    }

    pub(super) fn capture(mut self, outlet: &mut dyn Outlet, run: &Run) -> Result<(), FileError> {
        let interface = Interface::new(origin(run, &self.input.name()), self.link_type, self.snaplen);
        let template = Template::new(Arc::new(interface), run.epoch);
        let room = template.head_len() + run.limits.bytes;
        let mut walk = Walk::new(&template, self.format, outlet.spare(), room);
        let mut heartbeat = now();
        let ended = loop {
            if run.is_over() {
                break Ok(());
            }
            let due = walk.opened.map_or(heartbeat, |opened| opened + run.limits.delay);
            let live = self.input.is_live();
            let patience = if live { due.since(now()) } else { Duration::MAX };
            match self.input.fill(&mut walk.buf, patience) {
                Ok(Filled::Bytes(_) | Filled::NothingYet) => {}
                Ok(Filled::End) if walk.is_at_boundary() => break Ok(()),
                Ok(Filled::End) => {
                    break Err(FileError::Cut {
                        path: self.input.path().to_owned(),
                        packet: walk.packets() + 1,
                    });
                }
                Err(why) => {
                    let (path, packets) = (self.input.path().to_owned(), walk.packets());
                    break Err(FileError::Read { path, packets, why });
                }
            }
            if let Err(captured) = walk.advance(run) {
                break Err(FileError::Damaged {
                    path: self.input.path().to_owned(),
                    packets: walk.packets(),
                    why: format!("the next packet claims {captured} bytes, more than {MAX_CAPTURED}"),
                });
            }
            let now = if live { now() } else { Timestamp::ZERO };
            if live && walk.opened.is_none() && walk.extent.packets > 0 {
                walk.opened = Some(now);
            }
            if walk.is_full() || (live && now >= due) {
                let spare = outlet.spare();
                outlet.send(walk.close(&template, spare, room, false));
                heartbeat = now + HEARTBEAT;
            }
        };
        outlet.send(walk.close(&template, Vec::new(), room, true));
        ended
    }
}

/// A batch's memory, into which the file is read: records up to some point, behind it what is not a whole record yet.
struct Walk {
    format: Format,
    buf: Vec<u8>,
    /// Where the records of this batch end.
    records_end: usize,
    /// Where the bytes that have not been walked over begin. They lie behind `records_end` where the file's record
    /// headers are longer than ours.
    unread: usize,
    extent: Extent,
    /// How many bytes the first record behind `unread` needs, as far as it is known.
    needed: usize,
    /// Packets of the batches that are gone.
    packets_before: u64,
    /// When the first packet of this batch came.
    opened: Option<Timestamp>,
    /// The latest packet of all.
    latest: Timestamp,
}

impl Walk {
    fn new(template: &Template, format: Format, mut buf: Vec<u8>, room: usize) -> Self {
        template.open(&mut buf);
        buf.reserve_exact(room.saturating_sub(buf.len()));
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

    /// Whether the record that comes next does not fit in any more.
    fn is_full(&self) -> bool {
        self.extent.packets > 0 && self.unread + self.needed > self.buf.capacity()
    }

    /// Walks over all whole records, and makes ours of them. The captured length of one that cannot be is the error.
    fn advance(&mut self, run: &Run) -> Result<(), u32> {
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
            if !run.take() {
                self.buf.truncate(self.unread);
                return Ok(());
            }
            self.take_record(at, captured as usize);
        }
        // A packet larger than a whole batch gets the room that it needs.
        if self.extent.packets == 0 {
            self.buf.reserve_exact((self.unread + self.needed).saturating_sub(self.buf.len()));
        }
        Ok(())
    }

    /// Takes over the record at `at`, which is whole.
    #[inline]
    fn take_record(&mut self, at: usize, captured: usize) {
        let secs = self.format.u32_at(&self.buf, at);
        let fraction = self.format.u32_at(&self.buf, at + 4);
        let nanos = u64::from(secs) * 1_000_000_000 + u64::from(fraction) * u64::from(self.format.unit);
        // As a record can hold it: not beyond 2106.
        let (secs, fraction) = Timestamp::from_nanos(nanos).to_parts();
        let time = Timestamp::from_parts(secs, fraction);
        let end = at + self.format.header_len + captured;
        if self.format.is_ours() {
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

    /// Closes the batch; what is not a whole record yet goes into the next one.
    fn close(&mut self, template: &Template, mut next: Vec<u8>, room: usize, ends: bool) -> batch::Batch {
        template.open(&mut next);
        // There must be room to read more into, also where the packet that comes next is larger than a batch.
        let room = room.max(next.len() + self.needed);
        next.reserve_exact(room.saturating_sub(next.len()));
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
