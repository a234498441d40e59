//! The core of a collector: messages in, a merged capture out. Without sockets and clocks: time is an argument.

use std::collections::HashMap;
use std::io::Write;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use batch::{BatchRecords, DecodedBatch, Interface};
use ledger::{DiscardReason, Receipt, Refusal, SourceStats, WriteOutcome};
use merge::{Arrival, Merge, MonotonicTime};
use observe::ObservedBatch;
use packet::{Origin, Records, SourceId, Timestamp};
use relay::Peer;
use sink::{CaptureWriter, InterfaceCounts, InterfaceId, StreamError};
use tracing::{debug, error, info, warn};

use super::Shared;
use super::clock::Now;
use super::interfaces::{Interfaces, KnownInterface, MAX_LINK_TYPES, RegisterError};
use super::log_limiter::LogLimiter;
use super::outcomes::{Outcomes, Run};
use super::peer::{Received, SenderIds};
use super::rejections::Rejection;
use super::sources::Sources;

/// Bytes of batches to receive while the merge waits for further sources to appear. More would be merged out of order
/// when memory is short.
const MAX_GATHERED: usize = 64 << 20;

/// How many lines about new and restarted sources are logged for each address and [`LOG_INTERVAL`].
const SOURCE_LINES: u32 = 50;

/// The same for lines about lost packets. Each source has one at most.
const LOSS_LINES: u32 = 5;

/// The interval of log lines about sources.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A collector. `M` holds a message, `W` is the output.
pub(super) struct Collector<M, W> {
    interfaces: Interfaces,
    sources: Sources,
    senders: SenderIds,
    merge: Merge<BatchRecords<M>, Option<InterfaceId>>,
    writer: CaptureWriter<W>,
    outcomes: Outcomes,
    shared: Arc<Shared>,
    source_log: LogLimiter<Peer>,
    loss_log: LogLimiter<SourceId>,
    /// Of all sources that a peer sends.
    peer_loss_log: LogLimiter<Peer>,
}

/// Why a message was not handled.
#[derive(Debug)]
pub(super) enum HandleError<M> {
    /// It is not accepted.
    Rejected(M, Rejection),
    /// The output cannot be written. The message's packets are counted as discarded.
    Output(StreamError),
}

