//! The collector's loop: receive, account, observe, merge, write. One thread does it all: a slow reader of the output
//! holds up the receiving, ZeroMQ's marks then hold up the captures, and each packet is touched while it is in the
//! processor's cache.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use batch::{Header, Received};
use merge::ledger::{Dropped, Entry, Figures, Heard, Skip};
use merge::merge::Arrival;
use merge::{Merge, Mono};
use packet::Timestamp;
use sink::{InterfaceCounts, InterfaceId, StreamError, Writer};
use source::pull::Message;
use source::{Pull, PullError};
use tracing::{debug, error, info, warn};

use super::Shared;
use super::interfaces::Interfaces;
use super::output::Output;
use crate::settings::CollectSettings;
use crate::signals::Stop;

/// How long at most the loop waits before it looks around.
const PATIENCE: Duration = Duration::from_millis(100);

/// Messages taken in one after the other before the merge has its turn.
const INTAKE: usize = 64;

/// Bytes of batches that are taken in at a beginning, before all sources are there.
const GATHERED: usize = 64 << 20;

/// How long the loop waits until it looks whether the beginning is over.
const GATHERING: Duration = Duration::from_millis(2);

/// How long a collector that was told to stop goes on receiving what is on its way already.
const LAST_INTAKE: Duration = Duration::from_millis(200);

/// How often the log speaks of losses at most.
const QUIET: Duration = Duration::from_secs(10);

/// Writing that takes longer than this has waited for the reader of the output.
const STALL: Duration = Duration::from_millis(20);

/// What ends a collector before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectError {
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// A collector at work.
pub(super) struct Collector {
    pull: Pull,
    merge: Merge<Received<Message>, Option<InterfaceId>>,
    output: Output,
    interfaces: Interfaces,
    shared: Arc<Shared>,
    stop: Stop,
    exit_on_end: bool,
    clock: Clock,
    losses: Losses,
}

impl Collector {
    pub(super) fn new(
        settings: &CollectSettings,
        pull: Pull,
        writer: Writer,
        shared: Arc<Shared>,
        stop: Stop,
    ) -> Self {
        let config = merge::merge::Config {
            window: settings.merge_window,
            grace: settings.merge_window / 2,
            ..Default::default()
        };
        Self {
            pull,
            merge: Merge::new(config),
            output: Output::new(writer, settings.common.max_packets.map(NonZero::get)),
            interfaces: Interfaces::default(),
            shared,
            stop,
            exit_on_end: settings.exit_on_end,
            clock: Clock { started: Instant::now(), stalled: Duration::ZERO },
            losses: Losses::default(),
        }
    }

    /// Collects until it is time to end. A reader that goes away is a reason to end, and no failure.
    pub(super) fn run(mut self) -> Result<(), CollectError> {
        let ended = self.collect().and_then(|()| self.drain());
        self.settle();
        match ended.and_then(|()| self.finish()) {
            Err(CollectError::Stream(StreamError::ReaderGone)) => {
                info!("the reader of the output has gone: ending");
                Ok(())
            }
            ended => ended,
        }
    }

    fn collect(&mut self) -> Result<(), CollectError> {
        while !self.stop.is_set() && !self.output.is_full() {
            if self.is_gathering_enough() {
                // What comes now would push out what waits for sources that are still to come.
                thread::sleep(GATHERING);
                self.write()?;
                continue;
            }
            let received = self.receive(Duration::ZERO)?;
            self.write()?;
            if received {
                continue;
            }
            // Nothing comes just now: what has been gathered is not to wait for what comes next.
            let began = Instant::now();
            self.output.writer.flush()?;
            self.clock.stood_still(began);
            if self.exit_on_end && self.merge.packets() == 0 && self.all_ended() {
                info!("every source has ended");
                return Ok(());
            }
            self.receive(self.patience())?;
            self.write()?;
        }
        Ok(())
    }

    /// Takes in what comes, up to a number of messages; waits so long for the first. False where nothing came.
    fn receive(&mut self, patience: Duration) -> Result<bool, CollectError> {
        let mut patience = patience;
        for taken in 0..INTAKE {
            let Some(message) = self.pull.receive(patience)? else { return Ok(taken > 0) };
            self.take(message)?;
            patience = Duration::ZERO;
        }
        Ok(true)
    }

    /// Takes a message in.
    fn take(&mut self, mut message: Message) -> Result<(), CollectError> {
        let received = match batch::Header::decode(message.as_ref()) {
            Ok(_) => Received::decode(message),
            Err(error) => {
                self.shared.foreign.count(&error, message.peer());
                return Ok(());
            }
        };
        let batch = match received {
            Ok(batch) => batch,
            Err(error) => {
                self.shared.foreign.count(&error, "a capture");
                return Ok(());
            }
        };
        let header = *batch.header();
        let (origin, new) = match self.interfaces.read(&batch) {
            Ok((interface, new)) => (interface.origin.clone(), new),
            Err(error) => {
                self.shared.foreign.count(&error, "a capture");
                return Ok(());
            }
        };
        let now = SystemTime::now().into();
        let (heard, origin) = {
            let mut ledger = self.shared.ledger();
            let heard = ledger.record(&origin, &entry(&header), batch.message_len() as u64, now);
            (heard, ledger.origin(heard.source).cloned().unwrap_or(origin))
        };
        self.tell(&heard, &origin);
        if heard.duplicate {
            return Ok(());
        }
        let observers = &self.shared.observers;
        let writer = &mut self.output.writer;
        let known = self.interfaces.known(heard.source, &origin, &batch, new, observers, writer);
        let known = known.inspect_err(|_| {
            // It has arrived, and goes nowhere.
            self.shared.ledger().skipped(heard.source, Skip::Closed, header.packets.into());
        })?;
        observers.observe(&observe::ObservedBatch {
            origin: known.origin,
            link_type: header.link_type,
            packets: header.packets,
            records: batch.records(),
            watermark: header.watermark,
        });
        let arrival = Arrival {
            source: heard.source,
            tag: known.output,
            extent: batch.extent(),
            watermark: header.watermark,
            payload: batch,
        };
        self.merge.push(arrival, self.clock.now());
        if header.ends {
            debug!(%origin, "a source has ended");
            self.merge.end(heard.source);
        }
        Ok(())
    }

