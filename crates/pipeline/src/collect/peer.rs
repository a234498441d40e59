//! The sender of a message.

use std::hash::{BuildHasher, RandomState};

use merge::SenderId;
use relay::{Message, Peer};

/// A message, and what is known of its sender.
pub(super) trait Received: AsRef<[u8]> {
    /// The sender, as far as limits are concerned.
    fn peer(&self) -> Peer;

    /// The sender's address, for the log.
    fn address(&self) -> String;

    /// Whether the sender may use this name.
    fn may_use(&self, name: &str) -> bool;

    /// The message is a valid batch.
    fn set_valid(&self);

    /// The sender has used a name that it may not use.
    fn set_impostor(&self);
}

impl Received for Message {
    fn peer(&self) -> Peer {
        self.sender().peer()
    }

    fn address(&self) -> String {
        self.sender().address()
    }

    fn may_use(&self, name: &str) -> bool {
        self.sender().may_use(name)
    }

    fn set_valid(&self) {
        self.sender().set_valid();
    }

    fn set_impostor(&self) {
        self.sender().set_impostor();
    }
}

/// In tests, a message is its bytes.
#[cfg(test)]
impl Received for Vec<u8> {
    fn peer(&self) -> Peer {
        Peer::Other
    }

    fn address(&self) -> String {
        "192.0.2.1".to_owned()
    }

    /// All names but one.
    fn may_use(&self, name: &str) -> bool {
        name != "forbidden"
    }

    fn set_valid(&self) {}

    fn set_impostor(&self) {}
}

/// Numbers peers for the merge. The numbers cannot be predicted, so peers cannot choose to share one.
#[derive(Clone, Debug, Default)]
pub(super) struct SenderIds(RandomState);

impl SenderIds {
    pub(super) fn of(&self, peer: Peer) -> SenderId {
        SenderId(self.0.hash_one(peer))
    }
}