impl<M: Received, W: Write> Collector<M, W> {
    pub(super) fn new(
        merge: merge::MergeConfig,
        writer: CaptureWriter<W>,
        max_packets: Option<NonZeroU64>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            interfaces: Interfaces::default(),
            sources: Sources::new(shared.max_sources),
            senders: SenderIds::default(),
            merge: Merge::new(merge),
            writer,
            outcomes: Outcomes::new(max_packets),
            shared,
            source_log: LogLimiter::new(SOURCE_LINES, LOG_INTERVAL),
            loss_log: LogLimiter::new(1, LOG_INTERVAL),
            peer_loss_log: LogLimiter::new(LOSS_LINES, LOG_INTERVAL),
        }
    }

    /// Decodes a message from `peer`, records it in the ledger, observes its packets and adds them to the merge.
    pub(super) fn handle_message(&mut self, message: M, peer: Peer, now: Now) -> Result<(), HandleError<M>> {
        let batch = DecodedBatch::decode(message)
            .map_err(|(message, error)| HandleError::Rejected(message, error.into()))?;
        let (interface, new_source) = match self.interfaces.find(&batch) {
            Some(known) => (known, false),
            None => match self.register(&batch, peer, now) {
                Ok(registered) => registered,
                Err(RegisterError::Rejected(rejection)) => {
                    return Err(HandleError::Rejected(batch.into_message(), rejection));
                }
                Err(RegisterError::Output(source, error)) => {
                    self.record_unwritable(source, &batch, now);
                    return Err(HandleError::Output(error));
                }
            },
        };
        if let Err(rejection) = authorize(&batch, &interface.origin) {
            return Err(HandleError::Rejected(batch.into_message(), rejection));
        }
        let receipt = match self.record(interface.source, &batch, now) {
            Ok(receipt) => receipt,
            Err(refusal) => return Err(HandleError::Rejected(batch.into_message(), refusal.into())),
        };
        batch.message().set_valid();
        self.log(&interface, (peer, new_source), &receipt, now.merge);
        if !receipt.duplicate {
            self.sources.note(interface.source, batch.header().packets > 0, receipt.ended, now.merge);
            self.accept(batch, &interface, peer, now);
            if receipt.ended {
                debug!(origin = %interface.origin, "source ended");
                self.merge.end(interface.source);
            }
        }
        Ok(())
    }

    /// Registers the interface of a batch, and its source if it is new. Returns it, and whether its source is new.
    fn register(
        &mut self,
        batch: &DecodedBatch<M>,
        peer: Peer,
        now: Now,
    ) -> Result<(KnownInterface, bool), RegisterError> {
        let header = batch.header();
        let interface =
            Interface::decode(batch.fields(), header.link_type, header.snaplen).map_err(Rejection::from)?;
        authorize(batch, &interface.origin)?;
        let (source, new_source) = self.source(&interface.origin, peer, now)?;
        if new_source {
            // Its credit has been taken.
        } else if !self.interfaces.has_link_type(source, header.link_type) {
            if self.interfaces.link_types(source) >= MAX_LINK_TYPES {
                return Err(Rejection::LinkTypes.into());
            }
            self.sources.take_credit(peer, false, now.merge)?;
        } else if let Err(observed) = self.sources.take_description(source, now.merge) {
            // It changes too often: its packets count, its new interface names do not.
            let output = self.interfaces.output(source, header.link_type);
            return Ok((KnownInterface { source, origin: interface.origin, observed, output }, false));
        }
        let known = self
            .interfaces
            .register(batch, (source, interface), &self.shared, &mut self.writer)
            .map_err(|error| RegisterError::Output(source, error))?;
        if new_source {
            self.sources.add(source, peer, known.observed, now.merge);
        }
        Ok((known, new_source))
    }

    /// The source of an origin, and whether it is new.
    fn source(&mut self, origin: &Origin, peer: Peer, now: Now) -> Result<(SourceId, bool), Rejection> {
        if let Some(known) = self.shared.ledger.lock().find(origin) {
            return Ok((known, false));
        }
        // A peer that may announce nothing costs the others nothing.
        self.sources.take_credit(peer, true, now.merge)?;
        if self.shared.ledger.lock().is_full() {
            let dispensable = self.sources.dispensable(now.merge);
            self.forget(dispensable, now.wall);
        }
        self.shared.ledger.lock().register(origin).map_err(|ledger::LedgerFull| {
            self.sources.return_credit(peer);
            Rejection::MaxSources
        })
    }

    /// Forgets sources, but those of which packets are in the merge. An output error is left for the next packet to meet.
    fn forget(&mut self, mut sources: Vec<SourceId>, now: Timestamp) {
        let mut stats = HashMap::new();
        {
            let mut ledger = self.shared.ledger.lock();
            sources.retain(|source| {
                let Some(of_source) = ledger.stats(*source) else { return false };
                let is_unused = of_source.buffered() == 0 && self.merge.forget(*source);
                if is_unused {
                    stats.insert(*source, of_source);
                    ledger.forget(*source);
                }
                is_unused
            });
        }
        if sources.is_empty() {
            return;
        }
        for (interface, source) in self.interfaces.forget(&sources.iter().copied().collect()) {
            if let Some(stats) = stats.get(&source) {
                let _ = self.writer.write_counts(interface, &counts(stats, now));
            }
        }
        for source in sources {
            if let Some(observed) = self.sources.remove(source) {
                self.shared.observers.forget(observed);
            }
        }
    }

    fn record(&self, source: SourceId, batch: &DecodedBatch<M>, now: Now) -> Result<Receipt, Refusal> {
        let bytes = batch.message().as_ref().len() as u64;
        self.shared.ledger.lock().record(source, batch.header(), bytes, now.wall)
    }

    /// Records a batch whose interface could not be added to the output.
    fn record_unwritable(&self, source: SourceId, batch: &DecodedBatch<M>, now: Now) {
        if self.record(source, batch, now).is_ok_and(|receipt| !receipt.duplicate) {
            let mut outcome = WriteOutcome::default();
            outcome.discard(DiscardReason::OutputClosed, batch.header().packets.into());
            self.shared.ledger.lock().record_output(source, &outcome);
        }
    }

    fn log(
        &mut self,
        interface: &KnownInterface,
        (peer, new_source): (Peer, bool),
        receipt: &Receipt,
        now: MonotonicTime,
    ) {
        let origin = &interface.origin;
        if new_source || receipt.new_epoch || receipt.shared_name {
            if self.source_log.add(peer, 1, now).is_none() {
                debug!(%origin, new_source, shared_name = receipt.shared_name, "source line suppressed");
            } else if receipt.shared_name {
                warn!(%origin, "two captures share this SOURCE_NAME: give each a unique one");
            } else if new_source {
                info!(%origin, "new source");
            } else {
                info!(%origin, "source restarted");
            }
        }
        if let Some(packets) = self.loss_log.add(interface.source, receipt.missing.packets, now) {
            if self.peer_loss_log.add(peer, 1, now).is_some() {
                error!(%origin, packets, "packets lost or overdue in transit");
            } else {
                debug!(%origin, packets, "packets lost or overdue in transit; line suppressed");
            }
        }
    }

    /// Hands a batch that is not a duplicate to the observers and the merge.
    fn accept(&mut self, batch: DecodedBatch<M>, interface: &KnownInterface, peer: Peer, now: Now) {
        let header = *batch.header();
        self.shared.observers.observe(&ObservedBatch {
            origin: interface.observed,
            link_type: header.link_type,
            packets: header.packets,
            records: batch.records(),
            watermark: header.watermark,
        });
        let extent = batch.extent();
        let payload = batch.into_records();
        let arrival = Arrival {
            source: interface.source,
            sender: self.senders.of(peer),
            tag: interface.output,
            extent,
            watermark: header.watermark,
            memory: payload.memory(),
            payload,
        };
        let ahead = self.merge.push(arrival, now.merge, now.wall);
        if ahead && header.packets > 0 {
            self.shared.ledger.lock().record_ahead(interface.source, header.packets.into());
        }
    }

    /// Forgets sources that have been silent for long.
    pub(super) fn forget_idle(&mut self, now: Now) {
        let idle = self.sources.forgettable(now.merge);
        self.forget(idle, now.wall);
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

    /// Whether packets should be written before another message is received: memory is short.
    pub(super) fn should_write(&self, now: MonotonicTime) -> bool {
        self.merge.is_over_limit() || self.should_pause(now)
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

/// Whether the sender of a batch may use the name of its source. If not, its connection is closed.
fn authorize<M: Received>(batch: &DecodedBatch<M>, origin: &Origin) -> Result<(), Rejection> {
    if batch.message().may_use(&origin.source) {
        return Ok(());
    }
    batch.message().set_impostor();
    Err(Rejection::UnauthorizedName(Arc::clone(&origin.source)))
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
