//! The interfaces that batches come from: decoded and registered once, then found with one lookup per batch.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;

use batch::{DecodeError, DecodedBatch, Interface};
use observe::OriginId;
use packet::{LinkType, Origin, SourceId};
use sink::{CaptureWriter, InterfaceId, StreamError};
use tracing::warn;

use super::Shared;

/// Maximum bytes of descriptions to remember. A capture on `any` sends a new one whenever an interface appears or
/// disappears.
const MAX_DESCRIPTIONS: usize = 16 << 20;

/// Maximum interfaces in the output. They come from the network, and the output's readers hold all of them in memory.
const MAX_INTERFACES: usize = 16_384;

/// Maximum link types to warn about.
const MAX_WARNINGS: usize = 16;

/// A registered interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownInterface {
    /// Its account in the ledger and its queue in the merge.
    pub(super) source: SourceId,
    /// The name of that account.
    pub(super) origin: Origin,
    /// Its number at the observers.
    pub(super) observed: OriginId,
    /// Its number in the output; `None` if the output cannot hold its packets.
    pub(super) output: Option<InterfaceId>,
}

/// Why an interface cannot be registered.
#[derive(Debug)]
pub(super) enum RegisterError {
    /// The batch's fields are invalid.
    Fields(DecodeError),
    /// The output cannot be written. The source is registered.
    Output(SourceId, StreamError),
}

/// The registered interfaces.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    /// By their description in batches.
    known: HashMap<Description<'static>, KnownInterface>,
    /// Bytes of the descriptions.
    description_bytes: usize,
    /// The output's interfaces, each added once.
    added: HashMap<(SourceId, LinkType), Option<InterfaceId>>,
    /// Link types that the output cannot hold, and that were warned about.
    warned: Vec<LinkType>,
}

/// How a batch describes its interface.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Description<'a> {
    link_type: LinkType,
    snaplen: u32,
    fields: Cow<'a, [u8]>,
}

impl<'a> Description<'a> {
    fn of<M: AsRef<[u8]>>(batch: &'a DecodedBatch<M>) -> Self {
        let header = batch.header();
        Self { link_type: header.link_type, snaplen: header.snaplen, fields: Cow::Borrowed(batch.fields()) }
    }
}

impl Interfaces {
    /// The interface of a batch, if it is registered under the batch's description.
    pub(super) fn find<M: AsRef<[u8]>>(&self, batch: &DecodedBatch<M>) -> Option<KnownInterface> {
        // A key with a shorter lifetime looks up the owned ones: the map is covariant in its key.
        let known: &HashMap<Description<'_>, KnownInterface> = &self.known;
        known.get(&Description::of(batch)).cloned()
    }

    /// Registers the interface of a batch with the ledger and the observers, and adds it to the output unless an
    /// interface with its source and link type is there already. Returns it, and whether its source is new.
    pub(super) fn register<M: AsRef<[u8]>, W: Write>(
        &mut self,
        batch: &DecodedBatch<M>,
        shared: &Shared,
        writer: &mut CaptureWriter<W>,
    ) -> Result<(KnownInterface, bool), RegisterError> {
        let description = Description::of(batch);
        let mut interface =
            Interface::decode(&description.fields, description.link_type, description.snaplen)
                .map_err(RegisterError::Fields)?;
        let (source, new_source) = {
            let mut ledger = shared.ledger.lock();
            let (source, new_source) = ledger.register(&interface.origin);
            // Sources beyond the ledger's limit share an account.
            if let Some(account) = ledger.origin(source) {
                interface.origin = account.clone();
            }
            (source, new_source)
        };
        let observed = shared.observers.register(&interface.origin, &interface.names);
        let output = self
            .add_to_output(source, &interface, writer)
            .map_err(|error| RegisterError::Output(source, error))?;
        let known = KnownInterface { source, origin: interface.origin, observed, output };
        self.remember(description, known.clone());
        Ok((known, new_source))
    }

    fn add_to_output<W: Write>(
        &mut self,
        source: SourceId,
        interface: &Interface,
        writer: &mut CaptureWriter<W>,
    ) -> Result<Option<InterfaceId>, StreamError> {
        let link_type = interface.link_type;
        if let Some(added) = self.added.get(&(source, link_type)) {
            return Ok(*added);
        }
        if self.added.len() >= MAX_INTERFACES {
            return Ok(None);
        }
        let added = writer.add_interface(interface)?;
        if added.is_none() && !self.warned.contains(&link_type) && self.warned.len() < MAX_WARNINGS {
            self.warned.push(link_type);
            warn!(
                origin = %interface.origin,
                %link_type,
                "discarding packets of this link type: classic pcap holds only one; set OUTPUT_FORMAT=pcapng to keep them"
            );
        }
        self.added.insert((source, link_type), added);
        Ok(added)
    }

    fn remember(&mut self, description: Description<'_>, known: KnownInterface) {
        if self.description_bytes + description.fields.len() > MAX_DESCRIPTIONS {
            self.known.clear();
            self.description_bytes = 0;
        }
        self.description_bytes += description.fields.len();
        let fields = Cow::Owned(description.fields.into_owned());
        self.known.insert(Description { fields, ..description }, known);
    }

