//! Who is at the other end of a connection, as far as limits are concerned.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};

use merge::SenderId;
use relay::{Message, PublicKey};

/// Who counts as one peer: the owner of a key; without keys an IPv4 address, or the part of an IPv6 address that its user
/// does not choose (the first 64 bits; RFC 4291, section 2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    Key(PublicKey),
    V4(Ipv4Addr),
    V6([u16; 4]),
    /// A process of this host, over a Unix domain socket; and all peers beyond those that are remembered.
    Other,
}

impl Peer {
    /// The peer at an address; none for a process of this host.
    pub(super) fn at(address: Option<IpAddr>) -> Self {
        match address.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => Self::V4(ip),
            Some(IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
            None => Self::Other,
        }
    }
}

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
        let sender = self.sender();
        sender.key().map_or_else(|| Peer::at(sender.ip()), Peer::Key)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let at = |address: &str| Peer::at(Some(address.parse().unwrap()));
        assert_eq!(at("192.0.2.1"), Peer::V4(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.2"), at("192.0.2.1"));
        assert_eq!(at("2001:db8::1"), at("2001:db8:0:0:ffff::2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
    }
}
