//! The relay's own traffic, which a capture must leave out: it would feed itself.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::handle::{DeviceError, Handle};

/// The addresses that the relay's endpoint resolves to at present. They may change while a capture runs: then every
/// device sets its filter again.
#[derive(Debug, Default)]
pub struct OwnTraffic {
    addresses: Mutex<Vec<SocketAddr>>,
    /// Grows with every change.
    generation: AtomicU64,
}

impl OwnTraffic {
    /// Nothing to leave out, so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The endpoint resolves to these addresses now. Those of before stay left out: connections to them may live on.
    pub fn add(&self, found: &[SocketAddr]) {
        let mut addresses = self.lock();
        let before = addresses.len();
        for address in found {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() != before {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Which state of the addresses this is.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Sets the handle's filter again, where the addresses have changed since it was set.
    pub(super) fn apply(&self, handle: &mut Handle) -> Result<(), DeviceError> {
        if handle.generation() == self.generation() { Ok(()) } else { handle.set_filter(self) }
    }

    /// The user's filter, and not the relay's connections: TCP to or from one of the endpoint's addresses and its port.
    /// `None` where there is nothing to filter.
    pub(super) fn filter(&self, user: Option<&str>) -> Option<String> {
        let own = exclusion(&self.lock());
        match (user, own) {
            (None, None) => None,
            (Some(user), None) => Some(user.to_owned()),
            (None, Some(own)) => Some(format!("not ({own})")),
            // Without parentheses, an `or` in the user's filter would let the relay's traffic in again.
            (Some(user), Some(own)) => Some(format!("({user}) and not ({own})")),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        let own = OwnTraffic::new();
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
    fn a_generation_is_a_change() {
        let own = OwnTraffic::new();
        own.add(&["192.0.2.1:1".parse().unwrap()]);
        own.add(&["192.0.2.1:1".parse().unwrap()]);
        assert_eq!(own.generation(), 1);
    }
}
