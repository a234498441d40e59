//! The lane: what one source has in the merge.

use std::collections::VecDeque;
use std::time::Duration;

use packet::Timestamp;
use packet::record::Extent;

use crate::run::{Stretch, measure};
use crate::tournament::Key;
use crate::{Mono, SourceId};

/// A batch that waits, whole or what is left of it.
#[derive(Debug)]
pub(crate) struct Waiting<B, T> {
    /// Its number among all batches of the merge.
    pub(crate) number: u64,
    /// When it came.
    pub(crate) arrived: Mono,
    /// What the caller pushed it with.
    pub(crate) tag: T,
    /// The records.
    pub(crate) payload: B,
    /// How many of their bytes have left.
    pub(crate) gone: usize,
    /// How many packets have not.
    pub(crate) packets: u32,
    /// The time of the first of these.
    pub(crate) head: Timestamp,
    /// The latest time in it.
    pub(crate) latest: Timestamp,
    /// Whether its packets are in order.
    pub(crate) ordered: bool,
}

impl<B: AsRef<[u8]>, T> Waiting<B, T> {
    pub(crate) fn new(number: u64, arrived: Mono, tag: T, payload: B, extent: Extent) -> Self {
        let Extent { packets, first: head, latest, ordered } = extent;
        Self { number, arrived, tag, payload, gone: 0, packets, head, latest, ordered }
    }

    /// The records that have not left.
    pub(crate) fn rest(&self) -> &[u8] {
        self.payload.as_ref().get(self.gone..).unwrap_or_default()
    }

    /// The run at its front, up to `limit`. See [`measure`].
    #[inline]
    pub(crate) fn stretch(&self, limit: Timestamp, newest: Timestamp) -> Stretch {
        let rest = self.rest();
        if self.latest <= limit && self.ordered && self.head >= newest {
            // All of it goes, and nothing of it is late: no need to look.
            return Stretch {
                len: rest.len(),
                packets: self.packets,
                late: 0,
                newest: self.latest,
                next: None,
            };
        }
        let stretch = measure(rest, limit, newest);
        // At the end the packets are those that the batch said it has, so that the sums agree for any bytes.
        let packets = if stretch.next.is_none() { self.packets } else { stretch.packets.min(self.packets) };
        Stretch { packets, late: stretch.late.min(packets), ..stretch }
    }
}

/// One source.
#[derive(Debug)]
pub(crate) struct Lane<B, T> {
    pub(crate) source: SourceId,
    /// Batches with packets, in the order in which they came.
    pub(crate) queue: VecDeque<Waiting<B, T>>,
    /// What the last batch promised.
    pub(crate) watermark: Timestamp,
    /// When the last batch came.
    pub(crate) heard: Mono,
    /// No more is expected.
    pub(crate) ended: bool,
    /// Nor will there be: the slot is free once the queue is empty.
    pub(crate) removed: bool,
}

impl<B, T> Lane<B, T> {
    pub(crate) fn new(source: SourceId) -> Self {
        Self {
            source,
            queue: VecDeque::new(),
            watermark: Timestamp::ZERO,
            heard: Mono::ZERO,
            ended: true,
            removed: false,
        }
    }

    /// Whether others have to wait for it.
    pub(crate) fn is_live(&self, now: Mono, silence: Duration) -> bool {
        !self.ended && now.since(self.heard) < silence
    }

    /// How far it should have come: as far as it said, and on from there, for its clock has not stood still since.
    pub(crate) fn reach(&self, now: Mono) -> Timestamp {
        self.watermark + now.since(self.heard)
    }

    /// What it competes with: its first packet; without one its watermark, for nothing older is to come.
    pub(crate) fn key(&self, slot: u32) -> Key {
        if let Some(first) = self.queue.front() {
            Key::packet(first.head, slot)
        } else if self.ended {
            Key::NEVER
        } else {
            Key::barrier(self.watermark, slot)
        }
    }
}
