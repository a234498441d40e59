//! The interfaces that batches come from: decoded and registered once, then found with one lookup per batch.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Write;

use batch::{DecodedBatch, Interface};
use observe::OriginId;
use packet::{LinkType, Origin, SourceId};
use sink::{CaptureWriter, InterfaceId, StreamError};
use tracing::warn;

use super::Shared;
use super::rejections::Rejection;

/// Maximum bytes of descriptions to remember, [`ENTRY`] included. A capture on `any` sends a new one whenever an interface
/// appears or disappears.
const MAX_DESCRIPTIONS: usize = 16 << 20;

/// What a description takes besides its fields: its place in the map, which is half empty after it has grown.
const ENTRY: usize = 2 * size_of::<(Description<'_>, KnownInterface)>() + 32;

/// Maximum link types of a source. Each makes an interface in the output, whose readers hold all of them in memory.
pub(super) const MAX_LINK_TYPES: usize = 16;

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
    /// The batch must be rejected.
    Rejected(Rejection),
    /// The output cannot be written. The source is registered.
    Output(SourceId, StreamError),
}

impl From<Rejection> for RegisterError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// The registered interfaces.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    /// By their description in batches.
    known: HashMap<Description<'static>, KnownInterface>,
    /// Bytes of the descriptions, [`ENTRY`] included.
    description_bytes: usize,
    /// The output's interfaces of each source, each added once.
    added: HashMap<SourceId, Vec<(LinkType, Option<InterfaceId>)>>,
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

    /// Bytes of memory that it takes when it is remembered.
    fn memory(&self) -> usize {
        self.fields.len() + ENTRY
    }
}

impl Interfaces {
    /// The interface of a batch, if it is registered under the batch's description.
    pub(super) fn find<M: AsRef<[u8]>>(&self, batch: &DecodedBatch<M>) -> Option<KnownInterface> {
        // A key with a shorter lifetime looks up the owned ones: the map is covariant in its key.
        let known: &HashMap<Description<'_>, KnownInterface> = &self.known;
        known.get(&Description::of(batch)).cloned()
    }

    /// How many link types of a source are registered.
    pub(super) fn link_types(&self, source: SourceId) -> usize {
        self.added.get(&source).map_or(0, Vec::len)
    }

    /// Whether a link type of a source is registered.
    pub(super) fn has_link_type(&self, source: SourceId, link_type: LinkType) -> bool {
        self.added.get(&source).is_some_and(|added| added.iter().any(|(known, _)| *known == link_type))
    }

    /// The output's interface for a link type of a source.
    pub(super) fn output(&self, source: SourceId, link_type: LinkType) -> Option<InterfaceId> {
        self.added.get(&source)?.iter().find(|(known, _)| *known == link_type)?.1
    }

    /// Registers the interface of a batch of a registered source with the observers, and adds it to the output unless an
    /// interface with its source and link type is there already.
    pub(super) fn register<M: AsRef<[u8]>, W: Write>(
        &mut self,
        batch: &DecodedBatch<M>,
        (source, interface): (SourceId, Interface),
        shared: &Shared,
        writer: &mut CaptureWriter<W>,
    ) -> Result<KnownInterface, StreamError> {
        let observed = shared.observers.register(&interface.origin, &interface.names);
        let output = self.add_to_output(source, &interface, writer)?;
        let known = KnownInterface { source, origin: interface.origin, observed, output };
        self.remember(Description::of(batch), known.clone());
        Ok(known)
    }

    fn add_to_output<W: Write>(
        &mut self,
        source: SourceId,
        interface: &Interface,
        writer: &mut CaptureWriter<W>,
    ) -> Result<Option<InterfaceId>, StreamError> {
        let link_type = interface.link_type;
        let of_source = self.added.entry(source).or_default();
        if let Some((_, added)) = of_source.iter().find(|(known, _)| *known == link_type) {
            return Ok(*added);
        }
        let added = writer.add_interface(interface)?;
        of_source.push((link_type, added));
        if added.is_none() && !self.warned.contains(&link_type) && self.warned.len() < MAX_WARNINGS {
            self.warned.push(link_type);
            warn!(
                origin = %interface.origin,
                %link_type,
                "discarding packets of this link type: classic pcap holds only one; set OUTPUT_FORMAT=pcapng to keep them"
            );
        }
        Ok(added)
    }

