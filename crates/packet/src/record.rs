//! Records: packets in the layout of a batch's payload and of a nanosecond pcap file.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | seconds since the Unix epoch |
//! | 4 | 4 | nanoseconds of that second |
//! | 8 | 4 | captured length: bytes that follow |
//! | 12 | 4 | original length: bytes on the wire |
//! | 16 | captured length | the packet |
//!
//! All numbers are little-endian. This is the packet record of a pcap file with the magic number `0xa1b23c4d`, written
//! by a little-endian host (draft-ietf-opsawg-pcap, section 5). Records are not aligned.

use crate::Timestamp;
use crate::bytes::le_u32;

/// Bytes of a record's header.
pub const HEADER_LEN: usize = 16;

/// Maximum captured bytes of a packet: libpcap's `MAXIMUM_SNAPLEN`. Readers of pcap files reject records that exceed it,
/// except for a few link types.
pub const MAX_CAPTURED: usize = 262_144;

/// A captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Capture time.
    pub time: Timestamp,
    /// Length on the wire in bytes.
    pub original: u32,
    /// The captured bytes: the packet, or its beginning.
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Splits `buf` into its first record and the rest.
    ///
    /// # Errors
    /// `buf` ends before the record does, or the captured length exceeds [`MAX_CAPTURED`].
    #[inline]
    fn split_from(buf: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let decode = |(header, rest)| Some((fields(header)?, rest));
        let Some(([secs, nanos, captured, original], rest)) = buf.split_first_chunk().and_then(decode) else {
            return Err(RecordError::Header { had: buf.len() });
        };
        if captured as usize > MAX_CAPTURED {
            return Err(RecordError::TooLong { captured });
        }
        let Some((bytes, rest)) = rest.split_at_checked(captured as usize) else {
            return Err(RecordError::Bytes { needed: captured as usize, had: rest.len() });
        };
        Ok((Self { time: Timestamp::from_parts(secs, nanos), original, bytes }, rest))
    }

    /// Appends this record to `buf`. Bytes beyond [`MAX_CAPTURED`] are cut off.
    #[inline]
    pub fn append_to(&self, buf: &mut Vec<u8>) {
        let bytes = self.bytes.get(..MAX_CAPTURED).unwrap_or(self.bytes);
        buf.extend_from_slice(&header(self.time, bytes.len() as u32, self.original));
        buf.extend_from_slice(bytes);
    }

    /// Length of header and captured bytes.
    #[inline]
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        HEADER_LEN + self.bytes.len()
    }
}

/// Decodes a record's header. Always `Some`.
#[inline]
fn fields(header: &[u8; HEADER_LEN]) -> Option<[u32; 4]> {
    Some([le_u32(header, 0)?, le_u32(header, 4)?, le_u32(header, 8)?, le_u32(header, 12)?])
}

/// Encodes a record's header.
#[inline]
#[must_use]
pub fn header(time: Timestamp, captured: u32, original: u32) -> [u8; HEADER_LEN] {
    let (secs, nanos) = time.to_parts();
    let mut header = [0; HEADER_LEN];
    header[0..4].copy_from_slice(&secs.to_le_bytes());
    header[4..8].copy_from_slice(&nanos.to_le_bytes());
    header[8..12].copy_from_slice(&captured.to_le_bytes());
    header[12..16].copy_from_slice(&original.to_le_bytes());
    header
}

/// Why bytes are not a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The header is incomplete.
    #[error("a record's header needs {HEADER_LEN} bytes, {had} are left")]
    Header {
        /// Bytes left.
        had: usize,
    },
    /// The packet is incomplete.
    #[error("a record's packet needs {needed} bytes, {had} are left")]
    Bytes {
        /// The captured length.
        needed: usize,
        /// Bytes left.
        had: usize,
    },
    /// The captured length exceeds [`MAX_CAPTURED`].
    #[error("a record claims {captured} bytes, more than {MAX_CAPTURED}")]
    TooLong {
        /// The captured length.
        captured: u32,
    },
}

/// Iterates over the records in a buffer. Ends at the first invalid one.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Starts at the beginning of `buf`.
    #[must_use]
    pub const fn new(buf: &'a [u8]) -> Self {
        Self { rest: buf }
    }

    /// The bytes not yet read. At the end of the iteration they are empty, unless there is an invalid record.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let (record, rest) = Record::split_from(self.rest).ok()?;
        self.rest = rest;
        Some(record)
    }
}

/// A summary of consecutive records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of records.
    pub packets: u32,
    /// Time of the first record; [`Timestamp::MAX`] if there is none.
    pub first: Timestamp,
    /// Latest time of all records; [`Timestamp::ZERO`] if there is none.
    pub latest: Timestamp,
    /// Whether the records are in timestamp order.
    pub ordered: bool,
}

impl Extent {
    /// The extent of no records.
    pub const EMPTY: Self =
        Self { packets: 0, first: Timestamp::MAX, latest: Timestamp::ZERO, ordered: true };

    /// Adds a record's time. The record follows those added before.
    #[inline]
    pub fn add(&mut self, time: Timestamp) {
        if self.packets == 0 {
            self.first = time;
        }
        self.packets += 1;
        self.ordered &= time >= self.latest;
        self.latest = self.latest.max(time);
    }

    /// Summarizes `buf`, which must consist of records only.
    ///
    /// # Errors
    /// `buf` has an invalid record.
    pub fn of(buf: &[u8]) -> Result<Self, RecordError> {
        let mut extent = Self::EMPTY;
        let mut rest = buf;
        while !rest.is_empty() {
            let record;
            (record, rest) = Record::split_from(rest)?;
            extent.add(record.time);
        }
        Ok(extent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(nanos: u64, bytes: &[u8]) -> Record<'_> {
        Record { time: Timestamp::from_nanos(nanos), original: bytes.len() as u32 + 4, bytes }
    }

    #[test]
    fn extent_tells_whether_records_are_in_order() {
        let mut buf = Vec::new();
        for nanos in [5, 5, 9] {
            record(nanos, b"abc").append_to(&mut buf);
        }
        let extent = Extent::of(&buf).unwrap();
        assert_eq!((extent.packets, extent.ordered), (3, true));
        record(8, b"").append_to(&mut buf);
        let extent = Extent::of(&buf).unwrap();
        assert_eq!((extent.packets, extent.ordered, extent.latest.as_nanos()), (4, false, 9));
        assert_eq!(Extent::of(&buf[..buf.len() - 1]), Err(RecordError::Header { had: 15 }));
    }

    proptest! {
        #[test]
        fn appended_records_are_read(packets in prop::collection::vec((0..u64::from(u32::MAX) * 1_000_000_000, any::<Vec<u8>>()), 0..20)) {
            let mut buf = Vec::new();
            for (nanos, bytes) in &packets {
                record(*nanos, bytes).append_to(&mut buf);
            }
            let mut records = Records::new(&buf);
            for (nanos, bytes) in &packets {
                prop_assert_eq!(records.next(), Some(record(*nanos, bytes)));
            }
            prop_assert_eq!(records.next(), None);
            prop_assert!(records.rest().is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_panic(buf in any::<Vec<u8>>()) {
            let mut records = Records::new(&buf);
            let read: usize = records.by_ref().map(|r| r.encoded_len()).sum();
            prop_assert_eq!(read + records.rest().len(), buf.len());
        }
    }
}
