//! The senders of mirrored packets. Each is a separate interface, named after its address.
//!
//! TZSP packets of type 1, which a sensor is asked to transmit, are not packets that it observed: they get an interface
//! of their own without a listen port, so that they do not count in `tzsp_observed_*`.
//!
//! A collector's merge waits for every interface that has not ended, so each sends heartbeats while it is idle. Any host
//! that reaches the port can send datagrams from any address, and one datagram must not cause heartbeats without end. So
//! the interface of a silent sender ends, and starts again with the sender's next packet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use batch::Interface;
use packet::decap::Channel;
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Origin, Record, Timestamp};

use crate::batcher::{HEARTBEAT, InterfaceSlot};
use crate::clock::is_due;
use crate::filter::FilteredBatcher;
use crate::rate_limit::RateLimit;
use crate::tzsp::TzspDatagram;

/// The most senders that are remembered.
const MAX_SENDERS: usize = 4096;

/// Senders that are forgotten at once if there are too many: those that have been silent for longest.
const FORGET_AT_ONCE: usize = 256;

/// A sender without a packet for this long is idle: its interface sends heartbeats.
const IDLE: Duration = HEARTBEAT.saturating_mul(2);

/// The most idle interfaces. Beyond them, those idle for longest end: all of them together send no more than 1700
/// heartbeats a second, which take about 1 % of a core.
const MAX_IDLE: usize = 128;

/// An interface ends when its sender has been silent for this long. Its next packets may then be late at the collector,
/// which did not wait for them; that must not happen to routers that pause for seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A sender that has been silent for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Interfaces that start, per second. Each takes three batches.
const MAX_STARTS_PER_SECOND: f64 = 1000.0;

/// Of the interfaces that can start at once, those of senders that are known. New senders, which may be made up, leave
/// them that many.
const STARTS_FOR_KNOWN: f64 = MAX_SENDERS as f64;

/// Log lines about new senders: at once, and per second.
const LOG_BURST: f64 = 32.0;
const LOGS_PER_SECOND: f64 = 0.5;

/// What tells senders apart: port, address, channel, link type.
type SenderKey = (u16, IpAddr, Channel, LinkType);

/// A sender.
#[derive(Debug)]
struct Sender {
    origin: Origin,
    /// `None`: its interface has ended.
    slot: Option<InterfaceSlot>,
    /// When its latest packet arrived.
    latest: Timestamp,
}

/// All senders.
#[derive(Debug)]
pub(crate) struct Senders {
    source: Arc<str>,
    known: HashMap<SenderKey, Sender>,
    counts: SenderCounts,
    starts: RateLimit,
    logs: RateLimit,
    /// New senders since the last log line.
    unlogged: u64,
    /// When to look for idle senders.
    check_due: Timestamp,
}

/// Figures of all senders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SenderCounts {
    /// Senders that are remembered.
    pub(crate) known: u64,
    /// Senders that were forgotten.
    pub(crate) forgotten: u64,
    /// Packets that were dropped because there were too many senders.
    pub(crate) untracked: u64,
}

impl Senders {
    pub(crate) fn new(source: Arc<str>) -> Self {
        Self {
            source,
            known: HashMap::new(),
            counts: SenderCounts::default(),
            starts: RateLimit::new(STARTS_FOR_KNOWN + MAX_SENDERS as f64, MAX_STARTS_PER_SECOND),
            logs: RateLimit::new(LOG_BURST, LOGS_PER_SECOND),
            unlogged: 0,
            check_due: Timestamp::ZERO,
        }
    }

    pub(crate) fn counts(&self) -> SenderCounts {
        SenderCounts { known: self.known.len() as u64, ..self.counts }
    }

    /// Hands down an unpacked packet that arrived at `now`. Returns false if `MAX_PACKETS` was reached.
    #[inline]
    pub(crate) fn push(
        &mut self,
        datagram: &TzspDatagram<'_>,
        below: &mut FilteredBatcher,
        now: Timestamp,
    ) -> bool {
        let key = (datagram.listen_port, datagram.sender, datagram.channel, datagram.link_type);
        let slot = match self.known.get_mut(&key) {
            Some(Sender { slot: Some(slot), latest, .. }) => {
                *latest = now;
                *slot
            }
            _ => match self.start(key, datagram.time, below, now) {
                Some(slot) => slot,
                None => {
                    self.counts.untracked += 1;
                    return true;
                }
            },
        };
        let record = datagram.record();
        let bytes = record.bytes.get(..MAX_CAPTURED).unwrap_or(record.bytes);
        below.push(slot, &Record { bytes, ..record }, now)
    }

