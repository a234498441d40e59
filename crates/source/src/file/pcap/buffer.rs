//! The memory of a batch, into which a pcap file is read.

use std::mem;

use batch::{Batch, CloseInfo, Template};
use packet::Timestamp;
use packet::record::{self, Extent, HEADER_LEN, MAX_CAPTURED};

use super::Format;
use crate::clock::latest_piped;
use crate::context::Quota;

/// A sub-second part from here on is invalid. It is carried over into the seconds.
const NANOS_PER_SEC: u32 = 1_000_000_000;

/// The memory of a batch, into which the file is read: whole records, followed by what is not a whole record yet.
#[derive(Debug)]
pub(super) struct BatchBuffer {
    format: Format,
    buf: Vec<u8>,
    /// Where this batch's records end.
    records_end: usize,
    /// Where the bytes that are not taken yet start: after `records_end` if the file's record headers are longer than the
    /// batch's.
    unread: usize,
    extent: Extent,
    /// Bytes that the record at `unread` needs, as far as known.
    needed: usize,
    /// Packets of earlier batches.
    packets_before: u64,
    /// When the first packet of this batch arrived, for pipes.
    pub(super) opened: Option<Timestamp>,
    /// The latest time of any packet so far.
    latest: Timestamp,
}

impl BatchBuffer {
    /// An empty batch with room for `bytes` of records.
    pub(super) fn new(template: &Template, format: Format, bytes: usize) -> Self {
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

    /// Packets of all batches so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets_before + u64::from(self.extent.packets)
    }

    /// Whether the bytes end with a whole record.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.unread == self.buf.len()
    }

    /// Whether this batch has no records.
    pub(super) fn is_empty(&self) -> bool {
        self.extent.packets == 0
    }

    /// Where to append what is read from the file, up to the capacity.
    pub(super) fn memory_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Whether the next record has no room in this batch.
    pub(super) fn is_full(&self) -> bool {
        self.extent.packets > 0 && self.unread + self.needed > self.buf.capacity()
    }

    /// Takes all whole records and converts them. The error is an impossible captured length.
    pub(super) fn advance(&mut self, quota: Option<&Quota>) -> Result<(), u32> {
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
        let (held_secs, held_nanos) = Timestamp::from_nanos(nanos).to_parts();
        let time = Timestamp::from_parts(held_secs, held_nanos);
        let end = at + self.format.header_len + captured;
        if self.format.is_native() {
            if fraction >= NANOS_PER_SEC {
                // Only the time: the lengths are valid.
                self.buf[at..at + 8].copy_from_slice(&record::header(time, 0, 0)[..8]);
            }
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

    /// The packets come through a pipe: if those of this batch show that the clock of their host was set back, their
    /// latest time counts, not that of the batches before.
    pub(super) fn follow_clock(&mut self) {
        if !self.is_empty() {
            self.latest = latest_piped(self.latest, self.extent.latest);
        }
    }

    /// Closes the batch. What is not a whole record yet goes into the next one, which has room for `bytes` of records.
    pub(super) fn close(
        &mut self,
        template: &Template,
        mut next: Vec<u8>,
        bytes: usize,
        ends: bool,
    ) -> Batch {
        template.open(&mut next);
        // The next packet may be larger than a batch.
        next.reserve_exact(bytes.max(self.needed));
        next.extend_from_slice(&self.buf[self.unread..]);
        let info =
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
        template.close(buf, extent, info)
    }
}
