//! The observer `flows`: packets and bytes by addresses and protocol.
//!
//! Packets that arrived by TZSP have the metrics of `tzsp_packetstream_exporter`, so that its dashboard works
//! unchanged. Other packets have the same metrics under separate names. A flow is identified by the outermost IP header
//! alone. So all fragments count, and truncated packets count if their addresses were captured. Bytes are those of the
//! IP length field, not the captured ones.
//!
//! A flow that is idle for longer than [`FlowsConfig::age`] leaves the exposition. If it returns later it starts at
//! zero, which Prometheus treats as a counter reset.

mod key;
mod names;
mod scope;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;
use std::time::Duration;

use key::FlowKey;
use metrics::{Declaration, Exposition};
use packet::{Origin, Timestamp};
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use scope::Scopes;

use crate::expiring_table::{ExpiringTable, Limit};
use crate::observer::{BatchOrigin, Chunk, Observer};
use crate::{ObservedPacket, OriginId, Origins, Scope};

/// How many expired flows an [`advance`](Flows::advance) removes at most, which takes a tenth of a millisecond. If the
/// clock jumps ahead, all flows expire at once, and that must not block the capture.
const REMOVED_PER_ADVANCE: usize = 1024;

const UNTRACKED: Declaration = Declaration::counter(
    "packeteur_flows_untracked_packets_total",
    "Packets not counted for a flow, because it was new and there were MAX_FLOWS already.",
);

/// The bounds of the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsConfig {
    /// The most flows (`MAX_FLOWS`). A flow takes about 120 bytes of memory and 300 bytes of a scrape. Packets of new
    /// flows are counted as untracked when the table is full.
    pub max_flows: usize,
    /// An idle flow leaves the exposition after this time (`FLOW_AGE`).
    pub age: Duration,
}

impl Default for FlowsConfig {
    /// An hour, and a quarter of a million flows: 30 MB of memory, and a scrape of 75 MB, as much as a Prometheus server
    /// should read.
    fn default() -> Self {
        Self { max_flows: 250_000, age: Duration::from_secs(3600) }
    }
}

/// The observer.
#[derive(Debug)]
pub struct Flows {
    config: FlowsConfig,
    scopes: Scopes,
    table: ExpiringTable<FlowKey, Flow>,
    /// The number of flows so far, removed ones included.
    started: u64,
    /// Packets of flows that did not fit.
    untracked: u64,
}

/// The counts of a flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    packets: u64,
    bytes: u64,
    /// The value of [`Flows::started`] at its start. A scrape skips flows that started after it did.
    number: u64,
}

impl Flows {
    /// An observer that has seen no packet. `scope` is the labels that distinguish origins.
    #[must_use]
    pub fn new(config: FlowsConfig, scope: Scope) -> Self {
        Self {
            config,
            scopes: Scopes::new(scope),
            table: ExpiringTable::new(config.max_flows, [config.age; 2]),
            started: 0,
            untracked: 0,
        }
    }

    /// Announces an origin before its first packet, and again when it has more interfaces. `interfaces` are the names
    /// of those that packets refer to by index (LINUX_SLL2). Packets of other interfaces count for the origin's device.
    ///
    /// Origins with the same labels share their flows: outside of a collector, that is all routers that send TZSP to
    /// one port.
    pub fn register(&mut self, id: OriginId, origin: &Origin, interfaces: &[(u32, Arc<str>)]) {
        for scope in self.scopes.register(id, origin, interfaces) {
            while self.remove_some(scope) {}
        }
    }

    /// Removes some flows of a scope. Returns whether there are more.
    fn remove_some(&mut self, scope: OriginId) -> bool {
        for _ in 0..REMOVED_PER_ADVANCE {
            let Some(slot) = self.table.any_of(scope) else { return false };
            self.table.remove(slot);
        }
        true
    }

    /// Counts a packet captured at `origin`.
    #[inline]
    pub fn observe(&mut self, origin: OriginId, packet: &ObservedPacket<'_>) {
        let Some(ip) = &packet.headers.ip else { return };
        let scope = self.scopes.of(origin, packet.headers.interface);
        let (key, bytes) = FlowKey::read(scope, ip, packet.bytes);
        self.table.tick(scope, packet.time);
        let Some(slot) = self.table.find(&key) else {
            self.start(scope, key, u64::from(bytes));
            return;
        };
        self.table.touch(slot, Limit::Active);
        let flow = &mut self.table.get_mut(slot).value;
        flow.packets += 1;
        flow.bytes += u64::from(bytes);
    }

    /// Advances the packet time of `origin`, and removes expired flows.
    pub fn advance(&mut self, origin: OriginId, now: Timestamp) {
        let Self { scopes, table, .. } = self;
        for scope in scopes.all_of(origin) {
            table.tick(scope, now);
            for _ in 0..REMOVED_PER_ADVANCE {
                let Some(slot) = table.expired(scope) else { break };
                table.remove(slot);
            }
        }
    }

    #[cold]
    fn start(&mut self, scope: OriginId, key: FlowKey, bytes: u64) {
        if self.table.len() >= self.config.max_flows {
            let Some(slot) = self.table.expired(scope) else {
                self.untracked += 1;
                return;
            };
            self.table.remove(slot);
        }
        self.started += 1;
        self.table.insert(scope, key, Flow { packets: 1, bytes, number: self.started });
    }
}

impl Observer for Mutex<Flows> {
    fn register(&self, id: OriginId, origin: &Origin, interfaces: &[(u32, Arc<str>)]) {
        self.lock().register(id, origin, interfaces);
    }

    fn forget(&self, id: OriginId) {
        let unused = self.lock().scopes.forget(id);
        for scope in unused {
            while self.lock().remove_some(scope) {}
        }
    }

    fn observe(&self, chunk: &mut Chunk<'_>) {
        let mut flows = self.lock();
        for packet in chunk.packets() {
            flows.observe(chunk.origin.id, packet);
        }
    }

    fn advance(&self, origin: BatchOrigin, now: Timestamp) {
        self.lock().advance(origin.id, now);
    }

    fn declarations(&self) -> Vec<Declaration> {
        vec![UNTRACKED]
    }

    fn collect(&self, _origins: &Origins) -> Vec<MetricFamily> {
        vec![UNTRACKED.value(self.lock().untracked as f64)]
    }

    fn write_table(&self, _origins: &Origins, out: &mut Exposition) {
        Flows::write_table(self, out);
    }
}
