//! What a flow is known by.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::headers::Ip;

use super::names;
use crate::OriginId;

/// Scope, addresses and protocol, in five words: quicker to hash and to compare than the fields they come from, and both
/// happen for every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    from: [u64; 2],
    to: [u64; 2],
    /// The scope in the upper 32 bits, [`IS_V4`], and in the lowest 8 the protocol, one number for all that
    /// have no name.
    rest: u64,
}

/// Set where the addresses are IPv4's, for an IPv6 header may hold the same ones mapped (RFC 4291, section 2.5.5.2).
const IS_V4: u64 = 1 << 8;

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in [self.from[0], self.from[1], self.to[0], self.to[1], self.rest] {
            state.write_u64(word);
        }
    }
}

impl Key {
    /// The key of a packet, and the length of its IP packet in bytes. `bytes` is what was captured of the frame.
    #[inline]
    pub(super) fn read(scope: OriginId, ip: &Ip, bytes: &[u8]) -> (Self, u32) {
        let header = bytes.get(ip.end.saturating_sub(ip.total_len) as usize..).unwrap_or_default();
        let stated =
            if ip.src.is_ipv4() { stated_by_ipv4(header) } else { stated_by_ipv6(header, ip.protocol) };
        let (protocol, len) = stated.unwrap_or((ip.protocol, 0));
        let family = if ip.src.is_ipv4() { IS_V4 } else { 0 };
        let rest = u64::from(scope.0) << 32 | family | u64::from(names::protocol_of_series(protocol));
        let key = Self { from: words(ip.src), to: words(ip.final_destination(bytes)), rest };
        (key, if len == 0 { ip.total_len } else { len })
    }

    pub(super) const fn from(&self) -> IpAddr {
        self.address(self.from)
    }

    pub(super) const fn to(&self) -> IpAddr {
        self.address(self.to)
    }

    pub(super) const fn protocol(&self) -> u8 {
        self.rest as u8
    }

    pub(super) const fn scope(&self) -> OriginId {
        OriginId((self.rest >> 32) as u32)
    }

    const fn address(&self, [high, low]: [u64; 2]) -> IpAddr {
        if self.rest & IS_V4 != 0 {
            IpAddr::V4(Ipv4Addr::from_bits(low as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits((high as u128) << 64 | low as u128))
        }
    }
}

#[inline]
fn words(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

/// The protocol and the total length that stand in an IPv4 header. [`Ip`] looks through AH, which is a protocol like any
/// other here, and believes no length beyond the frame: but a frame that a router truncated was longer than anybody knows.
#[inline]
fn stated_by_ipv4(header: &[u8]) -> Option<(u8, u32)> {
    let h = header.first_chunk::<10>()?;
    Some((h[9], u32::from(u16::from_be_bytes([h[2], h[3]]))))
}

/// The length that an IPv6 header states, with itself; 0 where it states none.
#[inline]
fn stated_by_ipv6(header: &[u8], protocol: u8) -> Option<(u8, u32)> {
    let h = header.first_chunk::<6>()?;
    let payload = u32::from(u16::from_be_bytes([h[4], h[5]]));
    Some((protocol, if payload == 0 { 0 } else { payload + 40 }))
}
