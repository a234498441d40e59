//! How a batch is made: filled, closed, compressed, sent.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use packet::record::{Extent, HEADER_LEN, MAX_CAPTURED};
use packet::{Record, Timestamp};

use crate::layout::{FIXED_LEN, MAX_PAYLOAD};
use crate::{Compression, Dropped, Header, Interface};

/// When a batch closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// When its records have this many bytes, or would have more with the next packet.
    pub bytes: usize,
    /// When its first packet is this old.
    pub delay: Duration,
}

/// The order of the packets in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The order of their arrival: a file keeps its order.
    AsTheyCame,
    /// The order of their times: a device with several queues delivers packets that are microseconds out of order, and
    /// sorting them here is cheapest.
    ByTime,
}

/// What a source knows when it closes a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseInfo {
    /// No later batch holds an older packet.
    pub watermark: Timestamp,
    /// Packets read from the device so far.
    pub captured: u64,
    /// Packets dropped by the kernel so far.
    pub dropped_kernel: u64,
    /// Packets dropped by the interface so far.
    pub dropped_interface: u64,
    /// Whether the source ends with this batch.
    pub ends: bool,
}

/// What is only known when a batch is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendInfo {
    /// The batch's number in its epoch.
    pub sequence: u64,
    /// Packets sent in this epoch before this batch.
    pub sent_before: u64,
    /// The time of sending, by this host's clock.
    pub sent_at: Timestamp,
    /// Packets dropped by the relay in this epoch so far, because its buffer was full.
    pub dropped_relay: u64,
}

/// What all batches of one run of a source have in common, encoded once.
#[derive(Clone, Debug)]
pub struct Template {
    interface: Arc<Interface>,
    epoch: u64,
    /// Space for the fixed header, then the fields.
    head: Box<[u8]>,
}

impl Template {
    /// For a source whose current run began at `epoch`.
    #[must_use]
    pub fn new(interface: Arc<Interface>, epoch: Timestamp) -> Self {
        let mut head = vec![0; FIXED_LEN];
        interface.append_to(&mut head);
        Self { interface, epoch: epoch.as_nanos(), head: head.into() }
    }

    /// The interface that the packets come from.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// Bytes in front of the payload.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head.len()
    }

    /// Begins a batch in `buf`: its content is cleared, its memory is reused.
    pub fn open(&self, buf: &mut Vec<u8>) {
        buf.clear();
        buf.extend_from_slice(&self.head);
    }

    /// Makes a batch of `buf`, which [`Template::open`] began and which holds records from there to its end. `extent`
    /// must be that of these records.
    #[must_use]
    pub fn close(&self, buf: Vec<u8>, extent: Extent, info: CloseInfo) -> Batch {
        debug_assert_eq!(buf.get(self.head.len()..).map(Extent::of), Some(Ok(extent)));
        Batch {
            interface: Arc::clone(&self.interface),
            epoch: self.epoch,
            head_len: self.head.len(),
            payload_len: buf.len() - self.head.len(),
            compression: Compression::None,
            extent,
            info,
            buf,
        }
    }
}

/// A closed batch, which has not been sent yet.
#[derive(Clone, Debug)]
pub struct Batch {
    interface: Arc<Interface>,
    epoch: u64,
    head_len: usize,
    /// Uncompressed.
    payload_len: usize,
    compression: Compression,
    extent: Extent,
    info: CloseInfo,
    /// Space for the fixed header, the fields, the payload.
    buf: Vec<u8>,
}

impl Batch {
    /// The interface that the packets come from.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// When this run of the source began, in nanoseconds since the Unix epoch. It identifies the run.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the source knew when it closed the batch.
    #[must_use]
    pub fn close_info(&self) -> &CloseInfo {
        &self.info
    }

    /// The number of packets and the range of their times.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The number of packets.
    #[must_use]
    pub fn packets(&self) -> u32 {
        self.extent.packets
    }

