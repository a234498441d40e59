//! How a batch comes to be: filled, closed, stamped, sent.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use packet::record::{Extent, HEADER_LEN, MAX_CAPTURED};
use packet::{Record, Timestamp};

use crate::header::{FIXED_LEN, Header, MAX_PAYLOAD};
use crate::{Compression, Dropped, Interface};

/// When a batch closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// It holds this many bytes of records, or would with one more of the usual size.
    pub bytes: usize,
    /// Its first packet has waited this long.
    pub delay: Duration,
}

/// In which order the packets of a batch lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they came: a file keeps its own order.
    AsTheyCame,
    /// By time: a device with several queues hands out packets that are microseconds out of order, and here it costs least
    /// to mend.
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
    /// Whether the source ends here.
    pub ends: bool,
}

/// What is only known when a batch is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendInfo {
    /// The batch's number in its epoch.
    pub sequence: u64,
    /// Packets sent in this epoch before.
    pub sent_before: u64,
    /// Now, by this machine's clock.
    pub sent_at: Timestamp,
    /// Packets that the relay's buffer had no room for, so far.
    pub dropped_relay: u64,
}

/// What all batches of one run of a source have in common, encoded once.
#[derive(Clone, Debug)]
pub struct Template {
    interface: Arc<Interface>,
    epoch: u64,
    head: Box<[u8]>,
}

impl Template {
    /// Of a source whose present run began at `epoch`.
    #[must_use]
    pub fn new(interface: Arc<Interface>, epoch: Timestamp) -> Self {
        let mut head = vec![0; FIXED_LEN];
        interface.append_to(&mut head);
        Self { interface, epoch: epoch.as_nanos(), head: head.into() }
    }

    /// Where the packets come from.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// Bytes in front of the payload.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head.len()
    }

    /// Begins a batch in `buf`, whose memory is used again and whose content is forgotten.
    pub fn open(&self, buf: &mut Vec<u8>) {
        buf.clear();
        buf.extend_from_slice(&self.head);
    }

    /// Makes a batch of `buf`, which [`Template::open`] began and which holds records from there to its end; `extent`
    /// is what a walk over them would find.
    #[must_use]
    pub fn close(&self, buf: Vec<u8>, extent: Extent, closing: CloseInfo) -> Batch {
        debug_assert_eq!(buf.get(self.head.len()..).map(Extent::of), Some(Ok(extent)));
        let header = Header {
            compression: Compression::None,
            ends: closing.ends,
            header_len: self.head.len() as u32,
            link_type: self.interface.link_type,
            snaplen: self.interface.snaplen,
            packets: extent.packets,
            payload_len: (buf.len() - self.head.len()) as u32,
            epoch: self.epoch,
            sequence: 0,
            sent_before: 0,
            sent_at: Timestamp::ZERO,
            watermark: closing.watermark,
            captured: closing.captured,
            dropped: Dropped {
                kernel: closing.dropped_kernel,
                interface: closing.dropped_interface,
                relay: 0,
            },
        };
        Batch { interface: Arc::clone(&self.interface), header, extent, buf }
    }
}

/// A closed batch, on its way out.
#[derive(Clone, Debug)]
pub struct Batch {
    interface: Arc<Interface>,
    header: Header,
    extent: Extent,
    /// The message, but for the fixed header, which [`Batch::stamp`] writes.
    buf: Vec<u8>,
}

impl Batch {
    /// Where the packets come from.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// What the header will say.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many packets there are, and when they were.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Whether it has no packets, and does not end its source either.
    #[must_use]
    pub fn is_heartbeat(&self) -> bool {
        self.header.packets == 0 && !self.header.ends
    }

    /// The memory that it holds on to, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buf.capacity() + size_of::<Self>()
    }

    /// Its records; once it is [compressed](Batch::compress), bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.buf.get(self.header.header_len as usize..).unwrap_or_default()
    }

    /// Compresses the payload, where that makes it smaller. Returns the memory that is free now.
    pub fn compress(&mut self, compression: Compression) -> Option<Vec<u8>> {
        if self.header.compression != Compression::None || self.header.packets == 0 {
            return None;
        }
        let head = self.buf.get(..self.header.header_len as usize)?;
        let mut packed = Vec::with_capacity(self.buf.len());
        packed.extend_from_slice(head);
        if !compression.compress(self.payload(), &mut packed) {
            return None;
        }
        packed.shrink_to_fit();
        self.header.compression = compression;
        Some(std::mem::replace(&mut self.buf, packed))
    }

    /// Writes the header: the batch is ready to be sent.
    pub fn stamp(&mut self, stamp: &SendInfo) {
        self.header.sequence = stamp.sequence;
        self.header.sent_before = stamp.sent_before;
        self.header.sent_at = stamp.sent_at;
        self.header.dropped.relay = stamp.dropped_relay;
        if let Some(fixed) = self.buf.first_chunk_mut::<FIXED_LEN>() {
            self.header.write_to(fixed);
        }
    }

    /// The message. It is complete after [`Batch::stamp`].
    #[must_use]
    pub fn into_message(self) -> Vec<u8> {
        self.buf
    }
}

