//! From an EtherType to the network header: tags, labels, PPPoE, LLC.

use etherparse::EtherType;

use super::AddressFamily::{IPv4, IPv6};
use super::link::{Found, Network, by_version, network};
use super::{be16, byte, chunk};

/// VLAN tags by another vendor's number.
const QINQ_9200: EtherType = EtherType(0x9200);
const MPLS: EtherType = EtherType(0x8847);
const MPLS_UPSTREAM: EtherType = EtherType(0x8848);
const PPPOE_SESSION: EtherType = EtherType(0x8864);
/// IEEE 802.1ah, "MAC in MAC": service tag, then another Ethernet header.
const PROVIDER_BACKBONE: EtherType = EtherType(0x88e7);
/// Cisco's VN-Tag.
const VN_TAG: EtherType = EtherType(0x8926);
/// Cisco's metadata: a security group in front of the packet.
const CISCO_METADATA: EtherType = EtherType(0x8909);
/// High-availability seamless redundancy (IEC 62439-3).
const HSR: EtherType = EtherType(0x892f);
/// The EtherType of LLC in frames longer than an 802.3 length can say.
const JUMBO_LLC: EtherType = EtherType(0x8870);

/// The largest value that is a length rather than a type (IEEE 802.3, clause 3.2.6).
const MAX_LENGTH: u16 = 1500;

/// What follows at `at`, where the link layer said that it is `ether_type`. Any depth of tags is looked through: each takes
/// at least two bytes, so the way ends with the packet.
pub(super) fn by_type(bytes: &[u8], mut at: usize, ether_type: u16) -> Found {
    let mut ether_type = EtherType(ether_type);
    loop {
        // How far behind this header's first byte the next EtherType stands.
        let next = match ether_type {
            EtherType::IPV4 => return network(IPv4, at),
            EtherType::IPV6 => return network(IPv6, at),
            EtherType::VLAN_TAGGED_FRAME
            | EtherType::PROVIDER_BRIDGING
            | EtherType::VLAN_DOUBLE_TAGGED_FRAME
            | QINQ_9200 => 2,
            VN_TAG | HSR => 4,
            CISCO_METADATA => 6,
            PROVIDER_BACKBONE => 16,
            PPPOE_SESSION => return pppoe(bytes, at),
            MPLS | MPLS_UPSTREAM => return mpls(bytes, at),
            JUMBO_LLC => return llc(bytes, at),
            // In 802.3 the field says how much follows.
            EtherType(len @ 0..=MAX_LENGTH) => return bounded(llc(bytes, at), at + usize::from(len)),
            _ => return None,
        };
        ether_type = EtherType(be16(bytes, at + next)?);
        at += next + 2;
    }
}

/// An Ethernet header.
fn ethernet(bytes: &[u8], at: usize) -> Found {
    by_type(bytes, at + 14, be16(bytes, at + 12)?)
}

/// PPPoE: version and type, code, session, length; then PPP's protocol (RFC 2516, section 4).
pub(super) fn pppoe(bytes: &[u8], at: usize) -> Found {
    const SESSION: u8 = 0;
    if byte(bytes, at + 1)? != SESSION {
        return None;
    }
    let len = usize::from(be16(bytes, at + 4)?);
    bounded(ppp(bytes, at + 6), at + 6 + len)
}

/// A network header whose packet ends at `end`, if not before.
fn bounded(header: Found, end: usize) -> Found {
    header.map(|header| Network { end: header.end.min(end), ..header })
}

/// PPP's protocol field, of two bytes, or of one where it was compressed: only a last byte is odd (RFC 1661, section 2).
pub(super) fn ppp(bytes: &[u8], at: usize) -> Found {
    let first = byte(bytes, at)?;
    let (protocol, at) = if first & 1 == 1 { (u16::from(first), at + 1) } else { (be16(bytes, at)?, at + 2) };
    match protocol {
        0x0021 => network(IPv4, at),
        0x0057 => network(IPv6, at),
        0x0281 | 0x0283 => mpls(bytes, at),
        // Bridged Ethernet (RFC 3518, section 4.2): flags and MAC type in front of the frame.
        0x0031 if byte(bytes, at + 1)? == 1 => ethernet(bytes, at + 2),
        _ => None,
    }
}

/// A stack of MPLS labels (RFC 3032, section 2.1). What follows the last one is told by nobody, so everyone looks at the
/// first nibble: IP's version, or 0 for a pseudowire's control word (RFC 4385, section 3), else an Ethernet address.
fn mpls(bytes: &[u8], mut at: usize) -> Found {
    loop {
        let entry = *chunk::<4>(bytes, at)?;
        at += 4;
        let bottom_of_stack = entry[2] & 1 == 1;
        if bottom_of_stack {
            break;
        }
    }
    match byte(bytes, at)? >> 4 {
        4 | 6 => by_version(bytes, at),
        0 => ethernet(bytes, at + 4).or_else(|| ethernet(bytes, at)),
        // The associated channel (RFC 5085): never a user's packet.
        1 => None,
        _ => ethernet(bytes, at),
    }
}

/// IEEE 802.2 LLC: SNAP with an EtherType (RFC 1042), or IP by its own service access point.
pub(super) fn llc(bytes: &[u8], at: usize) -> Found {
    const UNNUMBERED_INFORMATION: u8 = 0x03;
    let [dsap, ssap, control] = *chunk::<3>(bytes, at)?;
    match (dsap, ssap, control) {
        (0xaa, 0xaa, UNNUMBERED_INFORMATION) => {
            let [org @ .., high, low] = *chunk::<5>(bytes, at + 3)?;
            match (org, u16::from_be_bytes([high, low])) {
                // Encapsulated Ethernet, and the same where a bridge translated it (IEEE 802.1H).
                ([0, 0, 0] | [0, 0, 0xf8], ether_type) => by_type(bytes, at + 8, ether_type),
                // Bridged Ethernet (RFC 2684, section 5.2), with two bytes of padding.
                ([0, 0x80, 0xc2], 1 | 7) => ethernet(bytes, at + 10),
                _ => None,
            }
        }
        (0x06, 0x06, UNNUMBERED_INFORMATION) => network(IPv4, at + 3),
        _ => None,
    }
}
