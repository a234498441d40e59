//! The core of a collector: messages in, a merged capture out. Without sockets and clocks: time is an argument.

use std::io::Write;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use batch::{DecodeError, DecodedBatch};
use ledger::{DiscardReason, Receipt, SourceStats, WriteOutcome};
use merge::{Arrival, Merge, MonotonicTime};
use observe::ObservedBatch;
use packet::{Origin, Records, SourceId, Timestamp};
use sink::{CaptureWriter, InterfaceCounts, InterfaceId, StreamError};
use tracing::{debug, error, info, warn};

use super::Shared;
use super::clock::Now;
use super::interfaces::{Interfaces, KnownInterface, RegisterError};
use super::log_limiter::LogLimiter;
use super::outcomes::{Outcomes, Run};

/// Bytes of batches to receive while the merge waits for further sources to appear. More would be merged out of order
/// when memory is short.
const MAX_GATHERED: usize = 64 << 20;

/// A collector. `M` holds a message, `W` is the output.
pub(super) struct Collector<M, W> {
    interfaces: Interfaces,
    merge: Merge<DecodedBatch<M>, Option<InterfaceId>>,
    writer: CaptureWriter<W>,
    outcomes: Outcomes,
    shared: Arc<Shared>,
    loss_log: LogLimiter,
}

/// Why a message was not handled.
#[derive(Debug)]
pub(super) enum HandleError<M> {
    /// It is not a valid batch.
    Invalid(M, DecodeError),
    /// The output cannot be written. The message's packets are counted as discarded.
    Output(StreamError),
}

