//! Who is at the other end of a connection, as far as limits are concerned.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use merge::SenderId;

/// A network that counts as one peer: an IPv4 address, or the part of an IPv6 address that its user does not choose
/// (the first 64 bits; RFC 4291, section 2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    V4(Ipv4Addr),
    V6([u16; 4]),
    /// A process of this host, or an unknown address.
    Other,
}

impl Peer {
    /// The peer at an address, with or without a port.
    pub(super) fn at(address: &str) -> Self {
        let socket = || address.parse().map(|address: SocketAddr| address.ip());
        match address.parse().or_else(|_| socket()).map(|ip: IpAddr| ip.to_canonical()) {
            Ok(IpAddr::V4(ip)) => Self::V4(ip),
            Ok(IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
            Err(_) => Self::Other,
        }
    }
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
        assert_eq!(Peer::at("192.0.2.1"), Peer::V4(Ipv4Addr::new(192, 0, 2, 1)));
        for address in ["192.0.2.1:5000", "::ffff:192.0.2.1"] {
            assert_eq!(Peer::at(address), Peer::at("192.0.2.1"), "{address}");
        }
        assert_ne!(Peer::at("192.0.2.2"), Peer::at("192.0.2.1"));
        assert_eq!(Peer::at("2001:db8::1"), Peer::at("[2001:db8:0:0:ffff::2]:99"));
        assert_ne!(Peer::at("2001:db8::1"), Peer::at("2001:db8:0:1::1"));
        for address in ["unknown", "", "localhost"] {
            assert_eq!(Peer::at(address), Peer::Other, "{address}");
        }
    }
}
