//! Packets that routers send in TZSP, received on sockets or found in frames.
//!
//! [`Sockets`] are the cheap way. [`TzspFromFrames`] sees more: a datagram that was truncated in transit, or that lost a
//! fragment, never reaches a socket, but its head still tells whose packet it was and how long.

mod frames;
mod listener;
mod recv_buffer;
mod report;
mod sockets;

use std::net::IpAddr;

use packet::decap::{Channel, Payload, Reason, TZSP};
use packet::{LinkType, Record, Timestamp};

pub(crate) use frames::TzspFromFrames;
pub use listener::TzspListener;
pub use report::{TzspPort, TzspPorts, TzspReport};
pub use sockets::TzspError;
use sockets::{Drained, Sockets};

/// A packet unpacked from a TZSP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TzspDatagram<'a> {
    /// The source address of the datagram.
    pub sender: IpAddr,
    /// The destination port of the datagram.
    pub listen_port: u16,
    /// Which of the router's streams the packet belongs to.
    pub channel: Channel,
    /// When the datagram was received.
    pub time: Timestamp,
    /// The link type of the packet.
    pub link_type: LinkType,
    /// Length of the packet where the router saw it, in bytes, if known.
    pub original: u32,
    /// The bytes of the packet that arrived.
    pub bytes: &'a [u8],
}

impl<'a> TzspDatagram<'a> {
    /// The record of a batch.
    #[must_use]
    pub const fn record(&self) -> Record<'a> {
        Record { time: self.time, original: self.original, bytes: self.bytes }
    }
}

/// What the datagrams of one port contained: `datagrams = packets + keepalives + sum(errors)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TzspCounters {
    /// Datagrams received.
    pub datagrams: u64,
    /// Packets unpacked.
    pub packets: u64,
    /// Keepalives and port openers, which carry no packet.
    pub keepalives: u64,
    /// Datagrams without a valid packet, by [`Reason`].
    pub errors: [u64; Reason::ALL.len()],
    /// The datagrams of which only the head arrived. A socket never sees them.
    pub truncated: u64,
}

impl TzspCounters {
    /// Adds other counters.
    pub(crate) fn add(&mut self, other: &Self) {
        self.datagrams += other.datagrams;
        self.packets += other.packets;
        self.keepalives += other.keepalives;
        self.truncated += other.truncated;
        for (to, from) in self.errors.iter_mut().zip(&other.errors) {
            *to += from;
        }
    }
}

/// A datagram's addresses and time.
#[derive(Clone, Copy)]
struct DatagramMeta {
    sender: IpAddr,
    listen_port: u16,
    time: Timestamp,
    /// Bytes missing at the datagram's end.
    missing: u32,
}

impl TzspCounters {
    /// Unpacks a datagram, and counts it.
    #[inline]
    fn unpack(&mut self, meta: DatagramMeta, payload: &[u8], give: &mut impl FnMut(TzspDatagram<'_>)) {
        self.datagrams += 1;
        self.truncated += u64::from(meta.missing > 0);
        match (TZSP.decode)(payload, meta.missing) {
            Ok(Payload::Packet(packet)) => {
                self.packets += 1;
                let DatagramMeta { sender, listen_port, time, .. } = meta;
                give(TzspDatagram {
                    sender,
                    listen_port,
                    channel: packet.channel,
                    time,
                    link_type: packet.link_type,
                    original: packet.wire_len,
                    bytes: packet.bytes,
                });
            }
            Ok(Payload::Keepalive) => self.keepalives += 1,
            Err(reason) => self.errors[reason as usize] += 1,
        }
    }
}
