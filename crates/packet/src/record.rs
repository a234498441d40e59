//! The record: a packet as it lies in a batch and in a nanosecond pcap file.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4 | seconds since the Unix epoch |
//! | 4 | 4 | nanoseconds of that second |
//! | 8 | 4 | captured length: how many bytes follow |
//! | 12 | 4 | original length: how many there were on the wire |
//! | 16 | captured length | the packet |
//!
//! All numbers are little-endian: the layout of a pcap file whose magic is `0xa1b23c4d` as a little-endian machine
//! writes it (draft-ietf-opsawg-pcap, section 5). A record is not aligned.

use crate::Timestamp;

/// Bytes of a record in front of its packet.
pub const HEADER_LEN: usize = 16;

/// The most bytes of one packet that a record may hold: libpcap's `MAXIMUM_SNAPLEN` for all but a few link types, and
/// what readers of pcap files refuse to go beyond.
pub const MAX_CAPTURED: usize = 262_144;

/// A captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was captured.
    pub time: Timestamp,
    /// How long it was on the wire, in bytes.
    pub original: u32,
    /// What was kept of it.
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record of `buf`, and what comes behind it.
    ///
    /// # Errors
    /// `buf` ends before the record does, or the record claims more than [`MAX_CAPTURED`] bytes.
    #[inline]
    pub fn split_from(buf: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let Some((header, rest)) = buf.split_first_chunk::<HEADER_LEN>() else {
            return Err(RecordError::Header { had: buf.len() });
        };
        let [secs, nanos, captured, original] = fields(header);
        if captured as usize > MAX_CAPTURED {
            return Err(RecordError::TooLong { captured });
        }
        let Some((bytes, rest)) = rest.split_at_checked(captured as usize) else {
            return Err(RecordError::Bytes { needed: captured as usize, had: rest.len() });
        };
        Ok((Self { time: Timestamp::from_parts(secs, nanos), original, bytes }, rest))
    }

    /// Appends this record to `buf`.
    ///
    /// # Panics
    /// Never for packets up to [`MAX_CAPTURED`]; what is longer is cut there.
    #[inline]
    pub fn append_to(&self, buf: &mut Vec<u8>) {
        let bytes = self.bytes.get(..MAX_CAPTURED).unwrap_or(self.bytes);
        buf.extend_from_slice(&header(self.time, bytes.len() as u32, self.original));
        buf.extend_from_slice(bytes);
    }

    /// Bytes that this record takes in a batch.
    #[inline]
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        HEADER_LEN + self.bytes.len()
    }
}

/// The four numbers of a record header.
#[inline]
fn fields(header: &[u8; HEADER_LEN]) -> [u32; 4] {
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// A record header.
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

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than a header has.
    #[error("a record's header needs {HEADER_LEN} bytes, {had} are left")]
    Header {
        /// Bytes that were left.
        had: usize,
    },
    /// Fewer bytes than the header says.
    #[error("a record's packet needs {needed} bytes, {had} are left")]
    Bytes {
        /// The captured length.
        needed: usize,
        /// Bytes that were left.
        had: usize,
    },
    /// A captured length that no capture has.
    #[error("a record claims {captured} bytes, more than {MAX_CAPTURED}")]
    TooLong {
        /// The captured length.
        captured: u32,
    },
}

/// The records of a buffer, one after the other. Ends at the first bytes that are no record.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Over all of `buf`.
    #[must_use]
    pub const fn new(buf: &'a [u8]) -> Self {
        Self { rest: buf }
    }

    /// What has not been read yet. Not empty at the end of the iteration where `buf` held something else than records.
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

/// What a walk over a buffer of records finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many records there are.
    pub packets: u32,
    /// The time of the first record; of nothing, [`Timestamp::MAX`].
    pub first: Timestamp,
    /// The latest time of all; of nothing, [`Timestamp::ZERO`].
    pub latest: Timestamp,
    /// Whether no record is older than the one before it.
    pub ordered: bool,
}

impl Extent {
    /// Of no record at all.
    pub const EMPTY: Self =
        Self { packets: 0, first: Timestamp::MAX, latest: Timestamp::ZERO, ordered: true };

    /// Takes note of a further record at the end.
    #[inline]
    pub fn add(&mut self, time: Timestamp) {
        if self.packets == 0 {
            self.first = time;
        }
        self.packets += 1;
        self.ordered &= time >= self.latest;
        self.latest = self.latest.max(time);
    }

    /// Walks over `buf`, which must be records from its first byte to its last.
    ///
    /// # Errors
    /// The first thing in `buf` that is no record.
    pub fn of(buf: &[u8]) -> Result<Self, RecordError> {
        let mut extent = Self::EMPTY;
        let mut rest = buf;
        while !rest.is_empty() {
            let (record, behind) = Record::split_from(rest)?;
            extent.add(record.time);
            rest = behind;
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
    fn an_extent_knows_order() {
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
        fn what_is_appended_is_read(packets in prop::collection::vec((0..u64::from(u32::MAX) * 1_000_000_000, any::<Vec<u8>>()), 0..20)) {
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
        fn any_bytes_are_safe(buf in any::<Vec<u8>>()) {
            let mut records = Records::new(&buf);
            let read: usize = records.by_ref().map(|r| r.encoded_len()).sum();
            prop_assert_eq!(read + records.rest().len(), buf.len());
        }
    }
}
