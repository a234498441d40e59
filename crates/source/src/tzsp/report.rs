//! The counters of each TZSP port, shared with the metrics.

use std::sync::Arc;

use parking_lot::Mutex;

use super::TzspCounters;
use crate::senders::SenderCounts;

/// The counters of each TZSP port. All clones are one.
#[derive(Clone, Debug)]
pub struct TzspReport(Arc<Mutex<TzspPorts>>);

/// The counters of all ports.
#[derive(Clone, Debug, Default)]
pub struct TzspPorts {
    /// One entry per port.
    pub ports: Vec<TzspPort>,
    /// Routers that are remembered.
    pub routers: u64,
    /// Routers that were forgotten, because they were silent or too many.
    pub forgotten: u64,
    /// Packets that were dropped because there were too many routers.
    pub untracked: u64,
    /// Fragmented datagrams that could not be reassembled: by us in frames, or by the kernel for sockets, where
    /// datagrams of every protocol count.
    pub reassembly_failures: u64,
}

/// The counters of one port.
#[derive(Clone, Copy, Debug)]
pub struct TzspPort {
    /// The UDP port.
    pub number: u16,
    /// What its datagrams contained.
    pub counters: TzspCounters,
    /// Datagrams that the socket dropped because its receive buffer was full.
    pub dropped: u64,
}

impl TzspPorts {
    pub(crate) fn count_senders(&mut self, counts: SenderCounts) {
        (self.routers, self.forgotten, self.untracked) = (counts.known, counts.forgotten, counts.untracked);
    }
}

impl TzspReport {
    pub(crate) fn new(ports: impl Iterator<Item = u16>) -> Self {
        let zero = |number| TzspPort { number, counters: TzspCounters::default(), dropped: 0 };
        Self(Arc::new(Mutex::new(TzspPorts { ports: ports.map(zero).collect(), ..TzspPorts::default() })))
    }

    /// Changes the counters under the lock.
    pub(crate) fn update(&self, change: impl FnOnce(&mut TzspPorts)) {
        change(&mut self.0.lock());
    }

    /// A copy of the counters.
    #[must_use]
    pub fn ports(&self) -> TzspPorts {
        self.0.lock().clone()
    }
}
