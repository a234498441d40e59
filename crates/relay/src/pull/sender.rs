//! Who sent a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use zmtp::PublicKey;

use super::listener::PeerAddress;
use crate::Peer;
use crate::authorized_keys::AllowedNames;

/// A connection, as the collector's thread sees it.
#[derive(Debug)]
pub struct Sender {
    address: PeerAddress,
    /// With keys, the peer's key, and the names that it may use.
    admitted: RwLock<Option<(PublicKey, Arc<AllowedNames>)>>,
    valid: AtomicBool,
    impostor: AtomicBool,
}

impl Sender {
    pub(super) fn new(address: PeerAddress) -> Arc<Self> {
        let (valid, impostor) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { address, admitted: RwLock::default(), valid, impostor })
    }

    /// The peer's address; `local` for a Unix domain socket.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The peer, as far as limits are concerned.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let key = self.admitted.read().as_ref().map(|(key, _)| *key);
        key.map_or_else(|| self.address.peer(), Peer::Key)
    }

    /// Whether the peer may send packets under this name. Without keys, everybody may use every name.
    #[must_use]
    pub fn may_use(&self, name: &str) -> bool {
        self.admitted.read().as_ref().is_none_or(|(_, names)| names.allow(name))
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

    /// The peer is admitted, or its names have changed.
    pub(super) fn set_admitted(&self, key: PublicKey, names: Arc<AllowedNames>) {
        *self.admitted.write() = Some((key, names));
    }
}
