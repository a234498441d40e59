//! The label values of `tzsp_packetstream_exporter`.

use std::net::IpAddr;

/// The type of an address. `multicast` is 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291, section 2.7). `private` is RFC
/// 1918, fc00::/7 (RFC 4193) and fe80::/10 (RFC 4291, section 2.5.6). All others are `public`, even loopback.
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

/// The protocol's name in .NET's `ProtocolType`, in lower case; `unknown` if it has none.
pub(super) const fn protocol(number: u8) -> &'static str {
    match known_protocol(number) {
        Some(name) => name,
        None => "unknown",
    }
}

/// The number under which a protocol is counted. Protocols without a name share one, because they share a series.
#[inline]
pub(super) fn series_protocol(number: u8) -> u8 {
    SERIES_PROTOCOL[usize::from(number)]
}

/// A protocol number that never gets a name: RFC 3692 reserves it for experiments.
const UNNAMED: u8 = 254;

static SERIES_PROTOCOL: [u8; 256] = {
    let (mut numbers, mut number) = ([UNNAMED; 256], 0);
    while number < numbers.len() {
        if known_protocol(number as u8).is_some() {
            numbers[number] = number as u8;
        }
        number += 1;
    }
    numbers
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
    fn address_types_follow_the_networks() {
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
    fn each_name_has_one_number() {
        for (a, b) in (0..=u8::MAX).flat_map(|a| (0..=u8::MAX).map(move |b| (a, b))) {
            let same_series = series_protocol(a) == series_protocol(b);
            assert_eq!(same_series, protocol(a) == protocol(b), "{a} {b}");
        }
        assert_eq!([6, 89, 132, 254].map(series_protocol), [6, UNNAMED, UNNAMED, UNNAMED]);
    }
}