    /// The interfaces in the output, and their sources, in the order in which they were added.
    pub(super) fn in_output(&self) -> impl Iterator<Item = (InterfaceId, SourceId)> {
        let mut found: Vec<_> =
            self.added.iter().filter_map(|((source, _), added)| Some(((*added)?, *source))).collect();
        found.sort_unstable();
        found.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use observe::Observers;
    use sink::{CaptureFormat, Stream};

    use super::*;
    use crate::collect::collector::tests::{Batches, Failing};

    /// Registers the interfaces of batches with an output in `format`; returns the outputs' interfaces.
    fn register(format: CaptureFormat, sources: &[(&str, LinkType, u32)]) -> Vec<Option<u32>> {
        let shared = Shared::new(Observers::new(observe::ObserversConfig::default()));
        let mut writer = CaptureWriter::new(Stream::new(Vec::new()), format).unwrap();
        let mut interfaces = Interfaces::default();
        let mut outputs = Vec::new();
        for (source, link_type, snaplen) in sources {
            let batch = Batches::new(source, *link_type).snaplen(*snaplen).decoded(&[]);
            let (known, _) = interfaces.register(&batch, &shared, &mut writer).unwrap();
            assert_eq!(interfaces.find(&batch).as_ref(), Some(&known));
            outputs.push(known.output.map(|InterfaceId(id)| id));
        }
        outputs
    }

    #[test]
    fn pcapng_has_an_interface_per_source_and_link_type() {
        let sources = [
            ("a", LinkType::ETHERNET, 96),
            ("b", LinkType::ETHERNET, 96),
            ("a", LinkType::RAW, 96),
            ("a", LinkType::ETHERNET, 128),
            ("b", LinkType::ETHERNET, 96),
        ];
        assert_eq!(register(CaptureFormat::PcapNg, &sources), [Some(0), Some(1), Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn pcap_holds_the_link_type_of_the_first_source() {
        let sources = [("a", LinkType::RAW, 96), ("b", LinkType::ETHERNET, 96), ("c", LinkType::RAW, 96)];
        assert_eq!(register(CaptureFormat::Pcap, &sources), [Some(0), None, Some(0)]);
    }

    #[test]
    fn a_batch_is_found_by_link_type_snaplen_and_fields() {
        let shared = Shared::new(Observers::new(observe::ObserversConfig::default()));
        let mut writer = CaptureWriter::new(Stream::new(Vec::new()), CaptureFormat::PcapNg).unwrap();
        let mut interfaces = Interfaces::default();
        let known = Batches::new("a", LinkType::ETHERNET);
        let (registered, new) = interfaces.register(&known.decoded(&[1]), &shared, &mut writer).unwrap();
        assert!(new);
        assert_eq!(interfaces.find(&known.decoded(&[2])).as_ref(), Some(&registered));
        for other in [
            Batches::new("b", LinkType::ETHERNET),
            Batches::new("a", LinkType::RAW),
            Batches::new("a", LinkType::ETHERNET).snaplen(1),
        ] {
            assert_eq!(interfaces.find(&other.decoded(&[1])), None);
        }
        // The source is not new with another description, and keeps its numbers.
        let renamed = Batches::new("a", LinkType::ETHERNET).names(vec![(1, Arc::from("lo"))]);
        let again = interfaces.register(&renamed.decoded(&[1]), &shared, &mut writer).unwrap();
        assert_eq!(again, (registered, false));
        assert_eq!(interfaces.in_output().collect::<Vec<_>>(), [(InterfaceId(0), SourceId(0))]);
    }

    #[test]
    fn an_output_error_leaves_the_source_registered() {
        let shared = Shared::new(Observers::new(observe::ObserversConfig::default()));
        let mut writer = CaptureWriter::new(Stream::new(Failing), CaptureFormat::Pcap).unwrap();
        let mut interfaces = Interfaces::default();
        let batch = Batches::new("a", LinkType::ETHERNET).decoded(&[1]);
        let error = interfaces.register(&batch, &shared, &mut writer).unwrap_err();
        assert!(matches!(error, RegisterError::Output(SourceId(0), StreamError::ReaderGone)), "{error:?}");
        assert_eq!(interfaces.find(&batch), None);
        assert_eq!(shared.ledger.lock().sources().count(), 1);
    }

    #[test]
    fn descriptions_are_bounded() {
        let shared = Shared::new(Observers::new(observe::ObserversConfig::default()));
        let mut writer = CaptureWriter::new(Stream::new(Vec::new()), CaptureFormat::PcapNg).unwrap();
        let mut interfaces = Interfaces::default();
        // Each description takes 36 KiB.
        for index in 0..500 {
            let names = (0..512).map(|name| (name + index, Arc::from("x".repeat(64)))).collect();
            let batch = Batches::new("a", LinkType::ETHERNET).names(names).decoded(&[]);
            interfaces.register(&batch, &shared, &mut writer).unwrap();
            assert!(interfaces.find(&batch).is_some());
        }
        assert!(interfaces.known.len() < 500 && interfaces.description_bytes <= MAX_DESCRIPTIONS);
        assert_eq!(interfaces.in_output().count(), 1);
    }
}
