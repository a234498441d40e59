//! The queue of one source: its batches that have not been handed out yet.

use std::collections::VecDeque;
use std::time::Duration;

use packet::record::{Extent, HEADER_LEN};
use packet::{SourceId, Timestamp};

use crate::winner_tree::Key;
use crate::{MonotonicTime, SenderId};

/// A queue with room for at most this many batches keeps its memory while it is empty.
const KEPT_CAPACITY: usize = 64;

/// One source and its queued batches.
#[derive(Debug)]
pub(crate) struct SourceQueue<B, T> {
    pub(crate) source: SourceId,
    /// Who sent its last batch.
    pub(crate) sender: SenderId,
    /// Batches with packets, in order of arrival.
    pub(crate) batches: VecDeque<QueuedBatch<B, T>>,
    /// The watermark of the last batch.
    pub(crate) watermark: Timestamp,
    /// When the source last sent packets or advanced its watermark.
    pub(crate) last_active: MonotonicTime,
    /// Whether the source has ended. A new source counts as ended until its first batch arrives.
    pub(crate) ended: bool,
    /// Whether it has sent packets since it began.
    pub(crate) sent_packets: bool,
    /// The memory of the queued batches.
    pub(crate) bytes: usize,
}

impl<B: AsRef<[u8]>, T> SourceQueue<B, T> {
    pub(crate) fn new(source: SourceId, sender: SenderId) -> Self {
        Self {
            source,
            sender,
            batches: VecDeque::new(),
            watermark: Timestamp::ZERO,
            last_active: MonotonicTime::ZERO,
            ended: true,
            sent_packets: false,
            bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, batch: QueuedBatch<B, T>) {
        self.bytes += batch.memory;
        self.batches.push_back(batch);
    }

    /// Removes the first batch.
    pub(crate) fn pop(&mut self) -> Option<QueuedBatch<B, T>> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.memory;
        // After a burst of small batches the queue itself would keep the memory that it needed for them.
        let capacity = self.batches.capacity();
        if capacity > KEPT_CAPACITY && self.batches.len() < capacity / 4 {
            self.batches.shrink_to(capacity / 2);
        }
        Some(batch)
    }

    /// Whether other sources have to wait for this one.
    pub(crate) fn is_live(&self, now: MonotonicTime, silence: Duration) -> bool {
        !self.ended && now.since(self.last_active) < silence
    }

    /// Where the source's clock should be now: its watermark plus the time since.
    pub(crate) fn expected_time(&self, now: MonotonicTime) -> Timestamp {
        self.watermark + now.since(self.last_active)
    }

    /// The key this source competes with: its first packet, or its watermark if it has none.
    pub(crate) fn key(&self, slot: u32) -> Key {
        if let Some(first) = self.batches.front() {
            Key::packet(first.head, slot)
        } else if self.ended {
            Key::NEVER
        } else {
            Key::barrier(self.watermark, slot)
        }
    }
}

/// A batch in the queue, or what is left of it.
#[derive(Debug)]
pub(crate) struct QueuedBatch<B, T> {
    /// Sequence number among all batches of the merge.
    pub(crate) number: u64,
    /// Since when it counts as waiting: its arrival, or later if its packets are ahead of the collector's clock.
    pub(crate) waits_from: MonotonicTime,
    /// How far the horizon may move for this batch.
    pub(crate) trusted: Timestamp,
    /// The memory that it takes until its last packet leaves, in bytes.
    pub(crate) memory: usize,
    pub(crate) tag: T,
    pub(crate) payload: B,
    /// Bytes of the payload that have been handed out.
    pub(crate) consumed: usize,
    /// Packets that have not been handed out.
    pub(crate) packets: u32,
    /// The time of the first of these.
    pub(crate) head: Timestamp,
    /// The latest time in the batch.
    pub(crate) latest: Timestamp,
    /// Whether the packets are in time order.
    pub(crate) ordered: bool,
}

impl<B: AsRef<[u8]>, T> QueuedBatch<B, T> {
    pub(crate) fn new(number: u64, tag: T, payload: B, extent: Extent) -> Self {
        let Extent { packets, first: head, latest, ordered } = extent;
        let (waits_from, trusted, memory) = (MonotonicTime::ZERO, latest, 0);
        Self {
            number,
            waits_from,
            trusted,
            memory,
            tag,
            payload,
            consumed: 0,
            packets,
            head,
            latest,
            ordered,
        }
    }

    /// The run that consists of the rest of the batch, and leaves before its time: all its packets count as late, and
    /// those that leave after it do not count as late because of it.
    pub(crate) fn measure_rest(&self, newest: Timestamp) -> RunExtent {
        let len = self.payload.as_ref().len().saturating_sub(self.consumed);
        RunExtent { len, packets: self.packets, late: self.packets, newest, next: None }
    }

