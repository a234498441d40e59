//! The key of a flow.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::headers::Ip;

use super::names;
use crate::OriginId;

/// Scope, addresses and protocol in five words, which are faster to hash and to compare than the fields they come from.
/// Both happen for every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowKey {
    from: [u64; 2],
    to: [u64; 2],
    /// The scope in the upper 32 bits, [`IS_V4`], and the protocol in the lowest 8. Protocols without a name share a
    /// number.
    rest: u64,
}

/// Set for IPv4, because an IPv6 header may contain the same addresses, mapped (RFC 4291, section 2.5.5.2).
const IS_V4: u64 = 1 << 8;

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in [self.from[0], self.from[1], self.to[0], self.to[1], self.rest] {
            state.write_u64(word);
        }
    }
}

impl FlowKey {
    /// The key of a packet, and the length of its IP packet in bytes. `bytes` is the captured frame.
    #[inline]
    pub(super) fn read(scope: OriginId, ip: &Ip, bytes: &[u8]) -> (Self, u32) {
        let header = bytes.get(ip.end.saturating_sub(ip.total_len) as usize..).unwrap_or_default();
        let fields =
            if ip.src.is_ipv4() { fields_of_ipv4(header) } else { fields_of_ipv6(header, ip.protocol) };
        let (protocol, len) = fields.unwrap_or((ip.protocol, 0));
        let family = if ip.src.is_ipv4() { IS_V4 } else { 0 };
        let rest = u64::from(scope.0) << 32 | family | u64::from(names::series_protocol(protocol));
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

/// Protocol and total length of an IPv4 header. They are read again, because [`Ip`] skips AH, which counts as a
/// protocol here, and limits the length to that of the frame, which a router may have truncated.
#[inline]
fn fields_of_ipv4(header: &[u8]) -> Option<(u8, u32)> {
    let h = header.first_chunk::<10>()?;
    Some((h[9], u32::from(u16::from_be_bytes([h[2], h[3]]))))
}

/// The protocol, and the length of an IPv6 packet with its header; 0 if the header has no length.
#[inline]
fn fields_of_ipv6(header: &[u8], protocol: u8) -> Option<(u8, u32)> {
    let h = header.first_chunk::<6>()?;
    let payload = u32::from(u16::from_be_bytes([h[4], h[5]]));
    Some((protocol, if payload == 0 { 0 } else { payload + 40 }))
}
