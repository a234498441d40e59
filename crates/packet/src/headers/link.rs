//! From a link type to the network header.
//!
//! <https://www.tcpdump.org/linktypes.html> describes the layouts. etherparse reads Ethernet. It has no parser for the
//! others except LINUX_SLL, for which it rejects most device types, including loopback.

use etherparse::{EtherType, Ethernet2HeaderSlice};

use super::address_family::AddressFamily::{self, IPv4, IPv6, Other};
use super::network_start::NetworkStart;
use super::{ether, wireless};
use crate::LinkType;
use crate::bytes::{array, be_u16, be_u32, byte, le_u16};

/// Classical IP over ATM and RFC 1483: begins with an LLC header.
const ATM_RFC1483: LinkType = LinkType(100);
/// The same on Linux.
const ATM_CLIP: LinkType = LinkType(106);
/// The two numbers of `DLT_RAW`, that of OpenBSD and that of other systems. Some programs write them into files.
const RAW_DLT: [LinkType; 2] = [LinkType(12), LinkType(14)];
/// FDDI: 13 bytes with MAC addresses, then LLC.
const FDDI: LinkType = LinkType(10);
/// PPP after a byte with the direction.
const PPP_WITH_DIR: LinkType = LinkType(204);
/// PPP as pppd passes it to filters, with the direction instead of HDLC's address byte.
const PPP_PPPD: LinkType = LinkType(166);
/// 802.11 or Ethernet after CACE per-packet information.
const PPI: LinkType = LinkType(192);

/// The result of parsing the link-layer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The network protocol.
    pub(super) family: AddressFamily,
    /// Offset of the network header.
    pub(super) at: usize,
    /// Upper bound for the offset at which the network packet ends and padding begins; `usize::MAX` if not known.
    pub(super) end: usize,
    /// Index of the interface, if the link type has it.
    pub(super) interface: Option<u32>,
}

const NO_NETWORK: Link = Link { family: Other, at: 0, end: usize::MAX, interface: None };

impl From<Option<NetworkStart>> for Link {
    #[inline]
    fn from(start: Option<NetworkStart>) -> Self {
        start.map_or(NO_NETWORK, |NetworkStart { family, at, end }| Self { family, at, end, interface: None })
    }
}

impl Link {
    /// Parses the link-layer headers of a packet.
    #[inline]
    pub(super) fn parse(link_type: LinkType, bytes: &[u8]) -> Self {
        if link_type != LinkType::ETHERNET {
            return parse_other(link_type, bytes);
        }
        // Most packets take this path. It is separate so that it can be inlined.
        let Ok(header) = Ethernet2HeaderSlice::from_slice(bytes) else { return NO_NETWORK };
        match header.ether_type() {
            EtherType::IPV4 => Some(NetworkStart::new(IPv4, 14)).into(),
            EtherType::IPV6 => Some(NetworkStart::new(IPv6, 14)).into(),
            other => ether::by_type(bytes, 14, other).into(),
        }
    }
}

fn parse_other(link_type: LinkType, bytes: &[u8]) -> Link {
    let start = match link_type {
        LinkType::RAW => NetworkStart::by_version(bytes, 0),
        raw if RAW_DLT.contains(&raw) => NetworkStart::by_version(bytes, 0),
        LinkType::IPV4 => Some(NetworkStart::new(IPv4, 0)),
        LinkType::IPV6 => Some(NetworkStart::new(IPv6, 0)),
        LinkType::NULL => bsd_loopback(bytes, false),
        LinkType::LOOP => bsd_loopback(bytes, true),
        LinkType::LINUX_SLL => {
            be_u16(bytes, 14).and_then(|protocol| cooked(bytes, 16, protocol, be_u16(bytes, 2)?))
        }
        LinkType::LINUX_SLL2 => {
            let start = be_u16(bytes, 0).and_then(|protocol| cooked(bytes, 20, protocol, be_u16(bytes, 8)?));
            return Link { interface: be_u32(bytes, 4), ..start.into() };
        }
        LinkType::PPP | LinkType::PPP_HDLC => ppp_link(bytes, 0),
        PPP_WITH_DIR => ppp_link(bytes, 1),
        PPP_PPPD => ether::ppp(bytes, 2),
        LinkType::PPP_ETHER => ether::pppoe(bytes, 0),
        LinkType::C_HDLC => cisco_hdlc(bytes, 0),
        LinkType::IEEE802_11 => wireless::data_frame(bytes, 0, false),
        LinkType::IEEE802_11_RADIOTAP => wireless::radiotap(bytes, 0),
        LinkType::IEEE802_11_PRISM => wireless::prism(bytes),
        LinkType::IEEE802_11_AVS => wireless::avs(bytes),
        PPI => wireless::ppi(bytes),
        LinkType::NFLOG => nflog(bytes),
        ATM_RFC1483 | ATM_CLIP => ether::llc(bytes, 0),
        FDDI => ether::llc(bytes, 13),
        _ => None,
    };
    start.into()
}

