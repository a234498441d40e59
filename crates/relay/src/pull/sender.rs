//! Who sent a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::listener::PeerAddress;
use crate::authorized_keys::AllowedNames;

/// A connection, as the collector's thread sees it.
#[derive(Debug)]
pub struct Sender {
    /// Unique among the connections of a collector.
    id: u64,
    address: PeerAddress,
    /// With keys, the names that the peer's key may use.
    names: RwLock<Option<Arc<AllowedNames>>>,
    valid: AtomicBool,
    impostor: AtomicBool,
}

impl Sender {
    pub(super) fn new(id: u64, address: PeerAddress) -> Arc<Self> {
        let (valid, impostor) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { id, address, names: RwLock::default(), valid, impostor })
    }

    /// A number that no other connection has.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.id
    }

    /// The peer's address; `local` for a Unix domain socket.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Whether the peer may send packets under this name. Without keys, everybody may use every name.
    #[must_use]
    pub fn may_use(&self, name: &str) -> bool {
        self.names.read().as_ref().is_none_or(|names| names.allow(name))
    }

    /// Records that the peer sent a valid batch. When connections are scarce, those that did are the last to go.
    pub fn set_valid(&self) {
        // The common case writes nothing that other threads read.
        if !self.is_valid() {
            self.valid.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the connection: the peer used a name that it may not use.
    pub fn set_impostor(&self) {
        self.impostor.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_valid(&self) -> bool {
        self.valid.load(Ordering::Relaxed)
    }

    pub(super) fn is_impostor(&self) -> bool {
        self.impostor.load(Ordering::Relaxed)
    }

    pub(super) fn peer(&self) -> PeerAddress {
        self.address
    }

    pub(super) fn set_names(&self, names: Arc<AllowedNames>) {
        *self.names.write() = Some(names);
    }
}
