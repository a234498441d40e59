//! From a link type to the network header.
//!
//! The layouts are those of <https://www.tcpdump.org/linktypes.html>, which names a document for each.

use super::AddressFamily::{self, IPv4, IPv6, Other};
use super::{be16, be32, byte, chunk, ether, wireless};
use crate::LinkType;

/// Classical IP over ATM and RFC 1483: an LLC header, without anything in front.
const ATM_RFC1483: LinkType = LinkType(100);
/// The same, as Linux calls it.
const ATM_CLIP: LinkType = LinkType(106);
/// Raw IP, by the number that OpenBSD's and everybody else's `DLT_RAW` have; some write it into files.
const RAW_DLT: [LinkType; 2] = [LinkType(12), LinkType(14)];
/// FDDI: 13 bytes with MAC addresses, then LLC.
const FDDI: LinkType = LinkType(10);
/// PPP, with a byte in front that says who sent it.
const PPP_WITH_DIR: LinkType = LinkType(204);
/// PPP as pppd hands it to filters: the direction stands in the place of the address byte.
const PPP_PPPD: LinkType = LinkType(166);
/// 802.11 behind CACE's per-packet information.
const PPI: LinkType = LinkType(192);

/// The link layer, looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The network protocol, as the link layer names it.
    pub(super) family: AddressFamily,
    /// Where the network header begins.
    pub(super) at: usize,
    /// Where the network packet ends at the latest, if the link layer says how much it carries: padding comes behind.
    pub(super) end: usize,
    /// The index of the interface, where the link layer tells it.
    pub(super) interface: Option<u32>,
}

/// Where the network header of a packet begins, and which one it is.
#[inline]
pub(super) fn peel(link_type: LinkType, bytes: &[u8]) -> Link {
    if link_type == LinkType::ETHERNET {
        // Nearly every packet: worth a path of its own, small enough to be inlined.
        return match be16(bytes, 12) {
            Some(0x0800) => Link { family: IPv4, at: 14, end: usize::MAX, interface: None },
            Some(0x86dd) => Link { family: IPv6, at: 14, end: usize::MAX, interface: None },
            Some(other) => found(ether::by_type(bytes, 14, other)),
            None => NOTHING,
        };
    }
    peel_other(link_type, bytes)
}

/// A network header; `None` where there is none that we know.
pub(super) type Found = Option<Network>;

/// Which network header it is, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) family: AddressFamily,
    pub(super) at: usize,
    pub(super) end: usize,
}

/// A network header at `at`, whose packet ends where the frame does.
pub(super) fn network(family: AddressFamily, at: usize) -> Found {
    Some(Network { family, at, end: usize::MAX })
}

const NOTHING: Link = Link { family: Other, at: 0, end: usize::MAX, interface: None };

#[inline]
fn found(network: Found) -> Link {
    network.map_or(NOTHING, |Network { family, at, end }| Link { family, at, end, interface: None })
}

