//! What the sources of a collector are: read from their batches once, and described in the output once.

use std::collections::HashMap;

use batch::{DecodeError, Interface, Received};
use merge::SourceId;
use observe::{Observers, OriginId};
use packet::{LinkType, Origin};
use sink::{InterfaceId, StreamError, Writer};
use source::pull::Message;
use tracing::warn;

/// Bytes of descriptions that are kept. A capture on `any` makes a new one whenever an interface comes or goes.
const MAX_READ: usize = 16 << 20;

/// The most interfaces in the output. The names come from the network; readers hold every interface in memory.
const MAX_DESCRIBED: usize = 16_384;

/// The most link types of which the log says that they are left out.
const MAX_TOLD: usize = 16;

/// The interfaces of all sources.
#[derive(Default)]
pub(super) struct Interfaces {
    /// By the bytes of the fields that stand in every batch of a source.
    read: HashMap<Box<[u8]>, Interface>,
    /// Bytes of the keys of `read`.
    read_bytes: usize,
    described: HashMap<(SourceId, LinkType), Known>,
    /// Link types for which the output has no place, and of which the log has spoken.
    left_out: Vec<LinkType>,
}

/// An interface that has been described.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The observers' number for it.
    pub(super) origin: OriginId,
    /// Its number in the output; `None` where the output has no place for its link type.
    pub(super) output: Option<InterfaceId>,
}

impl Interfaces {
    /// Who sent a batch.
    /// True where that was not known in these words before.
    pub(super) fn read(&mut self, batch: &Received<Message>) -> Result<(&Interface, bool), DecodeError> {
        let header = batch.header();
        let fields = batch.fields();
        let matches =
            |known: &Interface| known.link_type == header.link_type && known.snaplen == header.snaplen;
        let new = !self.read.get(fields).is_some_and(matches);
        if new {
            let interface = Interface::decode(fields, header.link_type, header.snaplen)?;
            if self.read_bytes + fields.len() > MAX_READ {
                self.read.clear();
                self.read_bytes = 0;
            }
            self.read_bytes += fields.len();
            self.read.insert(fields.into(), interface);
        }
        self.read.get(fields).map(|interface| (interface, new)).ok_or(DecodeError::Magic)
    }

    /// What is known of the interface that a batch came from; described first where it is new. `origin` is the one in whose
    /// name the ledger keeps account of it.
    pub(super) fn known(
        &mut self,
        source: SourceId,
        origin: &Origin,
        batch: &Received<Message>,
        new: bool,
        observers: &Observers,
        writer: &mut Writer,
    ) -> Result<Known, StreamError> {
        let link_type = batch.header().link_type;
        if let Some(known) = self.described.get(&(source, link_type)) {
            if new && let Some(read) = self.read.get(batch.fields()) {
                // Interfaces behind a cooked device have come or gone.
                observers.register(origin, &read.names);
            }
            return Ok(*known);
        }
        let Some(read) = self.read.get(batch.fields()) else {
            return Ok(Known { origin: OriginId(0), output: None });
        };
        let interface = Interface { origin: origin.clone(), ..read.clone() };
        let id = observers.register(origin, &interface.names);
        if self.described.len() >= MAX_DESCRIBED {
            return Ok(Known { origin: id, output: None });
        }
        let output = writer.describe(&interface)?;
        if output.is_none() && !self.left_out.contains(&link_type) && self.left_out.len() < MAX_TOLD {
            self.left_out.push(link_type);
            warn!(
                %origin,
                %link_type,
                "packets of this link type are left out and counted: classic pcap holds only one. Set OUTPUT_FORMAT=pcapng to have them all"
            );
        }
        let known = Known { origin: id, output };
        self.described.insert((source, link_type), known);
        Ok(known)
    }

    /// The interfaces that stand in the output, and whose they are.
    pub(super) fn in_output(&self) -> impl Iterator<Item = (InterfaceId, SourceId)> {
        let mut found: Vec<_> =
            self.described.iter().filter_map(|((source, _), known)| Some((known.output?, *source))).collect();
        found.sort_unstable();
        found.into_iter()
    }
}
