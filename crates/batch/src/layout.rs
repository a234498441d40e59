//! The byte layout of a batch.
//!
//! One ZeroMQ message is one batch. All numbers are little-endian.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | magic: `PKTR` |
//! | 4 | 1 | version of this layout: 1 |
//! | 5 | 1 | compression of the payload: 0 none, 1 lz4 (block), 2 zstd (frame) |
//! | 6 | 2 | flags: bit 0: the source ends with this batch; the others are 0 |
//! | 8 | 4 | header length: the offset of the payload |
//! | 12 | 4 | link type (`LINKTYPE_*`) |
//! | 16 | 4 | snaplen |
//! | 20 | 4 | packets in this batch |
//! | 24 | 4 | length of the uncompressed payload |
//! | 28 | 4 | 0 |
//! | 32 | 8 | epoch: when this run of the source began, nanoseconds since the Unix epoch |
//! | 40 | 8 | sequence number of the batch in its epoch, from 0 |
//! | 48 | 8 | packets sent in this epoch before this batch |
//! | 56 | 8 | time of sending, nanoseconds since the Unix epoch by the source's clock |
//! | 64 | 8 | watermark: no later batch of this epoch holds an older packet |
//! | 72 | 8 | packets read from the device in this epoch so far |
//! | 80 | 8 | packets dropped by the kernel in this epoch so far |
//! | 88 | 8 | packets dropped by the interface or its driver in this epoch so far |
//! | 96 | 8 | packets dropped by the relay in this epoch so far |
//! | 104 | | fields, up to the header length: see [`crate::interface`] |
//! | header length | | payload: records, as in [`packet::record`] |
//!
//! A batch without packets is a heartbeat: it carries the watermark, the counters and the time of an idle source.
//!
//! The header may grow: a decoder finds the payload by the header length and skips fields that it does not know. A change
//! that an old decoder would misread needs a new version number.

/// The first four bytes of every batch.
pub(crate) const MAGIC: [u8; 4] = *b"PKTR";

/// The version that this code writes, and the only one that it reads.
pub(crate) const VERSION: u8 = 1;

/// Length of the fixed header, which precedes the fields, in bytes.
pub(crate) const FIXED_LEN: usize = 104;

/// Maximum length of a header, fields included, in bytes.
pub(crate) const MAX_HEADER: usize = 65_536;

/// Maximum length of an uncompressed payload in bytes: twice the largest `BATCH_BYTES`, so that the packet that fills a
/// batch always fits. A decoder allocates no more than this for a message.
pub const MAX_PAYLOAD: usize = 8 << 20;

/// Maximum length of a message in bytes: the collector's `ZMQ_MAXMSGSIZE`.
pub const MAX_MESSAGE: usize = MAX_HEADER + MAX_PAYLOAD;

/// How many times longer a payload may be than its compressed form. Beyond that, a few bytes of a message would cost the
/// collector and the reader of its output too much. The median of public captures is 3 with zstd; only long packets of
/// zeroes exceed this (up to 500), and the encoder sends them padded with zstd, and as they are with LZ4.
pub const MAX_EXPANSION: usize = 64;

/// Payloads up to this many bytes may be compressed to any size: the header of a message weighs more than them.
pub const SMALL_PAYLOAD: usize = 8 << 10;
