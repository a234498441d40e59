//! The run: packets that leave together.

use packet::Timestamp;
use packet::record::HEADER_LEN;

use crate::SourceId;

/// Packets of one source that follow each other in the output: whole records, a slice of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a, T> {
    /// Whose they are.
    pub source: SourceId,
    /// What the batch was pushed with.
    pub tag: T,
    /// The records, as [`packet::record`] has them.
    pub bytes: &'a [u8],
    /// How many packets these are.
    pub packets: u32,
    /// How many of them come too late: they are older than one that has left before.
    pub late: u32,
}

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Bytes of it.
    pub(crate) len: usize,
    /// Records of it.
    pub(crate) packets: u32,
    /// Records of it that are older than one before them, or than `newest`.
    pub(crate) late: u32,
    /// The latest time of it and of what left before.
    pub(crate) newest: Timestamp,
    /// The time of the record behind it; `None` where the bytes end.
    pub(crate) next: Option<Timestamp>,
}

/// Measures the run at the beginning of `bytes`: its first record, and all that follow up to the first one after
/// `limit`. `newest` is the latest time of what left before.
///
/// The walk reads the time and the captured length of every record, nothing else. Bytes that are no records, which a
/// validated batch does not have, go with the run in front of them: the merge loses nothing.
#[inline]
pub(crate) fn measure(bytes: &[u8], limit: Timestamp, newest: Timestamp) -> Stretch {
    let mut stretch = Stretch { len: 0, packets: 0, late: 0, newest, next: None };
    while let Some(header) = bytes.get(stretch.len..).and_then(<[u8]>::first_chunk::<HEADER_LEN>) {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let time = Timestamp::from_parts(word(0), word(4));
        if time > limit && stretch.packets > 0 {
            stretch.next = Some(time);
            return stretch;
        }
        stretch.late += u32::from(time < stretch.newest);
        stretch.newest = stretch.newest.max(time);
        stretch.packets += 1;
        stretch.len = stretch.len.saturating_add(HEADER_LEN).saturating_add(word(8) as usize);
    }
    stretch.len = bytes.len();
    stretch
}

#[cfg(test)]
mod tests {
    use packet::Record;

    use super::*;

    /// Measures records of one byte at `times`, and expects (records, late ones, newest, next).
    fn check(times: &[u64], limit: u64, newest: u64, expected: (u32, u32, u64, Option<u64>)) {
        let mut bytes = Vec::new();
        for &nanos in times {
            let record = Record { time: Timestamp::from_nanos(nanos), original: 60, bytes: b"x" };
            record.append_to(&mut bytes);
        }
        let stretch = measure(&bytes, Timestamp::from_nanos(limit), Timestamp::from_nanos(newest));
        let found = (stretch.packets, stretch.late, stretch.newest.as_nanos());
        assert_eq!((found.0, found.1, found.2, stretch.next.map(Timestamp::as_nanos)), expected, "{times:?}");
        assert_eq!(stretch.len, stretch.packets as usize * (HEADER_LEN + 1));
    }

    #[test]
    fn a_run_ends_in_front_of_the_first_later_packet() {
        check(&[1, 2, 3], 2, 0, (2, 0, 2, Some(3)));
        check(&[1, 2, 3], 3, 0, (3, 0, 3, None));
        check(&[1, 5, 2], 4, 0, (1, 0, 1, Some(5)));
        // The first one goes, whatever the limit: who asks knows that it may.
        check(&[9, 10], 4, 0, (1, 0, 9, Some(10)));
    }

    #[test]
    fn late_is_what_is_older_than_any_before() {
        check(&[1, 2, 3], 9, 3, (3, 2, 3, None));
        check(&[4, 2, 3, 4], 9, 0, (4, 2, 4, None));
    }

    #[test]
    fn what_is_no_record_goes_with_the_run() {
        let mut bytes = vec![0; HEADER_LEN - 1];
        assert_eq!(measure(&bytes, Timestamp::MAX, Timestamp::ZERO).len, HEADER_LEN - 1);
        bytes.resize(HEADER_LEN + 2, 0xff);
        let stretch = measure(&bytes, Timestamp::MAX, Timestamp::ZERO);
        assert_eq!((stretch.len, stretch.packets, stretch.next), (HEADER_LEN + 2, 1, None));
    }
}