impl<M: AsRef<[u8]>, W: Write> Collector<M, W> {
    pub(super) fn new(
        merge: merge::MergeConfig,
        writer: CaptureWriter<W>,
        max_packets: Option<NonZeroU64>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            interfaces: Interfaces::default(),
            merge: Merge::new(merge),
            writer,
            outcomes: Outcomes::new(max_packets),
            shared,
            loss_log: LogLimiter::default(),
        }
    }

    /// Decodes a message, records it in the ledger, observes its packets and adds them to the merge.
    pub(super) fn handle_message(&mut self, message: M, now: Now) -> Result<(), HandleError<M>> {
        let batch =
            DecodedBatch::decode(message).map_err(|(message, error)| HandleError::Invalid(message, error))?;
        let (interface, new_source) = match self.interfaces.find(&batch) {
            Some(known) => (known, false),
            None => match self.interfaces.register(&batch, &self.shared, &mut self.writer) {
                Ok(registered) => registered,
                Err(RegisterError::Fields(error)) => {
                    return Err(HandleError::Invalid(batch.into_message(), error));
                }
                Err(RegisterError::Output(source, error)) => {
                    self.record_unwritable(source, &batch, now);
                    return Err(HandleError::Output(error));
                }
            },
        };
        let receipt = self.record(interface.source, &batch, now);
        self.log(&interface.origin, new_source, &receipt, now.merge);
        if !receipt.duplicate {
            self.accept(batch, &interface, now);
        }
        Ok(())
    }

    fn record(&self, source: SourceId, batch: &DecodedBatch<M>, now: Now) -> Receipt {
        let bytes = batch.message().as_ref().len() as u64;
        self.shared.ledger.lock().record(source, batch.header(), bytes, now.wall)
    }

    /// Records a batch whose interface could not be added to the output.
    fn record_unwritable(&self, source: SourceId, batch: &DecodedBatch<M>, now: Now) {
        if !self.record(source, batch, now).duplicate {
            let mut outcome = WriteOutcome::default();
            outcome.discard(DiscardReason::OutputClosed, batch.header().packets.into());
            self.shared.ledger.lock().record_output(source, &outcome);
        }
    }

    fn log(&mut self, origin: &Origin, new_source: bool, receipt: &Receipt, now: MonotonicTime) {
        if new_source {
            info!(%origin, "new source");
        } else if receipt.new_epoch {
            info!(%origin, "source restarted");
        }
        if receipt.shared_name {
            warn!(%origin, "two captures share this SOURCE_NAME: give each a unique one");
        }
        if let Some(packets) = self.loss_log.add(receipt.missing.packets, now) {
            error!(%origin, packets, "packets lost or overdue in transit");
        }
    }

    /// Hands a batch that is not a duplicate to the observers and the merge.
    fn accept(&mut self, batch: DecodedBatch<M>, interface: &KnownInterface, now: Now) {
        let header = *batch.header();
        self.shared.observers.observe(&ObservedBatch {
            origin: interface.observed,
            link_type: header.link_type,
            packets: header.packets,
            records: batch.records(),
            watermark: header.watermark,
        });
        let arrival = Arrival {
            source: interface.source,
            tag: interface.output,
            extent: batch.extent(),
            watermark: header.watermark,
            payload: batch,
        };
        self.merge.push(arrival, now.merge);
        if header.ends {
            debug!(origin = %interface.origin, "source ended");
            self.merge.end(interface.source);
        }
    }

    /// Writes all packets that are due.
    pub(super) fn write_ready(&mut self, now: MonotonicTime) -> Result<(), StreamError> {
        let written = self.write_runs(now);
        self.record_outcomes();
        written
    }

    /// Writes the runs that are due, and counts what becomes of their packets; also if writing fails.
    fn write_runs(&mut self, now: MonotonicTime) -> Result<(), StreamError> {
        let Self { merge, writer, outcomes, .. } = self;
        while let Some(run) = merge.next_run(now) {
            let Some(interface) = run.tag else {
                outcomes.discarded(&run, DiscardReason::LinkType);
                continue;
            };
            let packets = outcomes.admitted(&run);
            if let Err(error) = writer.write(interface, first_records(&run, packets)) {
                outcomes.discarded(&run, DiscardReason::OutputClosed);
                return Err(error);
            }
            outcomes.written(&run, packets);
        }
        Ok(())
    }

    /// Records what became of the packets that left the merge.
    fn record_outcomes(&mut self) {
        let mut ledger = self.shared.ledger.lock();
        for (source, outcome) in self.outcomes.take() {
            ledger.record_output(source, &outcome);
        }
        drop(ledger);
        self.shared.merge_packets.store(self.merge.packets(), Ordering::Relaxed);
        self.shared.merge_bytes.store(self.merge.bytes() as u64, Ordering::Relaxed);
    }

    /// Writes what the output has buffered.
    pub(super) fn flush(&mut self) -> Result<(), StreamError> {
        self.writer.flush()
    }

    /// When [`write_ready`](Self::write_ready) may have packets to write if no message arrives before.
    pub(super) fn next_deadline(&self) -> Option<MonotonicTime> {
        self.merge.next_deadline()
    }

    /// Whether `MAX_PACKETS` packets are written.
    pub(super) fn is_full(&self) -> bool {
        self.outcomes.is_full()
    }

    /// Whether receiving should pause, because the merge still waits for further sources and holds enough.
    pub(super) fn should_pause(&self, now: MonotonicTime) -> bool {
        self.merge.bytes() >= MAX_GATHERED && self.merge.is_gathering(now)
    }

    /// Whether all sources have ended and all their packets are written.
    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        if self.merge.packets() > 0 {
            return false;
        }
        let mut ledger = self.shared.ledger.lock();
        ledger.settle(now);
        ledger.all_ended()
    }

    /// Writes all packets in the merge. No message may follow.
    pub(super) fn write_all(&mut self, now: MonotonicTime) -> Result<(), StreamError> {
        self.merge.finish();
        self.write_ready(now)
    }

    /// Completes the accounts: packets still in the merge count as discarded, overdue ones as lost.
    pub(super) fn settle(&mut self, now: MonotonicTime) {
        self.merge.finish();
        let reason = if self.is_full() { DiscardReason::MaxPackets } else { DiscardReason::OutputClosed };
        while let Some(run) = self.merge.next_run(now) {
            self.outcomes.discarded(&run, reason);
        }
        self.record_outcomes();
        self.shared.ledger.lock().settle(Timestamp::MAX);
    }

    /// Ends the output, with the counts of each interface at the time `now`.
    pub(super) fn finish(self, now: Timestamp) -> Result<(), StreamError> {
        let counts: Vec<_> = {
            let ledger = self.shared.ledger.lock();
            let in_output = self.interfaces.in_output();
            in_output.filter_map(|(id, source)| Some((id, counts(&ledger.stats(source)?, now)))).collect()
        };
        self.writer.finish(counts)
    }
}

/// The bytes of the first `packets` records of a run.
fn first_records<'a>(run: &Run<'a>, packets: u64) -> &'a [u8] {
    if packets >= u64::from(run.packets) {
        return run.bytes;
    }
    let packets = usize::try_from(packets).unwrap_or(usize::MAX);
    let len = Records::new(run.bytes).take(packets).map(|record| record.encoded_len()).sum();
    run.bytes.get(..len).unwrap_or(run.bytes)
}

/// The contents of an interface statistics block.
fn counts(stats: &SourceStats, at: Timestamp) -> InterfaceCounts {
    let dropped = stats.dropped;
    InterfaceCounts {
        at,
        received: stats.captured.saturating_add(dropped.kernel),
        dropped_interface: dropped.interface,
        dropped_system: dropped.kernel.saturating_add(dropped.relay).saturating_add(stats.lost.packets),
        delivered: stats.written,
    }
}

#[cfg(test)]
pub(super) mod tests;
