//! The senders of mirrored packets. Each is a separate interface, named after its address.
//!
//! TZSP packets of type 1, which a sensor is asked to transmit, are not packets that it observed: they get an interface
//! of their own without a listen port, so that they do not count in `tzsp_observed_*`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use batch::Interface;
use packet::decap::Channel;
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Origin, Record, Timestamp};

use crate::batcher::InterfaceSlot;
use crate::filter::FilteredBatcher;
use crate::tzsp::TzspDatagram;

/// The most interfaces that senders can have. Any host that reaches the port can send from any address.
const MAX_SENDERS: usize = 4096;

/// The key of an interface: port, sender, channel, link type.
type SenderKey = (u16, IpAddr, Channel, LinkType);

/// The interfaces of all senders.
#[derive(Debug)]
pub(crate) struct Senders {
    source: Arc<str>,
    slots: HashMap<SenderKey, InterfaceSlot>,
    /// Packets of senders beyond [`MAX_SENDERS`], which are dropped.
    pub(crate) untracked: u64,
}

impl Senders {
    pub(crate) fn new(source: Arc<str>) -> Self {
        Self { source, slots: HashMap::new(), untracked: 0 }
    }

    /// Hands an unpacked packet down. Returns false if `MAX_PACKETS` was reached.
    #[inline]
    pub(crate) fn push(
        &mut self,
        datagram: &TzspDatagram<'_>,
        below: &mut FilteredBatcher,
        now: Timestamp,
    ) -> bool {
        let key = (datagram.listen_port, datagram.sender, datagram.channel, datagram.link_type);
        let slot = match self.slots.get(&key) {
            Some(slot) => *slot,
            None if self.slots.len() < MAX_SENDERS => self.open(key, below),
            None => {
                self.untracked += 1;
                return true;
            }
        };
        let record = datagram.record();
        let bytes = record.bytes.get(..MAX_CAPTURED).unwrap_or(record.bytes);
        below.push(slot, &Record { bytes, ..record }, now)
    }

    fn open(&mut self, key: SenderKey, below: &mut FilteredBatcher) -> InterfaceSlot {
        let (port, sender, channel, link_type) = key;
        let sender = sender.to_canonical();
        let (device, listen_port) = match channel {
            Channel::Received => (sender.to_string(), Some(port)),
            Channel::Transmit => (format!("{sender} transmit {port}"), None),
        };
        // An interface has one link type: a second one of the same sender makes a second interface.
        let same_sender = |known: &SenderKey| (known.0, known.1, known.2) == (key.0, key.1, key.2);
        let device =
            if self.slots.keys().any(same_sender) { format!("{device} {link_type}") } else { device };
        let origin = Origin { source: Arc::clone(&self.source), device: device.into(), listen_port };
        tracing::info!(router = %origin.device, port, %link_type, "new TZSP router");
        let slot = below.open(&Interface {
            description: "TZSP".into(),
            ..Interface::new(origin, link_type, MAX_CAPTURED as u32)
        });
        self.slots.insert(key, slot);
        slot
    }
}
