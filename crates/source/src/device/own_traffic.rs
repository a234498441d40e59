//! The relay's own connections, which a capture must exclude, or it would relay its own traffic endlessly.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// The most addresses to exclude. A name may resolve to others each time, and the kernel's filters have up to 4096
/// instructions: an address takes up to 25.
const MAX_ADDRESSES: usize = 64;

/// The addresses that the relay's endpoint has resolved to, latest last.
#[derive(Debug, Default)]
pub(super) struct OwnTraffic {
    addresses: Vec<SocketAddr>,
}

impl OwnTraffic {
    /// Adds addresses. Earlier ones stay for a while, because connections to them may still be open; beyond
    /// [`MAX_ADDRESSES`], those that were found longest ago are forgotten. Returns whether any was new.
    pub(super) fn add(&mut self, found: &[SocketAddr]) -> bool {
        let mut changed = false;
        for address in found {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let known = self.addresses.iter().position(|known| *known == address);
            match known {
                Some(at) => _ = self.addresses.remove(at),
                None => changed = true,
            }
            self.addresses.push(address);
        }
        let excess = self.addresses.len().saturating_sub(MAX_ADDRESSES);
        self.addresses.drain(..excess);
        changed
    }

    /// The filter of the relay's connections alone. `None` if there are none.
    pub(super) fn exclusion(&self) -> Option<String> {
        exclusion(&self.addresses).map(|own| format!("not ({own})"))
    }

    /// The user's filter without the relay's connections. `None` if there is nothing to filter.
    pub(super) fn filter(&self, user: Option<&str>) -> Option<String> {
        match (user, self.exclusion()) {
            // The exclusion comes first: `mpls`, `pppoes` and others change the meaning of all that follows them. Without
            // parentheses, an `or` in the user's filter would let the relay's traffic in again.
            (Some(user), Some(exclusion)) => Some(format!("{exclusion} and ({user})")),
            (Some(user), None) => Some(user.to_owned()),
            (None, exclusion) => exclusion,
        }
    }

    /// What to filter with: the user's filter without the relay's connections. `compile` says whether a filter can be
    /// used; the user's can.
    ///
    /// # Errors
    /// That of the whole filter, if it is not due to the link type: without the exclusion, a capture would relay the
    /// relay's packets, and those of these packets, endlessly.
    pub(super) fn usable_filter<E>(
        &self,
        user: Option<&str>,
        mut compile: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<Option<String>, E> {
        let Some(exclusion) = self.exclusion() else { return Ok(user.map(str::to_owned)) };
        if compile(&exclusion).is_err() {
            // A link type without IP (USB, Bluetooth, …) carries no relay traffic.
            return Ok(user.map(str::to_owned));
        }
        let whole = self.filter(user).unwrap_or(exclusion);
        compile(&whole)?;
        Ok(Some(whole))
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
        insta::assert_snapshot!(filter(Some("arp or icmp"), &["192.0.2.1:7386"]).unwrap(), @"not ((ip dst host 192.0.2.1 and tcp dst port 7386) or (ip src host 192.0.2.1 and tcp src port 7386)) and (arp or icmp)");
        insta::assert_snapshot!(filter(None, &["[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "192.0.2.1:1"]).unwrap(), @"not ((ip6 dst host 2001:db8::1 and tcp dst port 1) or (ip6 src host 2001:db8::1 and tcp src port 1) or (ip dst host 192.0.2.1 and tcp dst port 1) or (ip src host 192.0.2.1 and tcp src port 1))");
    }

    #[test]
    fn known_addresses_are_not_a_change() {
        let mut own = OwnTraffic::default();
        let address = ["192.0.2.1:1".parse().unwrap()];
        assert_eq!([own.add(&address), own.add(&address)], [true, false]);
    }

    #[test]
    fn addresses_found_longest_ago_are_forgotten() {
        let mut own = OwnTraffic::default();
        let address = |last: usize| SocketAddr::from(([192, 0, 2, last as u8], 1));
        own.add(&[address(0), address(1)]);
        for last in 2..=MAX_ADDRESSES {
            // The first address is found again each time.
            assert!(own.add(&[address(0), address(last)]));
        }
        assert_eq!(own.addresses.len(), MAX_ADDRESSES);
        assert!(own.addresses.contains(&address(0)) && !own.addresses.contains(&address(1)));
        assert!(own.add(&[address(1)]), "a forgotten address is new");
    }

    #[test]
    fn the_exclusion_is_never_left_out_where_it_applies() {
        let mut own = OwnTraffic::default();
        own.add(&["192.0.2.1:1".parse().unwrap()]);
        let check = |user: Option<&str>, max_len: usize, expected: Result<Option<String>, usize>| {
            let usable = own.usable_filter(user, |filter| match filter.len() {
                len if len <= max_len => Ok(()),
                len => Err(len),
            });
            assert_eq!(usable, expected, "{user:?}, up to {max_len}");
        };
        let whole = own.filter(Some("tcp")).unwrap();
        check(Some("tcp"), 1000, Ok(Some(whole.clone())));
        check(None, 1000, Ok(own.exclusion()));
        // Together they are too complex.
        check(Some("tcp"), whole.len() - 1, Err(whole.len()));
        // The link type has no IP.
        check(Some("len > 9"), 10, Ok(Some("len > 9".to_owned())));
        check(None, 10, Ok(None));
    }
}
