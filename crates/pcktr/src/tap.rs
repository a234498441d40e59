//! Where sources hand their batches in this program: the observers look at them, then the relay has them.

use std::sync::Arc;

use batch::{Batch, Interface};
use observe::{Observers, OriginId};
use sink::push::Handle;
use source::Outlet;

/// The outlet of one source's thread.
pub(crate) struct Tap {
    observers: Arc<Observers>,
    /// Without one, what was observed is forgotten.
    relay: Option<Handle>,
    /// Memory of the last batch that was forgotten.
    kept: Vec<u8>,
    origins: Vec<(Arc<Interface>, OriginId)>,
}

impl Tap {
    pub(crate) fn new(observers: Arc<Observers>, relay: Option<Handle>) -> Self {
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
        let header = batch.header();
        self.observers.observe(&observe::ObservedBatch {
            origin,
            link_type: header.link_type,
            packets: header.packets,
            records: batch.payload(),
            watermark: header.watermark,
        });
        match &self.relay {
            Some(relay) => relay.send(batch),
            None => self.kept = batch.into_message(),
        }
    }

    fn spare(&mut self) -> Vec<u8> {
        match &self.relay {
            Some(relay) => relay.spare(),
            None => std::mem::take(&mut self.kept),
        }
    }
}
