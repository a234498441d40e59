//! The relay's own connections, which a capture must exclude, or it would relay its own traffic endlessly.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// The addresses that the relay's endpoint has resolved to so far.
#[derive(Debug, Default)]
pub(super) struct OwnTraffic {
    addresses: Vec<SocketAddr>,
}

impl OwnTraffic {
    /// Adds addresses; earlier ones stay, because connections to them may still be open. Returns whether any was new.
    pub(super) fn add(&mut self, found: &[SocketAddr]) -> bool {
        let before = self.addresses.len();
        for address in found {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
        self.addresses.len() != before
    }

    /// The user's filter without the relay's connections. `None` if there is nothing to filter.
    pub(super) fn filter(&self, user: Option<&str>) -> Option<String> {
        match (user, exclusion(&self.addresses)) {
            (None, None) => None,
            (Some(user), None) => Some(user.to_owned()),
            (None, Some(own)) => Some(format!("not ({own})")),
            // Without parentheses, an `or` in the user's filter would let the relay's traffic in again.
            (Some(user), Some(own)) => Some(format!("({user}) and not ({own})")),
        }
    }
}

/// A pcap-filter expression for the connections to these addresses, both directions.
fn exclusion(addresses: &[SocketAddr]) -> Option<String> {
    let mut text = String::new();
    for address in addresses {
        let protocol = match address.ip() {
            IpAddr::V4(_) => "ip",
            IpAddr::V6(_) => "ip6",
        };
        let (ip, port) = (address.ip(), address.port());
        let or = if text.is_empty() { "" } else { " or " };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{or}({protocol} dst host {ip} and tcp dst port {port}) or ({protocol} src host {ip} and tcp src port {port})"
        );
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(user: Option<&str>, addresses: &[&str]) -> Option<String> {
        let mut own = OwnTraffic::default();
        own.add(&addresses.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        own.filter(user)
    }

    #[test]
    fn the_users_filter_keeps_its_meaning() {
        assert_eq!(filter(None, &[]), None);
        assert_eq!(filter(Some("arp or icmp"), &[]).as_deref(), Some("arp or icmp"));
        insta::assert_snapshot!(filter(Some("arp or icmp"), &["192.0.2.1:7386"]).unwrap(), @"(arp or icmp) and not ((ip dst host 192.0.2.1 and tcp dst port 7386) or (ip src host 192.0.2.1 and tcp src port 7386))");
        insta::assert_snapshot!(filter(None, &["[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "192.0.2.1:1"]).unwrap(), @"not ((ip6 dst host 2001:db8::1 and tcp dst port 1) or (ip6 src host 2001:db8::1 and tcp src port 1) or (ip dst host 192.0.2.1 and tcp dst port 1) or (ip src host 192.0.2.1 and tcp src port 1))");
    }

    #[test]
    fn known_addresses_are_not_a_change() {
        let mut own = OwnTraffic::default();
        let address = ["192.0.2.1:1".parse().unwrap()];
        assert_eq!([own.add(&address), own.add(&address)], [true, false]);
    }
}
