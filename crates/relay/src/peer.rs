//! Who counts as one peer, as far as limits are concerned.

use std::net::{IpAddr, Ipv4Addr};

use zmtp::PublicKey;

/// The owner of a key; without keys an IPv4 address, or the part of an IPv6 address that its user does not choose (the
/// first 64 bits; RFC 4291, section 2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The owner of a key.
    Key(PublicKey),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 network of 64 bits.
    V6([u16; 4]),
    /// A process of this host, over a Unix domain socket; and all peers beyond those that are remembered.
    Other,
}

impl Peer {
    /// The peer at an address; none for a process of this host.
    #[must_use]
    pub fn at(address: Option<IpAddr>) -> Self {
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
