//! Link types: the format of a captured packet's first header.

use std::fmt;

/// A link-layer header type, by its number in capture files (`LINKTYPE_*`, <https://www.tcpdump.org/linktypes.html>).
///
/// Live libpcap handles use `DLT_*` numbers, a few of which differ: see [`LinkType::from_dlt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkType(pub u32);

impl LinkType {
    /// BSD loopback, with an address family in the byte order of the capturing host.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// PPP.
    pub const PPP: Self = Self(9);
    /// PPP in HDLC-like framing (RFC 1662).
    pub const PPP_HDLC: Self = Self(50);
    /// PPP over Ethernet, beginning with the PPPoE header.
    pub const PPP_ETHER: Self = Self(51);
    /// IPv4 or IPv6, according to the version field.
    pub const RAW: Self = Self(101);
    /// Cisco HDLC.
    pub const C_HDLC: Self = Self(104);
    /// IEEE 802.11.
    pub const IEEE802_11: Self = Self(105);
    /// OpenBSD loopback, with an address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux "cooked" capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// Prism header, then 802.11.
    pub const IEEE802_11_PRISM: Self = Self(119);
    /// Radiotap header, then 802.11.
    pub const IEEE802_11_RADIOTAP: Self = Self(127);
    /// AVS header, then 802.11.
    pub const IEEE802_11_AVS: Self = Self(163);
    /// IPv4 only.
    pub const IPV4: Self = Self(228);
    /// IPv6 only.
    pub const IPV6: Self = Self(229);
    /// Linux netfilter log messages.
    pub const NFLOG: Self = Self(239);
    /// Linux "cooked" capture, version 2, which has the interface's index.
    pub const LINUX_SLL2: Self = Self(276);

    /// From the `DLT_*` of a libpcap handle on Linux. The two numbers are the same, except for types whose DLT differs
    /// between operating systems.
    #[must_use]
    pub const fn from_dlt(dlt: u32) -> Self {
        match dlt {
            // DLT_RAW is 12 on Linux and 14 on OpenBSD.
            12 | 14 => Self::RAW,
            // DLT_ATM_RFC1483 and DLT_PPP_BSDOS.
            11 => Self(100),
            16 => Self(103),
            other => Self(other),
        }
    }

    /// The `DLT_*` of a libpcap handle on Linux: the inverse of [`LinkType::from_dlt`].
    #[must_use]
    pub const fn to_dlt(self) -> u32 {
        match self.0 {
            101 => 12,
            100 => 11,
            103 => 16,
            other => other,
        }
    }

    /// The name that `tcpdump -L` prints; `None` for types without a constant above.
    const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NULL => "NULL",
            Self::ETHERNET => "EN10MB",
            Self::PPP => "PPP",
            Self::PPP_HDLC => "PPP_SERIAL",
            Self::PPP_ETHER => "PPP_ETHER",
            Self::RAW => "RAW",
            Self::C_HDLC => "C_HDLC",
            Self::IEEE802_11 => "IEEE802_11",
            Self::LOOP => "LOOP",
            Self::LINUX_SLL => "LINUX_SLL",
            Self::IEEE802_11_PRISM => "PRISM_HEADER",
            Self::IEEE802_11_RADIOTAP => "IEEE802_11_RADIO",
            Self::IEEE802_11_AVS => "IEEE802_11_RADIO_AVS",
            Self::IPV4 => "IPV4",
            Self::IPV6 => "IPV6",
            Self::NFLOG => "NFLOG",
            Self::LINUX_SLL2 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "link type {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dlt_numbers_are_converted_in_both_directions() {
        for (dlt, link_type) in
            [(1, LinkType::ETHERNET), (12, LinkType::RAW), (11, LinkType(100)), (16, LinkType(103))]
        {
            assert_eq!(LinkType::from_dlt(dlt), link_type);
            assert_eq!(link_type.to_dlt(), dlt);
        }
        assert_eq!(LinkType::from_dlt(14), LinkType::RAW);
    }

    #[test]
    fn unnamed_types_are_shown_by_number() {
        assert_eq!(
            (LinkType::RAW.to_string(), LinkType(147).to_string()),
            ("RAW".into(), "link type 147".into())
        );
    }
}
