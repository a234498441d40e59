//! TCP and UDP.

use std::fmt;

use etherparse::IpNumber;

use super::{Ip, byte, chunk};

/// What IP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP header of which at least the 20 fixed bytes were captured, and whose length fits the packet.
    Tcp(Tcp),
    /// A UDP header.
    Udp(Udp),
    /// Something else, or nothing that can be read: a later fragment, a header that was cut.
    Other,
}

/// A TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first byte; of SYN, where there is one.
    pub seq: u32,
    /// Acknowledgment number, as it stands there: also where ACK is not set.
    pub ack: u32,
    /// The flags.
    pub flags: TcpFlags,
    /// The window as it stands there, unscaled.
    pub window: u16,
    /// Bytes of data, by the IP header's length.
    pub payload_len: u32,
    /// The shift count of the window scale option (RFC 7323, section 2.2), where there is one.
    pub window_scale: Option<u8>,
    /// The MPTCP options that the segment has, a bit for each subtype (RFC 8684, section 8).
    pub mptcp: u16,
}

/// The flags of a TCP header, in the bits of its 14th byte.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgment number means something.
    pub const ACK: Self = Self(0x10);

    /// Whether any of the flags of `other` is set.
    #[inline]
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The flags of both.
    #[inline]
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set: Vec<_> = names
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, name)| name)
            .collect();
        write!(f, "[{}]", set.join(", "))
    }
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length of header and payload, as the header says; of the whole datagram also in its first fragment.
    pub len: u16,
    /// Where the payload begins, as an offset into the captured bytes.
    pub payload_at: u32,
}

impl Transport {
    /// Of what `ip` carries.
    #[inline]
    pub(super) fn parse(ip: &Ip, bytes: &[u8]) -> Self {
        if !ip.first_fragment {
            return Self::Other;
        }
        let header = match IpNumber(ip.protocol) {
            IpNumber::TCP => tcp(ip, bytes).map(Self::Tcp),
            IpNumber::UDP => udp(ip, bytes).map(Self::Udp),
            _ => None,
        };
        header.unwrap_or(Self::Other)
    }
}

#[inline]
fn tcp(ip: &Ip, bytes: &[u8]) -> Option<Tcp> {
    let at = usize::try_from(ip.payload_at).ok()?;
    let h = chunk::<20>(bytes, at)?;
    let header_len = u32::from(h[12] >> 4) * 4;
    let len = ip.end.checked_sub(ip.payload_at)?;
    if header_len < 20 {
        return None;
    }
    let payload_len = len.checked_sub(header_len)?;
    // Options may have been cut by a snaplen, which takes nothing from the rest.
    let options_end = bytes.len().min(at + header_len as usize);
    let options = bytes.get(at + 20..options_end).unwrap_or_default();
    let (window_scale, mptcp) = read_options(options);
    Some(Tcp {
        src_port: u16::from_be_bytes([h[0], h[1]]),
        dst_port: u16::from_be_bytes([h[2], h[3]]),
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        flags: TcpFlags(h[13]),
        window: u16::from_be_bytes([h[14], h[15]]),
        payload_len,
        window_scale,
        mptcp,
    })
}

/// Window scale and MPTCP's subtypes. Reads up to the first option that can't be.
#[inline]
fn read_options(options: &[u8]) -> (Option<u8>, u16) {
    // What most segments of most connections have: two bytes of padding and a time stamp (RFC 7323, appendix A).
    if options.is_empty() || (options.len() == 12 && options.starts_with(&[1, 1, 8, 10])) {
        return (None, 0);
    }
    walk_options(options)
}

fn walk_options(mut options: &[u8]) -> (Option<u8>, u16) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    const MPTCP: u8 = 30;
    let (mut window_scale, mut mptcp) = (None, 0);
    while let Some((&kind, rest)) = options.split_first() {
        if kind == END {
            break;
        }
        if kind == NO_OPERATION {
            options = rest;
            continue;
        }
        let Some(len) = byte(options, 1).map(usize::from) else { break };
        let Some((option, rest)) = options.split_at_checked(len) else { break };
        match (kind, option) {
            (WINDOW_SCALE, &[_, _, shift]) => window_scale = Some(shift),
            (MPTCP, &[_, _, subtype, ..]) => mptcp |= 1 << (subtype >> 4),
            (_, [_, _, ..]) => {}
            // A length below its own two bytes: nobody knows where the next one begins.
            _ => break,
        }
        options = rest;
    }
    (window_scale, mptcp)
}

fn udp(ip: &Ip, bytes: &[u8]) -> Option<Udp> {
    let h = chunk::<8>(bytes, usize::try_from(ip.payload_at).ok()?)?;
    ip.end.checked_sub(ip.payload_at + 8)?;
    Some(Udp {
        src_port: u16::from_be_bytes([h[0], h[1]]),
        dst_port: u16::from_be_bytes([h[2], h[3]]),
        len: u16::from_be_bytes([h[4], h[5]]),
        payload_at: ip.payload_at + 8,
    })
}