fn peel_other(link_type: LinkType, bytes: &[u8]) -> Link {
    let header = match link_type {
        LinkType::RAW => by_version(bytes, 0),
        raw if RAW_DLT.contains(&raw) => by_version(bytes, 0),
        LinkType::IPV4 => network(IPv4, 0),
        LinkType::IPV6 => network(IPv6, 0),
        LinkType::NULL => bsd_loopback(bytes, false),
        LinkType::LOOP => bsd_loopback(bytes, true),
        LinkType::LINUX_SLL => {
            be16(bytes, 14).and_then(|protocol| cooked(bytes, 16, protocol, be16(bytes, 2)?))
        }
        LinkType::LINUX_SLL2 => {
            let header = be16(bytes, 0).and_then(|protocol| cooked(bytes, 20, protocol, be16(bytes, 8)?));
            return Link { interface: be32(bytes, 4), ..found(header) };
        }
        LinkType::PPP | LinkType::PPP_HDLC => ppp_link(bytes, 0),
        PPP_WITH_DIR => ppp_link(bytes, 1),
        PPP_PPPD => ether::ppp(bytes, 2),
        LinkType::PPP_ETHER => ether::pppoe(bytes, 0),
        LinkType::C_HDLC => be16(bytes, 2).and_then(|protocol| ether::by_type(bytes, 4, protocol)),
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
    found(header)
}

/// IP without anything in front: the version nibble tells.
pub(super) fn by_version(bytes: &[u8], at: usize) -> Found {
    match byte(bytes, at)? >> 4 {
        4 => network(IPv4, at),
        6 => network(IPv6, at),
        _ => None,
    }
}

/// BSD loopback: four bytes with an address family, in the byte order of the host that captured (NULL) or in network byte
/// order (LOOP). The family of IPv6 differs between the BSDs; the kinds of host order are told apart by the zeros.
fn bsd_loopback(bytes: &[u8], network_order: bool) -> Found {
    let word = *chunk::<4>(bytes, 0)?;
    let family = match u32::from_le_bytes(word) {
        small if small <= 0xffff && !network_order => small,
        _ => u32::from_be_bytes(word),
    };
    match family {
        2 => network(IPv4, 4),
        24 | 28 | 30 => network(IPv6, 4),
        // Some write an EtherType here, which no address family comes near to.
        _ => ether::by_type(bytes, 4, u16::try_from(family).ok().filter(|&family| family >= 0x600)?),
    }
}

/// Linux "cooked" capture: the protocol is an EtherType, but for a few kinds of device and a few values that never are one.
fn cooked(bytes: &[u8], at: usize, protocol: u16, device_kind: u16) -> Found {
    /// `ARPHRD_IPGRE`, `ARPHRD_NETLINK`: what stands where the protocol should is something else.
    const NOT_A_PROTOCOL: [u16; 2] = [778, 824];
    const ARPHRD_IEEE80211: u16 = 801;
    const ARPHRD_IEEE80211_RADIOTAP: u16 = 803;
    /// `ETH_P_802_2`: an LLC header follows.
    const LLC: u16 = 4;
    match (device_kind, protocol) {
        (kind, _) if NOT_A_PROTOCOL.contains(&kind) => None,
        (ARPHRD_IEEE80211, _) => wireless::data_frame(bytes, at, false),
        (ARPHRD_IEEE80211_RADIOTAP, _) => wireless::radiotap(bytes, at),
        (_, LLC) => ether::llc(bytes, at),
        (_, 0..0x600) => None,
        (_, protocol) => ether::by_type(bytes, at, protocol),
    }
}

/// PPP on a line: HDLC's address and control bytes may stand in front (RFC 1662, section 3.1) or have been negotiated away;
/// Cisco's own framing is told by its address byte.
fn ppp_link(bytes: &[u8], at: usize) -> Found {
    match (byte(bytes, at)?, byte(bytes, at + 1)?) {
        (0xff, 0x03) => ether::ppp(bytes, at + 2),
        (0x0f | 0x8f, 0x00) => ether::by_type(bytes, at + 4, be16(bytes, at + 2)?),
        _ => ether::ppp(bytes, at),
    }
}

/// Linux netfilter log: address family, version, resource, then attributes in host byte order: a length that includes its
/// own four bytes, a type, a value, padding to four.
fn nflog(bytes: &[u8]) -> Found {
    const PAYLOAD: u16 = 9;
    let mut at = 4;
    loop {
        let header = *chunk::<4>(bytes, at)?;
        let (len, kind) =
            (u16::from_le_bytes([header[0], header[1]]), u16::from_le_bytes([header[2], header[3]]));
        // The two upper bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        if kind & 0x3fff == PAYLOAD {
            return match byte(bytes, 0)? {
                2 => network(IPv4, at + 4),
                10 => network(IPv6, at + 4),
                _ => None,
            };
        }
        if len < 4 {
            return None;
        }
        at += usize::from(len).next_multiple_of(4);
    }
}