    /// Starts the interface of a sender that is new or was silent, with a packet of the time `packet`. `None` if there are
    /// too many.
    #[cold]
    fn start(
        &mut self,
        key: SenderKey,
        packet: Timestamp,
        below: &mut FilteredBatcher,
        now: Timestamp,
    ) -> Option<InterfaceSlot> {
        let known = self.known.contains_key(&key);
        if !known && self.known.len() >= MAX_SENDERS {
            self.forget_silent();
        }
        let reserve = if known { 0.0 } else { STARTS_FOR_KNOWN };
        if (!known && self.known.len() >= MAX_SENDERS) || !self.starts.take(now, reserve) {
            return None;
        }
        if !known {
            let origin = self.origin(key);
            self.log(&origin, key, now);
            self.known.insert(key, Sender { origin, slot: None, latest: now });
        }
        let sender = self.known.get_mut(&key)?;
        let interface = Interface {
            description: "TZSP".into(),
            ..Interface::new(sender.origin.clone(), key.3, MAX_CAPTURED as u32)
        };
        let slot = below.open_at(&interface, packet, now);
        (sender.slot, sender.latest) = (Some(slot), now);
        Some(slot)
    }

    fn origin(&self, key: SenderKey) -> Origin {
        let (port, sender, channel, link_type) = key;
        let sender = sender.to_canonical();
        let (device, listen_port) = match channel {
            Channel::Received => (sender.to_string(), Some(port)),
            Channel::Transmit => (format!("{sender} transmit {port}"), None),
        };
        // An interface has one link type: a second one of the same sender makes a second interface.
        let same_sender = |known: &SenderKey| (known.0, known.1, known.2) == (key.0, key.1, key.2);
        let device =
            if self.known.keys().any(same_sender) { format!("{device} {link_type}") } else { device };
        Origin { source: Arc::clone(&self.source), device: device.into(), listen_port }
    }

    fn log(&mut self, origin: &Origin, (port, _, _, link_type): SenderKey, now: Timestamp) {
        if !self.logs.take(now, 0.0) {
            self.unlogged += 1;
            return;
        }
        if self.unlogged > 0 {
            tracing::info!(routers = self.unlogged, "further new TZSP routers");
            self.unlogged = 0;
        }
        tracing::info!(router = %origin.device, port, %link_type, "new TZSP router");
    }

    /// Ends the interfaces of senders that have been silent for too long, and forgets senders.
    pub(crate) fn end_idle(&mut self, below: &mut FilteredBatcher, now: Timestamp) {
        if !is_due(self.check_due, now, HEARTBEAT) {
            return;
        }
        self.check_due = now + HEARTBEAT;
        let mut idle = Vec::new();
        self.known.retain(|key, sender| {
            // The clock may have been set back.
            sender.latest = sender.latest.min(now);
            let silence = now.since(sender.latest);
            if sender.slot.is_some() && silence >= IDLE {
                idle.push((sender.latest, *key));
            }
            let remembered = sender.slot.is_some() || silence < FORGET_AFTER;
            self.counts.forgotten += u64::from(!remembered);
            remembered
        });
        idle.sort_unstable_by_key(|(latest, _)| *latest);
        let excess = idle.len().saturating_sub(MAX_IDLE);
        for (at, (latest, key)) in idle.into_iter().enumerate() {
            if at >= excess && now.since(latest) < IDLE_TIMEOUT {
                break;
            }
            if let Some(slot) = self.known.get_mut(&key).and_then(|sender| sender.slot.take()) {
                below.batcher.end_interface(slot);
            }
        }
    }

    /// Forgets the senders whose interfaces ended first.
    fn forget_silent(&mut self) {
        let silent = self.known.iter().filter(|(_, sender)| sender.slot.is_none());
        let mut silent: Vec<_> = silent.map(|(key, sender)| (sender.latest, *key)).collect();
        silent.sort_unstable_by_key(|(latest, _)| *latest);
        for (_, key) in silent.into_iter().take(FORGET_AT_ONCE) {
            self.known.remove(&key);
            self.counts.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests;
