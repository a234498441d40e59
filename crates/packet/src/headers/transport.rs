//! TCP and UDP.

use std::fmt;

use etherparse::{IpNumber, TcpHeaderSlice, UdpHeaderSlice};

use super::ip::Ip;
use crate::bytes::zero_padded;

/// Bytes of a TCP header without options.
const TCP_MIN_LEN: usize = 20;
/// Bytes of a TCP header with as many options as it can have (RFC 9293, section 3.1).
const TCP_MAX_LEN: usize = 60;

/// The payload of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP header of which at least 20 bytes were captured, and whose length fits the packet.
    Tcp(Tcp),
    /// A UDP header.
    Udp(Udp),
    /// Another protocol, a later fragment, or a header that is cut or invalid.
    Other,
}

/// A TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first data byte, or of SYN if set.
    pub seq: u32,
    /// Acknowledgment number. Meaningless unless ACK is set.
    pub ack: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window in the header, not scaled.
    pub window: u16,
    /// Bytes of data, according to the IP header.
    pub payload_len: u32,
    /// Shift count of the window scale option (RFC 7323, section 2.2).
    pub window_scale: Option<u8>,
    /// Subtypes of the MPTCP options in the segment, one bit each (RFC 8684, section 8).
    pub mptcp: u16,
}

/// The flags of a TCP header: its 14th byte.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// The acknowledgment number is valid.
    pub const ACK: Self = Self(0x10);

    /// Whether at least one flag of `other` is set.
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
    /// Length of header and payload in bytes, according to the header. In a first fragment it is that of the whole
    /// datagram.
    pub len: u16,
    /// Offset of the payload in the captured bytes.
    pub payload_at: u32,
}

impl Transport {
    /// Parses the payload of `ip`, a packet of which `bytes` were captured.
    #[inline]
    pub(super) fn parse(ip: &Ip, bytes: &[u8]) -> Self {
        if !ip.first_fragment {
            return Self::Other;
        }
        let Some(captured) = bytes.get(ip.payload_at as usize..) else { return Self::Other };
        let header = match IpNumber(ip.protocol) {
            IpNumber::TCP => tcp(ip, captured).map(Self::Tcp),
            IpNumber::UDP => udp(ip, captured).map(Self::Udp),
            _ => None,
        };
        header.unwrap_or(Self::Other)
    }
}

#[inline]
fn tcp(ip: &Ip, captured: &[u8]) -> Option<Tcp> {
    let padded;
    let (header, options_len) = match TcpHeaderSlice::from_slice(captured) {
        Ok(header) => (header, captured.len()),
        // A snaplen cut the options: etherparse accepts whole headers only.
        Err(_) => {
            let options_len = captured.len().checked_sub(TCP_MIN_LEN)?;
            padded = zero_padded::<TCP_MAX_LEN>(captured);
            (TcpHeaderSlice::from_slice(&padded).ok()?, options_len)
        }
    };
    let options = header.options();
    let options = options.get(..options_len).unwrap_or(options);
    let payload_at = ip.payload_at + header.slice().len() as u32;
    let payload_len = ip.end.checked_sub(payload_at)?;
    let (window_scale, mptcp) = read_options(options);
    Some(Tcp {
        src_port: header.source_port(),
        dst_port: header.destination_port(),
        seq: header.sequence_number(),
        ack: header.acknowledgment_number(),
        // etherparse has the flags one by one only.
        flags: TcpFlags(*header.slice().get(13)?),
        window: header.window_size(),
        payload_len,
        window_scale,
        mptcp,
    })
}

/// Window scale and MPTCP subtypes, up to the first invalid option.
#[inline]
fn read_options(options: &[u8]) -> (Option<u8>, u16) {
    // Most segments of most connections have two bytes of padding and a timestamp (RFC 7323, appendix A).
    if options.is_empty() || (options.len() == 12 && options.starts_with(&[1, 1, 8, 10])) {
        return (None, 0);
    }
    walk_options(options)
}

/// etherparse's `TcpOptionsIterator` stops at the first option that it does not know, MPTCP among them.
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
        let Some(len) = rest.first().copied().map(usize::from) else { break };
        let Some((option, rest)) = options.split_at_checked(len) else { break };
        match (kind, option) {
            (WINDOW_SCALE, &[_, _, shift]) => window_scale = Some(shift),
            (MPTCP, &[_, _, subtype, ..]) => mptcp |= 1 << (subtype >> 4),
            (_, [_, _, ..]) => {}
            // The length must count kind and length, so the next option cannot be found.
            _ => break,
        }
        options = rest;
    }
    (window_scale, mptcp)
}

fn udp(ip: &Ip, captured: &[u8]) -> Option<Udp> {
    let header = UdpHeaderSlice::from_slice(captured).ok()?;
    let payload_at = ip.payload_at + header.slice().len() as u32;
    ip.end.checked_sub(payload_at)?;
    Some(Udp {
        src_port: header.source_port(),
        dst_port: header.destination_port(),
        len: header.length(),
        payload_at,
    })
}