    /// Whether the source ends with this batch.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.info.ends
    }

    /// Whether it has no packets and does not end its source.
    #[must_use]
    pub fn is_heartbeat(&self) -> bool {
        self.packets() == 0 && !self.ends()
    }

    /// The memory that it occupies, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buf.capacity() + size_of::<Self>()
    }

    /// Its records; once it is [compressed](Batch::compress), their compressed bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.buf.get(self.head_len..).unwrap_or_default()
    }

    /// Compresses the payload if that makes it smaller. Returns the memory that this frees.
    pub fn compress(&mut self, compression: Compression) -> Option<Vec<u8>> {
        if self.compression != Compression::None || self.packets() == 0 {
            return None;
        }
        let mut compressed = Vec::with_capacity(self.buf.len());
        compressed.extend_from_slice(self.buf.get(..self.head_len)?);
        if !compression.compress(self.payload(), &mut compressed) {
            return None;
        }
        compressed.shrink_to_fit();
        self.compression = compression;
        Some(std::mem::replace(&mut self.buf, compressed))
    }

    /// Encodes the message.
    #[must_use]
    pub fn into_message(mut self, send: &SendInfo) -> Vec<u8> {
        let header = self.header(send);
        if let Some(fixed) = self.buf.first_chunk_mut() {
            *fixed = header.encode();
        }
        self.buf
    }

    /// The memory, to be used again. Its content is undefined.
    #[must_use]
    pub fn into_spare(self) -> Vec<u8> {
        self.buf
    }

    fn header(&self, send: &SendInfo) -> Header {
        Header {
            compression: self.compression,
            ends: self.info.ends,
            header_len: self.head_len as u32,
            link_type: self.interface.link_type,
            snaplen: self.interface.snaplen,
            packets: self.extent.packets,
            payload_len: self.payload_len as u32,
            epoch: self.epoch,
            sequence: send.sequence,
            sent_before: send.sent_before,
            sent_at: send.sent_at,
            watermark: self.info.watermark,
            captured: self.info.captured,
            dropped: Dropped {
                kernel: self.info.dropped_kernel,
                interface: self.info.dropped_interface,
                relay: send.dropped_relay,
            },
        }
    }
}

/// Fills batches, for sources that receive their packets one at a time.
#[derive(Debug)]
pub struct Builder {
    template: Template,
    limits: BatchLimits,
    order: Order,
    buf: Vec<u8>,
    extent: Extent,
    opened: Option<Timestamp>,
    /// Bytes to reserve for the records of a batch in advance.
    reserve: usize,
    /// Bytes of records with which this batch is full.
    full_at: usize,
}

impl Builder {
    /// Begins with an empty batch.
    #[must_use]
    pub fn new(template: Template, limits: BatchLimits, order: Order) -> Self {
        let (buf, extent) = (Vec::new(), Extent::EMPTY);
        let (opened, reserve, full_at) = (None, limits.bytes, limits.bytes);
        let mut builder = Self { template, limits, order, buf, extent, opened, reserve, full_at };
        builder.template.open(&mut builder.buf);
        builder
    }

    /// Reserves at most `bytes` in advance, where many batches are open at once. They grow as far as the limits allow.
    #[must_use]
    pub fn with_reserve(self, bytes: usize) -> Self {
        Self { reserve: self.limits.bytes.min(bytes), ..self }
    }

