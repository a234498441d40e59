//! A TCP segment as the analysis needs it.

use std::ops::Add;

use packet::Timestamp;
use packet::headers::{Tcp, TcpFlags};

/// A sequence number, compared by the signed difference modulo 2^32 so that it may wrap around (RFC 9293, section 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    /// Not known yet. As in Wireshark, a genuine 0 is treated as unknown too, with the effect that one segment in four
    /// billion is not compared with the ones before it.
    pub(super) const UNKNOWN: Self = Self(0);

    /// Bytes from `earlier` to this one; negative if `earlier` is the later one.
    #[inline]
    pub(super) const fn distance(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Whether this is after `other`. Two numbers exactly 2^31 apart are both after and before each other.
    #[inline]
    pub(super) const fn after(self, other: Self) -> bool {
        other.distance(self) < 0
    }

    /// Whether this is before `other`.
    #[inline]
    pub(super) const fn before(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// The number before this one.
    #[inline]
    pub(super) const fn previous(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    #[inline]
    pub(super) fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    #[inline]
    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) time: Timestamp,
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    /// Bytes of data.
    pub(super) len: u32,
    pub(super) flags: TcpFlags,
    /// The window field, unscaled.
    pub(super) window: u16,
    pub(super) window_scale: Option<u8>,
    /// One bit for each MPTCP subtype of RFC 6824.
    pub(super) mptcp: u8,
}

impl Segment {
    #[inline]
    pub(super) fn new(time: Timestamp, tcp: &Tcp) -> Self {
        Self {
            time,
            seq: Seq(tcp.seq),
            ack: Seq(tcp.ack),
            len: tcp.payload_len,
            flags: tcp.flags,
            window: tcp.window,
            window_scale: tcp.window_scale,
            mptcp: tcp.mptcp as u8,
        }
    }

    #[inline]
    pub(super) const fn syn(&self) -> bool {
        self.flags.any(TcpFlags::SYN)
    }

    #[inline]
    pub(super) const fn fin(&self) -> bool {
        self.flags.any(TcpFlags::FIN)
    }

    #[inline]
    pub(super) const fn rst(&self) -> bool {
        self.flags.any(TcpFlags::RST)
    }

    #[inline]
    pub(super) const fn has_ack(&self) -> bool {
        self.flags.any(TcpFlags::ACK)
    }

    /// Whether none of SYN, FIN and RST is set.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        !self.flags.any(TcpFlags::SYN.or(TcpFlags::FIN).or(TcpFlags::RST))
    }

    /// Whether it consumes sequence numbers, as data, SYN and FIN do (RFC 9293, section 3.4).
    #[inline]
    pub(super) const fn consumes_sequence(&self) -> bool {
        self.len > 0 || self.flags.any(TcpFlags::SYN.or(TcpFlags::FIN))
    }

    /// The sequence number after the data.
    #[inline]
    pub(super) fn data_end(&self) -> Seq {
        self.seq + self.len
    }

    /// The sequence number after the segment. SYN and FIN in one segment, which TCP does not send, count as one.
    #[inline]
    pub(super) fn end(&self) -> Seq {
        self.data_end() + u32::from(self.flags.any(TcpFlags::SYN.or(TcpFlags::FIN)))
    }
}