/// Fills batches packet by packet, for sources that are handed their packets one at a time.
#[derive(Debug)]
pub struct Builder {
    template: Template,
    limits: Limits,
    order: Order,
    buf: Vec<u8>,
    extent: Extent,
    opened: Option<Timestamp>,
    /// Bytes of records with which this batch is full.
    full_at: usize,
}

impl Builder {
    /// An empty batch.
    #[must_use]
    pub fn new(template: Template, limits: Limits, order: Order) -> Self {
        let (buf, extent) = (Vec::new(), Extent::EMPTY);
        let mut builder = Self { template, limits, order, buf, extent, opened: None, full_at: limits.bytes };
        builder.template.open(&mut builder.buf);
        builder
    }

    /// Where the packets come from.
    #[must_use]
    pub fn interface(&self) -> &Arc<Interface> {
        &self.template.interface
    }

    /// Takes a packet in. `now` is the wall clock, from which the batch's age is told; its first packet counts.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>, now: impl FnOnce() -> Timestamp) {
        if self.extent.packets == 0 {
            self.opened = Some(now());
            // The buffer gets its full size at once: growing it step by step would copy it time and again.
            let wanted = self.template.head_len() + self.limits.bytes;
            self.buf.reserve_exact(wanted.saturating_sub(self.buf.len()));
        }
        record.append_to(&mut self.buf);
        self.extent.add(record.time);
    }

    /// Whether a further packet of `len` bytes should go into the next batch.
    #[inline]
    #[must_use]
    pub fn is_full_for(&self, len: usize) -> bool {
        let payload = self.buf.len() - self.template.head_len();
        self.extent.packets > 0 && payload + HEADER_LEN + len > self.full_at
    }

    /// Whether it has no packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extent.packets == 0
    }

    /// When the batch is to be closed, full or not; `None` while it is empty.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.opened.map(|opened| opened + self.limits.delay)
    }

    /// Closes the batch, and begins the next one: in the memory that `spare` gives, where the present one goes away with
    /// the batch.
    pub fn close(&mut self, closing: CloseInfo, spare: impl FnOnce() -> Vec<u8>) -> Batch {
        self.sort();
        let extent = std::mem::replace(&mut self.extent, Extent::EMPTY);
        (self.opened, self.full_at) = (None, self.limits.bytes);
        // A batch that closed early must not hold on to the memory of a full one: queues are counted in bytes.
        let buf = if self.buf.len() < self.buf.capacity() / 2 {
            self.buf.as_slice().to_vec()
        } else {
            std::mem::replace(&mut self.buf, spare())
        };
        self.template.open(&mut self.buf);
        self.template.close(buf, extent, closing)
    }

    /// Closes the batch without the packets that are later than `horizon`; they are the first of the next one, where those
    /// that are just a little late find their place among them. `None` where nothing else is in the batch: then it may
    /// grow, up to [`MAX_GROWN`].
    pub fn close_until(
        &mut self,
        horizon: Timestamp,
        closing: CloseInfo,
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
            return Some(self.close(closing, spare));
        }
        let held = self.buf.split_off(len);
        self.extent = kept;
        let batch = self.close(closing, spare);
        for record in packet::Records::new(&held) {
            self.push(&record, || record.time);
        }
        Some(batch)
    }

    /// Brings the packets into the order of their times, where that is wanted, and not so already.
    fn sort(&mut self) {
        if !self.extent.ordered && self.order == Order::ByTime {
            sort_records(&mut self.buf, self.template.head_len(), &mut self.extent);
        }
    }
}

/// Brings the records behind the first `head_len` bytes into the order of their times; equal ones stay as they are.
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

/// Bytes to which a batch may grow while all its packets are held back.
pub const MAX_GROWN: usize = 1 << 20;

// A batch of the largest size that settings allow (4 MiB), and the packet that did not fit, is one that we decode.
const _: () = assert!((4 << 20) + HEADER_LEN + MAX_CAPTURED <= MAX_PAYLOAD);