    /// The memory that the open batch occupies, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buf.capacity()
    }

    /// Frees the memory of an empty batch until it has packets.
    pub fn release_memory(&mut self) {
        if self.is_empty() {
            self.buf.shrink_to_fit();
        }
    }

    /// The interface that the packets come from.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.template.interface
    }

    /// Appends a packet. `now` is called for the first packet of a batch: the batch's age counts from there.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>, now: impl FnOnce() -> Timestamp) {
        if self.extent.packets == 0 {
            self.opened = Some(now());
            // Allocate the full size at once: growing step by step would copy the buffer repeatedly.
            let wanted = self.template.head_len() + self.reserve;
            self.buf.reserve_exact(wanted.saturating_sub(self.buf.len()));
        }
        record.append_to(&mut self.buf);
        self.extent.add(record.time);
    }

    /// Whether a packet of `len` bytes belongs in the next batch.
    #[inline]
    #[must_use]
    pub fn is_full_for(&self, len: usize) -> bool {
        let payload = self.buf.len() - self.template.head_len();
        self.extent.packets > 0 && payload + HEADER_LEN + len > self.full_at
    }

    /// Whether the batch has no packets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extent.packets == 0
    }

    /// When the batch must be closed even if it is not full; `None` while it is empty.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.opened.map(|opened| opened + self.limits.delay)
    }

    /// Closes the batch and begins the next one, in the memory that `spare` returns if the batch keeps its own.
    pub fn close(&mut self, info: CloseInfo, spare: impl FnOnce() -> Vec<u8>) -> Batch {
        self.sort();
        let extent = std::mem::replace(&mut self.extent, Extent::EMPTY);
        (self.opened, self.full_at) = (None, self.limits.bytes);
        // A small batch must not occupy the memory of a full one: queues count bytes.
        let buf = if self.buf.len() < self.buf.capacity() / 2 {
            self.buf.as_slice().to_vec()
        } else {
            std::mem::replace(&mut self.buf, spare())
        };
        self.template.open(&mut self.buf);
        self.template.close(buf, extent, info)
    }

    /// Closes the batch without the packets that are later than `horizon`. These begin the next batch, where packets that
    /// arrive a little late are sorted in among them. `None` if no packet would remain: then the batch may grow, up to
    /// 1 MiB.
    pub fn close_until(
        &mut self,
        horizon: Timestamp,
        info: CloseInfo,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> Option<Batch> {
        self.sort();
        let head_len = self.template.head_len();
        let (mut kept, mut len) = (Extent::EMPTY, head_len);
        for record in packet::Records::new(self.buf.get(head_len..)?).take_while(|r| r.time <= horizon) {
            kept.add(record.time);
            len += record.encoded_len();
        }
        if kept.packets == 0 && self.extent.packets > 0 && self.full_at < MAX_GROWN {
            self.full_at *= 2;
            return None;
        }
        if kept.packets == 0 || kept.packets == self.extent.packets {
            return Some(self.close(info, spare));
        }
        let held = self.buf.split_off(len);
        self.extent = kept;
        let batch = self.close(info, spare);
        for record in packet::Records::new(&held) {
            self.push(&record, || record.time);
        }
        Some(batch)
    }

    /// Sorts the packets by time if the batch is ordered by time and they are not.
    fn sort(&mut self) {
        if !self.extent.ordered && self.order == Order::ByTime {
            sort_records(&mut self.buf, self.template.head_len(), &mut self.extent);
        }
    }
}

/// Sorts the records after the first `head_len` bytes by time; equal times keep their order.
fn sort_records(buf: &mut [u8], head_len: usize, extent: &mut Extent) {
    let Some(payload) = buf.get_mut(head_len..) else { return };
    let mut at = 0;
    let mut ranges: Vec<(Timestamp, Range<usize>)> = Vec::with_capacity(extent.packets as usize);
    for record in packet::Records::new(payload) {
        let end = at + record.encoded_len();
        ranges.push((record.time, at..end));
        at = end;
    }
    ranges.sort_by_key(|(time, _)| *time);
    let sorted: Vec<u8> = ranges.iter().flat_map(|(_, range)| &payload[range.clone()]).copied().collect();
    payload[..sorted.len()].copy_from_slice(&sorted);
    extent.ordered = true;
    extent.first = ranges.first().map_or(extent.first, |(time, _)| *time);
}

/// Maximum bytes to which a batch grows while all its packets are held back.
const MAX_GROWN: usize = 1 << 20;

// The largest batch that the settings allow (4 MiB), plus the packet that did not fit, can be decoded.
const _: () = assert!((4 << 20) + HEADER_LEN + MAX_CAPTURED <= MAX_PAYLOAD);
