//! The routers that send TZSP: each is an origin of its own, by its address and the port that it sends to.
//!
//! Packets of type 1, which a sensor is asked to transmit, are not packets that it observed: they make an origin of their
//! own without a listen port, so that they do not count for `tzsp_observed_*`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use batch::Interface;
use packet::decap::Channel;
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Origin, Record};

use super::Datagram;
use crate::outlet::{Outlet, Run};
use crate::packer::{Lane, Pace, Packer};

/// The most routers that are told apart, by address, port and link type. Whoever finds the port can send from any address.
const MAX_ROUTERS: usize = 4096;

/// What tells origins apart: port, router, channel, link type.
type Key = (u16, IpAddr, Channel, LinkType);

/// Packs the packets of many routers.
pub(super) struct Routers<'a> {
    pub(super) packer: Packer<'a>,
    run: Run,
    lanes: HashMap<Key, Lane>,
    /// Packets of routers beyond [`MAX_ROUTERS`], which are left out.
    pub(super) overflow: u64,
}

impl<'a> Routers<'a> {
    pub(super) fn new(outlet: &'a mut dyn Outlet, run: Run, pace: Pace) -> Self {
        let packer = Packer::new(outlet, run.clone(), pace);
        Self { packer, run, lanes: HashMap::new(), overflow: 0 }
    }

    /// Takes a packet in.
    #[inline]
    pub(super) fn push(&mut self, datagram: &Datagram<'_>) {
        let key = (datagram.listen_port, datagram.sender, datagram.channel, datagram.link_type);
        let lane = match self.lanes.get(&key) {
            Some(lane) => *lane,
            None if self.lanes.len() < MAX_ROUTERS => self.open(key),
            None => {
                self.overflow += 1;
                return;
            }
        };
        let record = datagram.record();
        let bytes = record.bytes.get(..MAX_CAPTURED).unwrap_or(record.bytes);
        self.packer.push(lane, &Record { bytes, ..record });
    }

    fn open(&mut self, key: Key) -> Lane {
        let (port, sender, channel, link_type) = key;
        let sender = sender.to_canonical();
        let (device, listen_port) = match channel {
            Channel::Received => (sender.to_string(), Some(port)),
            Channel::Transmit => (format!("{sender} transmit {port}"), None),
        };
        // An origin has one order and one account: another link type makes another one.
        let also = |known: &Key| (known.0, known.1, known.2) == (key.0, key.1, key.2);
        let device = if self.lanes.keys().any(also) { format!("{device} {link_type}") } else { device };
        let origin = Origin { source: Arc::clone(&self.run.source), device: device.into(), listen_port };
        tracing::info!(router = %origin.device, port, %link_type, "a router sends TZSP");
        let lane = self.packer.open(Arc::new(Interface {
            description: "TZSP".into(),
            ..Interface::new(origin, link_type, MAX_CAPTURED as u32)
        }));
        self.lanes.insert(key, lane);
        lane
    }
}