    /// Measures the run at the front of the batch that ends at `limit`. See [`measure`].
    #[inline]
    pub(crate) fn measure_run(&self, limit: Timestamp, newest: Timestamp) -> RunExtent {
        let rest = self.payload.as_ref().get(self.consumed..).unwrap_or_default();
        if self.latest <= limit && self.ordered && self.head >= newest {
            // The whole batch goes out and nothing in it is late, so there is no need to read the records.
            return RunExtent {
                len: rest.len(),
                packets: self.packets,
                late: 0,
                newest: self.latest,
                next: None,
            };
        }
        let run = measure(rest, limit, newest);
        // The last run gets the remaining packet count of the batch, so that the sums agree even for malformed bytes.
        let packets = if run.next.is_none() { self.packets } else { run.packets.min(self.packets) };
        RunExtent { packets, late: run.late.min(packets), ..run }
    }
}

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunExtent {
    /// Length in bytes.
    pub(crate) len: usize,
    pub(crate) packets: u32,
    /// Packets that are out of order.
    pub(crate) late: u32,
    /// The latest time of this run and everything handed out in order before it.
    pub(crate) newest: Timestamp,
    /// The time of the packet after the run; `None` at the end of the batch.
    pub(crate) next: Option<Timestamp>,
}

/// Measures the run at the start of `bytes`: the first record, and all that follow up to the first one after `limit`.
/// `newest` is the latest time handed out before.
///
/// Only the time and the captured length of each record are read. Bytes that are not records, which a validated batch
/// does not have, belong to the run before them, so that no byte is dropped.
#[inline]
fn measure(bytes: &[u8], limit: Timestamp, newest: Timestamp) -> RunExtent {
    let mut run = RunExtent { len: 0, packets: 0, late: 0, newest, next: None };
    while let Some(header) = bytes.get(run.len..).and_then(<[u8]>::first_chunk::<HEADER_LEN>) {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let time = Timestamp::from_parts(word(0), word(4));
        if time > limit && run.packets > 0 {
            run.next = Some(time);
            return run;
        }
        run.late += u32::from(time < run.newest);
        run.newest = run.newest.max(time);
        run.packets += 1;
        run.len = run.len.saturating_add(HEADER_LEN).saturating_add(word(8) as usize);
    }
    run.len = bytes.len();
    run
}

#[cfg(test)]
mod tests {
    use packet::Record;

    use super::*;

    /// Measures one-byte records at `times` and expects (packets, late, newest, next).
    fn check(times: &[u64], limit: u64, newest: u64, expected: (u32, u32, u64, Option<u64>)) {
        let mut bytes = Vec::new();
        for &nanos in times {
            let record = Record { time: Timestamp::from_nanos(nanos), original: 60, bytes: b"x" };
            record.append_to(&mut bytes);
        }
        let run = measure(&bytes, Timestamp::from_nanos(limit), Timestamp::from_nanos(newest));
        let found = (run.packets, run.late, run.newest.as_nanos(), run.next.map(Timestamp::as_nanos));
        assert_eq!(found, expected, "{times:?}");
        assert_eq!(run.len, run.packets as usize * (HEADER_LEN + 1));
    }

    #[test]
    fn run_ends_before_the_first_packet_after_the_limit() {
        check(&[1, 2, 3], 2, 0, (2, 0, 2, Some(3)));
        check(&[1, 2, 3], 3, 0, (3, 0, 3, None));
        check(&[1, 5, 2], 4, 0, (1, 0, 1, Some(5)));
        // The first packet is part of the run whatever the limit is.
        check(&[9, 10], 4, 0, (1, 0, 9, Some(10)));
    }

    #[test]
    fn packet_is_late_if_any_before_it_is_newer() {
        check(&[1, 2, 3], 9, 3, (3, 2, 3, None));
        check(&[4, 2, 3, 4], 9, 0, (4, 2, 4, None));
    }

    #[test]
    fn malformed_bytes_belong_to_the_run_before_them() {
        let mut bytes = vec![0; HEADER_LEN - 1];
        assert_eq!(measure(&bytes, Timestamp::MAX, Timestamp::ZERO).len, HEADER_LEN - 1);
        bytes.resize(HEADER_LEN + 2, 0xff);
        let run = measure(&bytes, Timestamp::MAX, Timestamp::ZERO);
        assert_eq!((run.len, run.packets, run.next), (HEADER_LEN + 2, 1, None));
    }
}
