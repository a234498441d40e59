//! From an EtherType to the network header: VLAN tags, MPLS, PPPoE, PPP, LLC.
//!
//! Ethernet headers and VLAN tags are read by etherparse. It has no parser for the others.

use etherparse::{EtherType, Ethernet2HeaderSlice, SingleVlanHeaderSlice};

use super::address_family::AddressFamily::{IPv4, IPv6};
use super::network_start::NetworkStart;
use crate::bytes::{array, be_u16, byte};

/// A vendor's EtherType for VLAN tags.
const QINQ_9200: EtherType = EtherType(0x9200);
const MPLS: EtherType = EtherType(0x8847);
const MPLS_UPSTREAM: EtherType = EtherType(0x8848);
const PPPOE_SESSION: EtherType = EtherType(0x8864);
/// IEEE 802.1ah, "MAC in MAC": a service tag, then another Ethernet header.
const PROVIDER_BACKBONE: EtherType = EtherType(0x88e7);
/// Cisco VN-Tag.
const VN_TAG: EtherType = EtherType(0x8926);
/// Cisco MetaData: a security group tag.
const CISCO_METADATA: EtherType = EtherType(0x8909);
/// High-availability seamless redundancy (IEC 62439-3).
const HSR: EtherType = EtherType(0x892f);
/// LLC in frames that are longer than an IEEE 802.3 length field can express.
const JUMBO_LLC: EtherType = EtherType(0x8870);

/// The largest value that is a length rather than a type (IEEE 802.3, clause 3.2.6).
const MAX_LENGTH: u16 = 1500;

/// The network header in what follows an EtherType, at `at`.
///
/// Tags may be nested to any depth. Each takes at least four bytes, so the loop ends with the packet.
pub(super) fn by_type(bytes: &[u8], mut at: usize, mut ether_type: EtherType) -> Option<NetworkStart> {
    loop {
        // Offset of the next EtherType in this header.
        let next = match ether_type {
            EtherType::IPV4 => return Some(NetworkStart::new(IPv4, at)),
            EtherType::IPV6 => return Some(NetworkStart::new(IPv6, at)),
            EtherType::VLAN_TAGGED_FRAME
            | EtherType::PROVIDER_BRIDGING
            | EtherType::VLAN_DOUBLE_TAGGED_FRAME
            | QINQ_9200 => {
                let tag = SingleVlanHeaderSlice::from_slice(bytes.get(at..)?).ok()?;
                ether_type = tag.ether_type();
                at += tag.slice().len();
                continue;
            }
            VN_TAG | HSR => 4,
            CISCO_METADATA => 6,
            PROVIDER_BACKBONE => 16,
            PPPOE_SESSION => return pppoe(bytes, at),
            MPLS | MPLS_UPSTREAM => return mpls(bytes, at),
            JUMBO_LLC => return llc(bytes, at),
            EtherType(len @ 0..=MAX_LENGTH) => {
                return llc(bytes, at).map(|start| start.bounded(at + usize::from(len)));
            }
            _ => return None,
        };
        ether_type = EtherType(be_u16(bytes, at + next)?);
        at += next + 2;
    }
}

/// The network header in the Ethernet frame at `at`.
pub(super) fn ethernet(bytes: &[u8], at: usize) -> Option<NetworkStart> {
    let header = Ethernet2HeaderSlice::from_slice(bytes.get(at..)?).ok()?;
    by_type(bytes, at + header.slice().len(), header.ether_type())
}

/// PPPoE: version and type, code, session, length, PPP protocol (RFC 2516, section 4).
pub(super) fn pppoe(bytes: &[u8], at: usize) -> Option<NetworkStart> {
    const SESSION: u8 = 0;
    if byte(bytes, at + 1)? != SESSION {
        return None;
    }
    let len = usize::from(be_u16(bytes, at + 4)?);
    ppp(bytes, at + 6).map(|start| start.bounded(at + 6 + len))
}

/// PPP from its protocol field on. The field has two bytes, or one if compressed: only its last byte is odd (RFC 1661,
/// section 2).
pub(super) fn ppp(bytes: &[u8], at: usize) -> Option<NetworkStart> {
    let first = byte(bytes, at)?;
    let (protocol, at) =
        if first & 1 == 1 { (u16::from(first), at + 1) } else { (be_u16(bytes, at)?, at + 2) };
    match protocol {
        0x0021 => Some(NetworkStart::new(IPv4, at)),
        0x0057 => Some(NetworkStart::new(IPv6, at)),
        0x0281 | 0x0283 => mpls(bytes, at),
        // Bridged Ethernet: flags and MAC type, then the frame (RFC 3518, section 4.2).
        0x0031 if byte(bytes, at + 1)? == 1 => ethernet(bytes, at + 2),
        _ => None,
    }
}

/// A stack of MPLS labels (RFC 3032, section 2.1).
///
/// Nothing names the protocol after the last label. The usual heuristic is the first nibble: an IP version, 0 for a
/// pseudowire's control word (RFC 4385, section 3), otherwise the first byte of an Ethernet address.
fn mpls(bytes: &[u8], mut at: usize) -> Option<NetworkStart> {
    loop {
        let [_, _, third, _] = array(bytes, at)?;
        at += 4;
        let bottom_of_stack = third & 1 == 1;
        if bottom_of_stack {
            break;
        }
    }
    match byte(bytes, at)? >> 4 {
        4 | 6 => NetworkStart::by_version(bytes, at),
        0 => ethernet(bytes, at + 4).or_else(|| ethernet(bytes, at)),
        // A pseudowire's associated channel, which carries control messages only (RFC 5085).
        1 => None,
        _ => ethernet(bytes, at),
    }
}

/// IEEE 802.2 LLC: SNAP with an EtherType (RFC 1042), or IP by its own service access point.
pub(super) fn llc(bytes: &[u8], at: usize) -> Option<NetworkStart> {
    const UNNUMBERED_INFORMATION: u8 = 0x03;
    match array(bytes, at)? {
        [0xaa, 0xaa, UNNUMBERED_INFORMATION] => {
            let [organization @ .., high, low] = array::<5>(bytes, at + 3)?;
            match (organization, u16::from_be_bytes([high, low])) {
                // Encapsulated Ethernet, and the same translated by a bridge (IEEE 802.1H).
                ([0, 0, 0] | [0, 0, 0xf8], ether_type) => by_type(bytes, at + 8, EtherType(ether_type)),
                // Bridged Ethernet, after two bytes of padding (RFC 2684, section 5.2).
                ([0, 0x80, 0xc2], 1 | 7) => ethernet(bytes, at + 10),
                _ => None,
            }
        }
        [0x06, 0x06, UNNUMBERED_INFORMATION] => Some(NetworkStart::new(IPv4, at + 3)),
        _ => None,
    }
}
