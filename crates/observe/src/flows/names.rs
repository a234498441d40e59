//! What `tzsp_packetstream_exporter` calls things in its labels.

use std::net::IpAddr;

/// What kind of address it is: `multicast` is 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291, section 2.7), `private` are
/// RFC 1918's networks, fc00::/7 (RFC 4193) and fe80::/10 (RFC 4291, section 2.5.6), and all others are `public`, even
/// loopback's.
pub(super) const fn address_type(address: IpAddr) -> &'static str {
    let (multicast, private) = match address {
        IpAddr::V4(address) => (address.is_multicast(), address.is_private()),
        IpAddr::V6(address) => {
            (address.is_multicast(), address.is_unique_local() || address.is_unicast_link_local())
        }
    };
    if multicast {
        "multicast"
    } else if private {
        "private"
    } else {
        "public"
    }
}

/// The protocol, by the name that .NET's `ProtocolType` has for it, in lower case; `unknown` if it has none.
pub(super) const fn protocol(number: u8) -> &'static str {
    match known_protocol(number) {
        Some(name) => name,
        None => "unknown",
    }
}

/// The number that a protocol is counted by: all that have no name share one, for they share a series.
#[inline]
pub(super) fn protocol_of_series(number: u8) -> u8 {
    OF_SERIES[usize::from(number)]
}

/// A number without a name, and it will not get one: RFC 3692 keeps it for experiments.
const NAMELESS: u8 = 254;

static OF_SERIES: [u8; 256] = {
    let (mut of_series, mut number) = ([NAMELESS; 256], 0);
    while number < of_series.len() {
        if known_protocol(number as u8).is_some() {
            of_series[number] = number as u8;
        }
        number += 1;
    }
    of_series
};

const fn known_protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "ip",
        1 => "icmp",
        2 => "igmp",
        3 => "ggp",
        4 => "ipv4",
        6 => "tcp",
        12 => "pup",
        17 => "udp",
        22 => "idp",
        41 => "ipv6",
        43 => "ipv6routingheader",
        44 => "ipv6fragmentheader",
        50 => "ipsecencapsulatingsecuritypayload",
        51 => "ipsecauthenticationheader",
        58 => "icmpv6",
        59 => "ipv6nonextheader",
        60 => "ipv6destinationoptions",
        77 => "nd",
        255 => "raw",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_end_where_their_networks_end() {
        let check = |expected, addresses: &[&str]| {
            for address in addresses {
                assert_eq!(address_type(address.parse().unwrap()), expected, "{address}");
            }
        };
        check("multicast", &["224.0.0.0", "239.255.255.255", "ff00::", "ff02::1"]);
        check("private", &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.255.255"]);
        check("private", &["fc00::", "fdff:ffff::1", "fe80::1", "febf::1"]);
        check(
            "public",
            &["9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.0.1", "127.0.0.1"],
        );
        check("public", &["223.255.255.255", "240.0.0.0", "169.254.0.1", "255.255.255.255", "0.0.0.0"]);
        check("public", &["::1", "::", "2001:db8::1", "fbff::1", "fec0::1", "::ffff:10.0.0.1"]);
    }

    #[test]
    fn a_name_has_one_number() {
        for (a, b) in (0..=u8::MAX).flat_map(|a| (0..=u8::MAX).map(move |b| (a, b))) {
            let same_series = protocol_of_series(a) == protocol_of_series(b);
            assert_eq!(same_series, protocol(a) == protocol(b), "{a} {b}");
        }
        assert_eq!([6, 89, 132, 254].map(protocol_of_series), [6, NAMELESS, NAMELESS, NAMELESS]);
    }
}