    fn tell(&mut self, heard: &Heard, origin: &packet::Origin) {
        if heard.new_source {
            info!(%origin, "a source came");
        } else if heard.new_epoch {
            info!(%origin, "a source was started anew");
        }
        if heard.shared_name {
            warn!(%origin, "two captures call themselves so: give each a SOURCE_NAME of its own");
        }
        self.losses.add(heard.missing.packets, origin);
    }

    /// Writes what may leave by now.
    fn write(&mut self) -> Result<(), CollectError> {
        let output = &mut self.output;
        let began = Instant::now();
        self.merge.poll(self.clock.now(), &mut |run| output.write(&run));
        self.clock.stood_still(began);
        self.account();
        self.output.failed.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Books what became of the packets that left the merge.
    fn account(&mut self) {
        let mut ledger = self.shared.ledger();
        for (source, fate) in self.output.fates.drain() {
            ledger.written(source, fate.written);
            ledger.late(source, fate.late);
            for (reason, packets) in Skip::ALL.into_iter().zip(fate.skipped) {
                ledger.skipped(source, reason, packets);
            }
        }
        drop(ledger);
        self.shared.waiting_packets.store(self.merge.packets(), Ordering::Relaxed);
        self.shared.waiting_bytes.store(self.merge.bytes() as u64, Ordering::Relaxed);
    }

    /// Whether more batches would only push out what waits for sources that are still to come.
    fn is_gathering_enough(&self) -> bool {
        self.merge.bytes() >= GATHERED && self.merge.is_gathering(self.clock.now())
    }

    /// How long the loop may wait for a message.
    fn patience(&self) -> Duration {
        let deadline = self.merge.next_deadline();
        deadline.map_or(PATIENCE, |deadline| deadline.since(self.clock.now()).min(PATIENCE))
    }

    fn all_ended(&self) -> bool {
        let mut ledger = self.shared.ledger();
        ledger.settle(SystemTime::now().into());
        ledger.all_ended()
    }

    /// Takes in what is on its way already, and lets everything leave.
    fn drain(&mut self) -> Result<(), CollectError> {
        let until = Instant::now() + LAST_INTAKE;
        while !self.output.is_full() && Instant::now() < until && self.receive(Duration::from_millis(5))? {
            self.write()?;
        }
        let output = &mut self.output;
        self.merge.finish(&mut |run| output.write(&run));
        self.account();
        self.output.failed.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Books what the output did not take, and gives up what did not come.
    fn settle(&mut self) {
        let output = &mut self.output;
        output.closed = true;
        self.merge.finish(&mut |run| output.write(&run));
        self.account();
        self.shared.ledger().settle(Timestamp::MAX);
    }

    fn finish(self) -> Result<(), CollectError> {
        let ledger = self.shared.ledger();
        let now = SystemTime::now().into();
        let counts: Vec<_> = self
            .interfaces
            .in_output()
            .filter_map(|(interface, source)| Some((interface, counts(&ledger.figures(source)?, now))))
            .collect();
        drop(ledger);
        Ok(self.output.writer.finish(counts.into_iter())?)
    }
}

/// What the ledger wants to know of a header.
fn entry(header: &Header) -> Entry {
    Entry {
        epoch: header.epoch,
        sequence: header.sequence,
        sent_before: header.sent_before,
        packets: header.packets,
        captured: header.captured,
        dropped: Dropped {
            kernel: header.dropped.kernel,
            interface: header.dropped.interface,
            relay: header.dropped.relay,
        },
        sent_at: header.sent_at,
        watermark: header.watermark,
        ends: header.ends,
    }
}

/// What an interface statistics block says of a source.
fn counts(figures: &Figures, at: Timestamp) -> InterfaceCounts {
    InterfaceCounts {
        at,
        received: figures.captured.saturating_add(figures.dropped.kernel),
        dropped_interface: figures.dropped.interface,
        dropped_system: figures
            .dropped
            .kernel
            .saturating_add(figures.dropped.relay)
            .saturating_add(figures.lost.packets),
        delivered: figures.written,
    }
}

/// The merge's clock: it stands still while the reader of the output holds everything up.
struct Clock {
    started: Instant,
    stalled: Duration,
}

impl Clock {
    /// Something has been written since `began`. While the reader was slow, nothing could be received: for the merge, that
    /// time has not passed.
    fn stood_still(&mut self, began: Instant) {
        let took = began.elapsed();
        if took > STALL {
            self.stalled += took;
        }
    }

    fn now(&self) -> Mono {
        let running = self.started.elapsed().saturating_sub(self.stalled);
        Mono::from_nanos(u64::try_from(running.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Losses on the way, for the log.
#[derive(Default)]
struct Losses {
    packets: u64,
    told: Option<Instant>,
}

impl Losses {
    fn add(&mut self, packets: u64, origin: &packet::Origin) {
        self.packets += packets;
        if self.packets > 0 && self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            error!(%origin, packets = self.packets, "packets were lost on the way here, or are overdue");
            self.packets = 0;
            self.told = Some(Instant::now());
        }
    }
}
