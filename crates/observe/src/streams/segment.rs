//! What the analysis needs to know of a TCP segment.

use std::ops::Add;

use packet::Timestamp;
use packet::headers::{Tcp, TcpFlags};

/// A sequence number. Compared as the signed difference modulo 2^32 (RFC 9293, section 3.4), so that a stream may go round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    /// Stands for "not known yet". A genuine 0 is taken for it too, as in Wireshark: one number in four billion, whose
    /// only effect is that one segment is not held against the ones before it.
    pub(super) const UNKNOWN: Self = Self(0);

    /// Bytes from `earlier` to here; negative where it is the later one.
    #[inline]
    pub(super) const fn distance(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Whether this comes behind `other`. Of two numbers that are exactly half of the way round apart, each comes behind the
    /// other, and each in front of it.
    #[inline]
    pub(super) const fn after(self, other: Self) -> bool {
        other.distance(self) < 0
    }

    /// Whether this comes in front of `other`.
    #[inline]
    pub(super) const fn before(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// The number in front of this one.
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

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) time: Timestamp,
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    /// Bytes of data.
    pub(super) len: u32,
    pub(super) flags: TcpFlags,
    /// As it stands there, unscaled.
    pub(super) window: u16,
    pub(super) window_scale: Option<u8>,
    /// MPTCP's subtypes, a bit each: those of RFC 6824, which are the signals of a connection that lives.
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

    /// Whether the acknowledgment number means something.
    #[inline]
    pub(super) const fn acknowledges(&self) -> bool {
        self.flags.any(TcpFlags::ACK)
    }

    /// Neither SYN nor FIN nor RST: a segment from the middle of a connection.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        !self.flags.any(TcpFlags::SYN.or(TcpFlags::FIN).or(TcpFlags::RST))
    }

    /// Whether it takes sequence numbers: with data, or with SYN or FIN, which take one (RFC 9293, section 3.4).
    #[inline]
    pub(super) const fn occupies(&self) -> bool {
        self.len > 0 || self.flags.any(TcpFlags::SYN.or(TcpFlags::FIN))
    }

    /// The number behind the data.
    #[inline]
    pub(super) fn data_end(&self) -> Seq {
        self.seq + self.len
    }

    /// The number behind all that the segment takes. SYN and FIN together take one: such a segment is none of TCP's.
    #[inline]
    pub(super) fn end(&self) -> Seq {
        self.data_end() + u32::from(self.flags.any(TcpFlags::SYN.or(TcpFlags::FIN)))
    }
}
