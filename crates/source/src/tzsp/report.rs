//! What became of the datagrams of each port, shared with who exposes it.

use std::sync::{Arc, Mutex, PoisonError};

use super::Counters;

/// What became of the datagrams of each port.
#[derive(Clone, Debug)]
pub struct Report(Arc<Mutex<Ports>>);

/// The figures of all ports.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// Port by port.
    pub ports: Vec<Port>,
    /// Packets of routers beyond those that can be told apart.
    pub overflow: u64,
    /// Fragmented datagrams that could not be put together: by us, off the wire, or by the kernel, of any protocol.
    pub reassembly_failures: u64,
}

/// The figures of one port.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// What became of its datagrams.
    pub counters: Counters,
    /// Datagrams that its socket dropped, as the receive buffer was full.
    pub dropped: u64,
}

impl Report {
    pub(super) fn new(ports: impl Iterator<Item = u16>) -> Self {
        let zero = |number| Port { number, counters: Counters::default(), dropped: 0 };
        Self(Arc::new(Mutex::new(Ports { ports: ports.map(zero).collect(), ..Ports::default() })))
    }

    /// Puts the figures as they are now in the place of those of before.
    pub(super) fn update(&self, change: impl FnOnce(&mut Ports)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The figures as they are now.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