/// BSD loopback: a four-byte address family, in network byte order (LOOP) or in that of the capturing host (NULL), which
/// shows in the position of the zero bytes. IPv6's number differs between the BSDs.
fn bsd_loopback(bytes: &[u8], network_order: bool) -> Option<NetworkStart> {
    let word = array(bytes, 0)?;
    let family = match u32::from_le_bytes(word) {
        small if small <= 0xffff && !network_order => small,
        _ => u32::from_be_bytes(word),
    };
    match family {
        2 => Some(NetworkStart::new(IPv4, 4)),
        24 | 28 | 30 => Some(NetworkStart::new(IPv6, 4)),
        // Some programs write an EtherType instead. These are larger than all address families.
        _ => {
            let ether_type = u16::try_from(family).ok().filter(|&family| family >= 0x600)?;
            ether::by_type(bytes, 4, EtherType(ether_type))
        }
    }
}

/// Linux "cooked" capture. The protocol is an EtherType, except for some device types and some values below 0x600.
fn cooked(bytes: &[u8], at: usize, protocol: u16, device_type: u16) -> Option<NetworkStart> {
    /// `ARPHRD_IPGRE` and `ARPHRD_NETLINK`, which use the protocol field for something else.
    const NOT_A_PROTOCOL: [u16; 2] = [778, 824];
    const ARPHRD_IEEE80211: u16 = 801;
    const ARPHRD_IEEE80211_RADIOTAP: u16 = 803;
    /// `ETH_P_802_2`: an LLC header follows.
    const LLC: u16 = 4;
    match (device_type, protocol) {
        (device_type, _) if NOT_A_PROTOCOL.contains(&device_type) => None,
        (ARPHRD_IEEE80211, _) => wireless::data_frame(bytes, at, false),
        (ARPHRD_IEEE80211_RADIOTAP, _) => wireless::radiotap(bytes, at),
        (_, LLC) => ether::llc(bytes, at),
        (_, 0..0x600) => None,
        (_, protocol) => ether::by_type(bytes, at, EtherType(protocol)),
    }
}

/// PPP on a serial line. HDLC's address and control bytes may be present (RFC 1662, section 3.1) or compressed away.
/// Cisco's framing has address bytes of its own.
fn ppp_link(bytes: &[u8], at: usize) -> Option<NetworkStart> {
    match array(bytes, at)? {
        [0xff, 0x03] => ether::ppp(bytes, at + 2),
        [0x0f | 0x8f, 0x00] => cisco_hdlc(bytes, at),
        _ => ether::ppp(bytes, at),
    }
}

/// Cisco HDLC: address, control, EtherType.
fn cisco_hdlc(bytes: &[u8], at: usize) -> Option<NetworkStart> {
    ether::by_type(bytes, at + 4, EtherType(be_u16(bytes, at + 2)?))
}

/// Linux netfilter log: address family, version, resource, then attributes in host byte order. An attribute is a length
/// that includes its four-byte header, a type, a value, and padding to four bytes.
fn nflog(bytes: &[u8]) -> Option<NetworkStart> {
    const PAYLOAD: u16 = 9;
    /// Without the flags `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    const TYPE_MASK: u16 = 0x3fff;
    let mut at = 4;
    loop {
        let (len, kind) = (le_u16(bytes, at)?, le_u16(bytes, at + 2)?);
        if kind & TYPE_MASK == PAYLOAD {
            return match byte(bytes, 0)? {
                2 => Some(NetworkStart::new(IPv4, at + 4)),
                10 => Some(NetworkStart::new(IPv6, at + 4)),
                _ => None,
            };
        }
        if len < 4 {
            return None;
        }
        at += usize::from(len).next_multiple_of(4);
    }
}
