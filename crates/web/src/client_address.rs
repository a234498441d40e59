//! Who counts as one client, as far as connections are concerned.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the part of an IPv6 address that its user does not choose: the first 64 bits (RFC 4291, section
/// 2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientAddress(IpAddr);

impl ClientAddress {
    #[cfg(test)]
    pub(crate) const LOCAL: Self = Self(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        // A socket for both families shows IPv4 addresses as mapped ones.
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_network_is_one_client() {
        let at = |address: &str| ClientAddress::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.2"), at("192.0.2.1"));
        assert_ne!(at("::ffff:192.0.2.2"), at("::ffff:192.0.2.1"));
        assert_eq!(at("2001:db8::1"), at("2001:db8:0:0:ffff::2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
    }
}
