//! Packets that routers send by TZSP, from sockets or from a device's wire.
//!
//! [`Sockets`] are the simple way, and the cheap one. The [`Wire`] sees more: a datagram that was truncated on its way, or
//! that lost a fragment, never reaches a socket, though its head tells whose packet it was and how long.

mod ancillary;
mod inbox;
mod kernel;
mod listen;
mod report;
mod routers;
mod sockets;
mod unwrap;
mod wire;

use std::net::IpAddr;

use packet::decap::{Channel, Payload, Reason, TZSP};
use packet::{LinkType, Record, Timestamp};

pub use listen::Listen;
pub use report::{Port, Ports, Report};
pub use sockets::{Drained, Sockets, TzspError};
pub use unwrap::Unwrap;
pub use wire::Wire;

/// A packet that came by TZSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The router that sent it, by the address that its datagrams have.
    pub sender: IpAddr,
    /// The port that it sent to.
    pub listen_port: u16,
    /// Which of the router's streams the packet belongs to.
    pub channel: Channel,
    /// When the datagram was received.
    pub time: Timestamp,
    /// What the first bytes of the packet are.
    pub link_type: LinkType,
    /// How long the packet was where the router saw it, in bytes, as far as anybody says.
    pub original: u32,
    /// What came of the packet.
    pub bytes: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// As it is put into a batch.
    #[must_use]
    pub const fn record(&self) -> Record<'a> {
        Record { time: self.time, original: self.original, bytes: self.bytes }
    }
}

/// What became of the datagrams so far: `datagrams` is the sum of all others but `incomplete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received.
    pub datagrams: u64,
    /// Packets given.
    pub packets: u64,
    /// Signs of life: keepalives and port openers.
    pub idle: u64,
    /// Datagrams that gave no packet, by [`Reason`].
    pub errors: [u64; Reason::ALL.len()],
    /// Of the datagrams, those of which only the head was there. A socket never sees them.
    pub incomplete: u64,
}

impl Counters {
    /// Adds what was counted elsewhere.
    fn add(&mut self, other: &Self) {
        self.datagrams += other.datagrams;
        self.packets += other.packets;
        self.idle += other.idle;
        self.incomplete += other.incomplete;
        for (to, from) in self.errors.iter_mut().zip(&other.errors) {
            *to += from;
        }
    }
}

/// What is known of a datagram's envelope.
#[derive(Clone, Copy)]
struct Envelope {
    sender: IpAddr,
    listen_port: u16,
    time: Timestamp,
    /// Bytes that the datagram had behind those that are there.
    missing: u32,
}

impl Counters {
    /// Unpacks what a datagram carries, and counts it.
    #[inline]
    fn unpack(&mut self, envelope: Envelope, payload: &[u8], give: &mut impl FnMut(Datagram<'_>)) {
        self.datagrams += 1;
        self.incomplete += u64::from(envelope.missing > 0);
        match (TZSP.decode)(payload, envelope.missing) {
            Ok(Payload::Packet(packet)) => {
                self.packets += 1;
                let Envelope { sender, listen_port, time, .. } = envelope;
                give(Datagram {
                    sender,
                    listen_port,
                    channel: packet.channel,
                    time,
                    link_type: packet.link_type,
                    original: packet.wire_len,
                    bytes: packet.bytes,
                });
            }
            Ok(Payload::Keepalive) => self.idle += 1,
            Err(reason) => self.errors[reason as usize] += 1,
        }
    }
}
