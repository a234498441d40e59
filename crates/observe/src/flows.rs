//! Who talks to whom: packets and bytes by addresses and protocol.
//!
//! The metrics are those of `tzsp_packetstream_exporter`, whose dashboard reads them, for what came by TZSP, and the same
//! by another name for what did not. A flow is known by its outermost IP header alone. So fragments count, first and later,
//! and what a router truncated counts as long as its addresses can be read; a flow's bytes are those that IP headers speak
//! of, not those that were captured.
//!
//! The table is bounded, and without a sweep. A flow that is silent for longer than [`Config::age`] is exposed no more. If
//! it speaks again it begins at zero, unless its entry was still there: which Prometheus takes for what it is, a counter
//! that was reset.

mod expose;
mod key;
mod names;
mod scope;

use std::sync::Arc;
use std::time::Duration;

use key::Key;
use packet::{Origin, Timestamp};
use scope::Scopes;

use crate::aged::{Age, Aged};
use crate::{Observed, OriginId, Scope};

/// How much is kept, for how long, and by which labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most flows at a time. One takes about 120 bytes of memory and 300 of a scrape.
    pub max_flows: usize,
    /// A flow that is silent for longer leaves the exposition.
    pub age: Duration,
    /// The labels that tell origins apart.
    pub scope: Scope,
}

impl Default for Config {
    /// A quarter of a million flows: 30 MB, and a scrape of 75 MB, about as much as a Prometheus server likes. An hour.
    fn default() -> Self {
        Self { max_flows: 250_000, age: Duration::from_secs(3600), scope: Scope::None }
    }
}

/// Entries that an [`advance`](Flows::advance) removes at most: a tenth of a millisecond. A clock that jumps ahead ends
/// all flows at once, and that must not stop the packets.
const REMOVED_AT_ONCE: usize = 1024;

/// The flows.
#[derive(Debug)]
pub struct Flows {
    config: Config,
    scopes: Scopes,
    table: Aged<Key, Flow>,
    /// How many flows there ever were.
    began: u64,
    /// Packets that belong to no flow, as the table was full.
    overflow: u64,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    packets: u64,
    bytes: u64,
    /// Counts up from one flow to the next: a scrape passes over those that begin while it goes on.
    number: u64,
}

impl Flows {
    /// No flow yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            scopes: Scopes::new(config.scope),
            table: Aged::new(config.max_flows, [config.age; 2]),
            began: 0,
            overflow: 0,
        }
    }

    /// Takes note of who an origin is, and of what its interfaces are called where its packets tell theirs by its index
    /// (LINUX_SLL2). To be called before its first packet, for its series are named after it, and again when there are more
    /// interfaces. Packets of an interface without a name count for the origin's device.
    ///
    /// Origins that differ in nothing that a label tells share their flows: the senders of TZSP to one port, outside of a
    /// collector.
    pub fn meet(&mut self, id: OriginId, origin: &Origin, interfaces: &[(u32, Arc<str>)]) {
        self.scopes.meet(id, origin, interfaces);
    }

    /// Counts a packet.
    #[inline]
    pub fn observe(&mut self, packet: &Observed<'_>) {
        let Some(ip) = &packet.headers.ip else { return };
        let scope = self.scopes.of(packet.origin, packet.headers.interface);
        let (key, bytes) = Key::read(scope, ip, packet.bytes);
        self.table.tick(scope, packet.time);
        let Some(slot) = self.table.find(&key) else {
            self.begin(scope, key, u64::from(bytes));
            return;
        };
        self.table.touch(slot, Age::Living);
        let flow = &mut self.table.get_mut(slot).value;
        flow.packets += 1;
        flow.bytes += u64::from(bytes);
    }

    /// The packets' time of `origin` has come to `now`: makes room by what was silent for too long.
    pub fn advance(&mut self, origin: OriginId, now: Timestamp) {
        let Self { scopes, table, .. } = self;
        for scope in scopes.all_of(origin) {
            table.tick(scope, now);
            for _ in 0..REMOVED_AT_ONCE {
                let Some(slot) = table.expired(scope) else { break };
                table.remove(slot);
            }
        }
    }

    /// Flows in the table. More than are exposed, where some have been silent for too long.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no flow in the table.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    #[cold]
    fn begin(&mut self, scope: OriginId, key: Key, bytes: u64) {
        if self.table.len() >= self.config.max_flows {
            let Some(slot) = self.table.expired(scope) else {
                self.overflow += 1;
                return;
            };
            self.table.remove(slot);
        }
        self.began += 1;
        self.table.insert(scope, key, Flow { packets: 1, bytes, number: self.began });
    }
}

#[cfg(test)]
mod tests;