    /// Forgets the interfaces of sources. Returns those in the output, each with its source.
    pub(super) fn forget(&mut self, sources: &HashSet<SourceId>) -> Vec<(InterfaceId, SourceId)> {
        let bytes = &mut self.description_bytes;
        // One pass for all of them: there may be very many descriptions.
        self.known.retain(|description, known| {
            let stays = !sources.contains(&known.source);
            *bytes -= if stays { 0 } else { description.memory() };
            stays
        });
        let of_source = |source: SourceId| {
            let added = self.added.remove(&source).unwrap_or_default();
            added.into_iter().filter_map(move |(_, added)| Some((added?, source)))
        };
        sources.iter().copied().flat_map(of_source).collect()
    }

    fn remember(&mut self, description: Description<'_>, known: KnownInterface) {
        if self.description_bytes + description.memory() > MAX_DESCRIPTIONS {
            self.known.clear();
            self.description_bytes = 0;
        }
        let fields = Cow::Owned(description.fields.into_owned());
        let description = Description { fields, ..description };
        self.description_bytes += description.memory();
        self.known.insert(description, known);
    }

    /// The interfaces in the output, and their sources, in the order in which they were added.
    pub(super) fn in_output(&self) -> impl Iterator<Item = (InterfaceId, SourceId)> {
        let of_source = |(source, added): (&SourceId, &Vec<(LinkType, Option<InterfaceId>)>)| {
            let source = *source;
            added.iter().filter_map(move |(_, added)| Some(((*added)?, source))).collect::<Vec<_>>()
        };
        let mut found: Vec<_> = self.added.iter().flat_map(of_source).collect();
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

    fn shared() -> Arc<Shared> {
        Shared::new(Observers::new(observe::ObserversConfig::default()), 64)
    }

    /// Registers the source and the interface of a batch.
    fn register_one<W: Write>(
        interfaces: &mut Interfaces,
        batch: &DecodedBatch<Vec<u8>>,
        shared: &Shared,
        writer: &mut CaptureWriter<W>,
    ) -> Result<KnownInterface, StreamError> {
        let header = batch.header();
        let interface = Interface::decode(batch.fields(), header.link_type, header.snaplen).unwrap();
        let (source, _) = shared.ledger.lock().register(&interface.origin).unwrap();
        interfaces.register(batch, (source, interface), shared, writer)
    }

    /// Registers the interfaces of batches with an output in `format`; returns the outputs' interfaces.
    fn register(format: CaptureFormat, sources: &[(&str, LinkType, u32)]) -> Vec<Option<u32>> {
        let shared = shared();
        let mut writer = CaptureWriter::new(Stream::new(Vec::new()), format).unwrap();
        let mut interfaces = Interfaces::default();
        let mut outputs = Vec::new();
        for (source, link_type, snaplen) in sources {
            let batch = Batches::new(source, *link_type).snaplen(*snaplen).decoded(&[]);
            let known = register_one(&mut interfaces, &batch, &shared, &mut writer).unwrap();
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
        let shared = shared();
        let mut writer = CaptureWriter::new(Stream::new(Vec::new()), CaptureFormat::PcapNg).unwrap();
        let mut interfaces = Interfaces::default();
        let known = Batches::new("a", LinkType::ETHERNET);
        let registered = register_one(&mut interfaces, &known.decoded(&[1]), &shared, &mut writer).unwrap();
        assert_eq!(interfaces.find(&known.decoded(&[2])).as_ref(), Some(&registered));
        for other in [
            Batches::new("b", LinkType::ETHERNET),
            Batches::new("a", LinkType::RAW),
            Batches::new("a", LinkType::ETHERNET).snaplen(1),
        ] {
            assert_eq!(interfaces.find(&other.decoded(&[1])), None);
        }
        // The source keeps its numbers with another description.
        let renamed = Batches::new("a", LinkType::ETHERNET).names(vec![(1, Arc::from("lo"))]);
        let again = register_one(&mut interfaces, &renamed.decoded(&[1]), &shared, &mut writer).unwrap();
        assert_eq!(again, registered);
        assert_eq!(interfaces.in_output().collect::<Vec<_>>(), [(InterfaceId(0), SourceId(0))]);
    }

    #[test]
    fn an_output_error_leaves_the_source_registered() {
        let shared = shared();
        let mut writer = CaptureWriter::new(Stream::new(Failing), CaptureFormat::Pcap).unwrap();
        let mut interfaces = Interfaces::default();
        let batch = Batches::new("a", LinkType::ETHERNET).decoded(&[1]);
        let error = register_one(&mut interfaces, &batch, &shared, &mut writer).unwrap_err();
        assert!(matches!(error, StreamError::ReaderGone), "{error:?}");
        assert_eq!(interfaces.find(&batch), None);
        assert_eq!(shared.ledger.lock().sources().count(), 1);
    }

    #[test]
    fn a_forgotten_source_leaves_nothing_behind() {
        let shared = shared();
        let mut writer = CaptureWriter::new(Stream::new(Vec::new()), CaptureFormat::PcapNg).unwrap();
        let mut interfaces = Interfaces::default();
        let batches = [("a", LinkType::ETHERNET), ("b", LinkType::ETHERNET), ("a", LinkType::RAW)];
        let batches = batches.map(|(source, link_type)| Batches::new(source, link_type).decoded(&[1]));
        for batch in &batches {
            register_one(&mut interfaces, batch, &shared, &mut writer).unwrap();
        }
        assert_eq!((interfaces.link_types(SourceId(0)), interfaces.link_types(SourceId(1))), (2, 1));
        assert!(interfaces.has_link_type(SourceId(0), LinkType::RAW));
        let mut forgotten = interfaces.forget(&HashSet::from([SourceId(0)]));
        forgotten.sort_unstable();
        assert_eq!(forgotten, [(InterfaceId(0), SourceId(0)), (InterfaceId(2), SourceId(0))]);
        assert_eq!(interfaces.in_output().collect::<Vec<_>>(), [(InterfaceId(1), SourceId(1))]);
        assert_eq!(interfaces.forget(&HashSet::from([SourceId(1)])).len(), 1);
        assert!(interfaces.known.is_empty() && interfaces.added.is_empty());
        assert_eq!(interfaces.description_bytes, 0);
    }

    #[test]
    fn descriptions_are_bounded() {
        let shared = shared();
        let mut writer = CaptureWriter::new(Stream::new(Vec::new()), CaptureFormat::PcapNg).unwrap();
        let mut interfaces = Interfaces::default();
        // Each description takes 36 KiB.
        for index in 0..500 {
            let names = (0..512).map(|name| (name + index, Arc::from("x".repeat(64)))).collect();
            let batch = Batches::new("a", LinkType::ETHERNET).names(names).decoded(&[]);
            register_one(&mut interfaces, &batch, &shared, &mut writer).unwrap();
            assert!(interfaces.find(&batch).is_some());
        }
        assert!(interfaces.known.len() < 500 && interfaces.description_bytes <= MAX_DESCRIPTIONS);
        // Short ones take more than their fields.
        for snaplen in 0..100_000 {
            let batch = Batches::new("a", LinkType::ETHERNET).snaplen(snaplen).decoded(&[]);
            register_one(&mut interfaces, &batch, &shared, &mut writer).unwrap();
        }
        assert!(interfaces.known.len() <= MAX_DESCRIPTIONS / ENTRY, "{}", interfaces.known.len());
        assert_eq!(interfaces.in_output().count(), 1);
    }
}
