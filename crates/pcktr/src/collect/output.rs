//! Where a collector's packets leave, and what became of each.

use ledger::{DiscardReason, WriteOutcome};
use merge::PacketRun;
use packet::{Records, SourceId};
use sink::{CaptureWriter, InterfaceId, StreamError};

/// Where packets leave, and what became of them.
pub(super) struct Output {
    pub(super) writer: CaptureWriter<std::fs::File>,
    /// Packets that may still be written.
    left: u64,
    pub(super) fates: Fates,
    /// Why nothing can be written any more.
    pub(super) failed: Option<StreamError>,
    /// Nothing is written any more, only counted.
    pub(super) closed: bool,
}

/// What became of the packets of one source.
#[derive(Clone, Copy, Default)]
pub(super) struct Fate {
    touched: bool,
    pub(super) outcome: WriteOutcome,
}

impl Output {
    pub(super) fn new(writer: CaptureWriter<std::fs::File>, max_packets: Option<u64>) -> Self {
        let left = max_packets.unwrap_or(u64::MAX);
        Self { writer, left, fates: Fates::default(), failed: None, closed: false }
    }

    /// Whether all that was asked for has been written.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Writes a run, or counts why not.
    pub(super) fn write(&mut self, run: &PacketRun<'_, Option<InterfaceId>>) {
        let outcome = &mut self.fates.of(run.source).outcome;
        outcome.late += u64::from(run.late);
        let packets = u64::from(run.packets);
        if self.closed || self.failed.is_some() {
            let reason = if self.left == 0 { DiscardReason::MaxPackets } else { DiscardReason::OutputClosed };
            outcome.discard(reason, packets);
            return;
        }
        let Some(interface) = run.tag else {
            outcome.discard(DiscardReason::LinkType, packets);
            return;
        };
        let (bytes, written) = if packets <= self.left {
            (run.bytes, packets)
        } else {
            (first(run.bytes, self.left), self.left)
        };
        match self.writer.write(interface, bytes) {
            Ok(()) => {
                self.left -= if self.left == u64::MAX { 0 } else { written };
                outcome.written += written;
                outcome.discard(DiscardReason::MaxPackets, packets - written);
            }
            Err(error) => {
                outcome.discard(DiscardReason::OutputClosed, packets);
                self.failed = Some(error);
            }
        }
    }
}

/// What became of the packets of each source since that was booked.
#[derive(Default)]
pub(super) struct Fates {
    /// By the source's number.
    all: Vec<Fate>,
    /// The numbers of those that are not zero.
    touched: Vec<u32>,
}

impl Fates {
    fn of(&mut self, source: SourceId) -> &mut Fate {
        let at = source.0 as usize;
        if at >= self.all.len() {
            self.all.resize(at + 1, Fate::default());
        }
        let fate = &mut self.all[at];
        if !std::mem::replace(&mut fate.touched, true) {
            self.touched.push(source.0);
        }
        fate
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = (SourceId, Fate)> {
        let all = &mut self.all;
        self.touched.drain(..).map(|source| (SourceId(source), std::mem::take(&mut all[source as usize])))
    }
}

/// The first `packets` records of `bytes`.
fn first(bytes: &[u8], packets: u64) -> &[u8] {
    let len = Records::new(bytes).take(packets as usize).map(|record| record.encoded_len()).sum();
    bytes.get(..len).unwrap_or(bytes)
}
