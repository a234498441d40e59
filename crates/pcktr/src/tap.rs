//! Where sources hand their batches in this program: the observers look at them, then the relay has them.

use std::sync::Arc;

use batch::{Batch, Interface};
use observe::{Observers, OriginId};
use relay::RelayHandle;
use source::{Outlet, OwnTraffic};

/// A relay, and the filter that leaves its own traffic out of the capture.
#[derive(Clone)]
pub(crate) struct RelayedTo {
    handle: RelayHandle,
    own_traffic: Arc<OwnTraffic>,
    generation: u64,
}

impl RelayedTo {
    pub(crate) fn new(handle: RelayHandle, own_traffic: Arc<OwnTraffic>) -> Self {
        let mut relay = Self { handle, own_traffic, generation: 0 };
        relay.follow_addresses();
        relay
    }

    /// Adds the addresses that the relay's endpoint has resolved to since the last call.
    fn follow_addresses(&mut self) {
        let generation = self.handle.peer_addresses_generation();
        if generation != self.generation {
            self.generation = generation;
            self.own_traffic.add(&self.handle.peer_addresses());
        }
    }
}

/// The outlet of one source's thread.
pub(crate) struct Tap {
    observers: Arc<Observers>,
    /// Without one, what was observed is forgotten.
    relay: Option<RelayedTo>,
    /// Memory of the last batch that was forgotten.
    kept: Vec<u8>,
    origins: Vec<(Arc<Interface>, OriginId)>,
}

impl Tap {
    pub(crate) fn new(observers: Arc<Observers>, relay: Option<RelayedTo>) -> Self {
        Self { observers, relay, kept: Vec::new(), origins: Vec::new() }
    }

    /// The observers' number for where a batch comes from.
    fn origin(&mut self, interface: &Arc<Interface>) -> OriginId {
        if let Some((_, id)) = self.origins.iter().find(|(known, _)| Arc::ptr_eq(known, interface)) {
            return *id;
        }
        let id = self.observers.register(&interface.origin, &interface.names);
        // What is described anew replaces what it was before.
        self.origins.retain(|(_, known)| *known != id);
        self.origins.push((Arc::clone(interface), id));
        id
    }
}

impl Outlet for Tap {
    fn send(&mut self, batch: Batch) {
        let origin = self.origin(batch.interface());
        self.observers.observe(&observe::ObservedBatch {
            origin,
            link_type: batch.interface().link_type,
            packets: batch.packets(),
            records: batch.payload(),
            watermark: batch.close_info().watermark,
        });
        match &mut self.relay {
            Some(relay) => {
                relay.follow_addresses();
                relay.handle.send(batch);
            }
            None => self.kept = batch.into_spare(),
        }
    }

    fn spare(&mut self) -> Vec<u8> {
        match &self.relay {
            Some(relay) => relay.handle.take_buffer(),
            None => std::mem::take(&mut self.kept),
        }
    }
}
