//! `FILTER` and `SNAPLEN` for packets that the kernel did not filter: those of files, and those unpacked from a tunnel.

use std::sync::Arc;

use batch::Interface;
use packet::{LinkType, Origin, Record, Timestamp};
use pcap::{BpfProgram, Capture, Linktype};

use crate::batcher::{Batcher, InterfaceSlot};

/// A filter that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("FILTER: `{filter}` does not compile for {link_type}: {why}")]
pub struct FilterError {
    /// The expression.
    pub filter: String,
    /// The link type of the packets.
    pub link_type: LinkType,
    /// libpcap's message.
    pub why: String,
}

/// Which packets are kept, and how many bytes of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSpec {
    /// A pcap-filter(7) expression; `None` keeps every packet.
    pub filter: Option<String>,
    /// Maximum bytes kept per packet.
    pub snaplen: u32,
}

impl FilterSpec {
    /// Keeps every packet whole.
    pub const KEEP_ALL: Self = Self { filter: None, snaplen: u32::MAX };

    /// Whether every packet is kept whole.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.filter.is_none() && self.snaplen as usize >= packet::record::MAX_CAPTURED
    }

    /// Compiles the filter for a link type. `None` if there is no filter.
    ///
    /// # Errors
    /// The expression is invalid, or does not apply to this link type.
    pub fn compile(&self, link_type: LinkType) -> Result<Option<BpfProgram>, FilterError> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let failed = |error: pcap::Error| FilterError {
            filter: filter.clone(),
            link_type,
            why: match error {
                pcap::Error::PcapError(why) => why,
                other => other.to_string(),
            },
        };
        let dead = Capture::dead(Linktype(link_type.to_dlt().cast_signed())).map_err(failed)?;
        dead.compile(filter, true).map(Some).map_err(|error| {
            let mut error = failed(error);
            error.why.push_str(&locate_filter_error(filter, |part| dead.compile(part, true).is_ok()));
            error
        })
    }
}

/// Where in a filter the error may be, which libpcap does not say: after its longest beginning that compiles by itself.
pub(crate) fn locate_filter_error(filter: &str, compiles: impl Fn(&str) -> bool) -> String {
    let ends = filter.char_indices().filter(|(_, c)| c.is_whitespace()).map(|(at, _)| at);
    let beginnings = ends.map(|end| filter[..end].trim_end()).filter(|part| !part.is_empty());
    match beginnings.filter(|part| compiles(part)).last() {
        Some(valid) => format!(", after `{valid}`"),
        None => ", at its beginning".to_owned(),
    }
}

/// Applies a [`FilterSpec`] to packets.
#[derive(Debug)]
struct SoftwareFilter {
    spec: FilterSpec,
    /// Compiled once for each link type.
    programs: Vec<(LinkType, Program)>,
    /// The index in `programs`, by interface slot.
    by_slot: Vec<usize>,
}

/// The filter of one link type.
enum Program {
    /// There is no filter.
    KeepAll,
    /// The compiled expression.
    Bpf(BpfProgram),
    /// The expression does not apply to the interface's link type.
    DropAll,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::KeepAll => "KeepAll",
            Self::Bpf(_) => "Bpf",
            Self::DropAll => "DropAll",
        })
    }
}

impl SoftwareFilter {
    const fn new(spec: FilterSpec) -> Self {
        Self { spec, programs: Vec::new(), by_slot: Vec::new() }
    }

    const fn spec(&self) -> &FilterSpec {
        &self.spec
    }

    /// Prepares the filter for an interface.
    fn open(&mut self, slot: InterfaceSlot, origin: &Origin, link_type: LinkType) {
        let compiled = self.programs.iter().position(|(known, _)| *known == link_type);
        let program = compiled.unwrap_or_else(|| {
            let program = self.compile(origin, link_type);
            self.programs.push((link_type, program));
            self.programs.len() - 1
        });
        // A slot is used again when its interface has ended.
        if slot.0 >= self.by_slot.len() {
            self.by_slot.resize(slot.0 + 1, usize::MAX);
        }
        self.by_slot[slot.0] = program;
    }

    fn compile(&self, origin: &Origin, link_type: LinkType) -> Program {
        match self.spec.compile(link_type) {
            Ok(None) => Program::KeepAll,
            Ok(Some(program)) => Program::Bpf(program),
            Err(error) => {
                tracing::warn!(%origin, %error, "the filter does not apply to this interface's link type: none of its packets pass");
                Program::DropAll
            }
        }
    }

    /// The packet as kept, possibly truncated; `None` if the filter rejects it.
    #[inline]
    fn apply<'a>(&self, slot: InterfaceSlot, record: &Record<'a>) -> Option<Record<'a>> {
        let program = self.by_slot.get(slot.0).and_then(|at| self.programs.get(*at));
        let passes = match program {
            Some((_, Program::KeepAll)) => true,
            Some((_, Program::Bpf(program))) => program.filter(record.bytes),
            Some((_, Program::DropAll)) | None => false,
        };
        let bytes = record.bytes.get(..self.spec.snaplen as usize).unwrap_or(record.bytes);
        passes.then_some(Record { bytes, ..*record })
    }
}

/// The filter and the batcher.
#[derive(Debug)]
pub(crate) struct FilteredBatcher {
    filter: SoftwareFilter,
    pub(crate) batcher: Batcher,
}

impl FilteredBatcher {
    pub(crate) const fn new(spec: FilterSpec, batcher: Batcher) -> Self {
        Self { filter: SoftwareFilter::new(spec), batcher }
    }

    pub(crate) fn open(&mut self, interface: &Interface) -> InterfaceSlot {
        let slot = self.batcher.open(self.described(interface));
        self.filter.open(slot, &interface.origin, interface.link_type);
        slot
    }

    /// See [`Batcher::open_at`].
    pub(crate) fn open_at(
        &mut self,
        interface: &Interface,
        packet: Timestamp,
        now: Timestamp,
    ) -> InterfaceSlot {
        let slot = self.batcher.open_at(self.described(interface), packet, now);
        self.filter.open(slot, &interface.origin, interface.link_type);
        slot
    }

    pub(crate) fn describe(&mut self, slot: InterfaceSlot, interface: &Interface) {
        self.batcher.describe(slot, self.described(interface));
    }

    /// The interface with the filter and snaplen that apply here.
    fn described(&self, interface: &Interface) -> Arc<Interface> {
        let spec = self.filter.spec();
        Arc::new(Interface {
            snaplen: interface.snaplen.min(spec.snaplen),
            filter: spec.filter.as_deref().unwrap_or(&interface.filter).into(),
            ..interface.clone()
        })
    }

    /// Takes a packet that arrived at `now`. Returns false if `MAX_PACKETS` was reached.
    #[inline]
    pub(crate) fn push(&mut self, slot: InterfaceSlot, record: &Record<'_>, now: Timestamp) -> bool {
        match self.filter.apply(slot, record) {
            Some(record) => self.batcher.push(slot, &record, now),
            None => {
                self.batcher.advance_source_time(record.time);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_part_that_compiles() {
        let spec = FilterSpec { filter: Some("udp port 53 adn host 10.0.0.1".to_owned()), snaplen: 64 };
        let error = spec.compile(LinkType::ETHERNET).err().unwrap().to_string();
        assert!(
            error.starts_with("FILTER: `udp port 53 adn host 10.0.0.1` does not compile for "),
            "{error}"
        );
        assert!(error.ends_with(", after `udp port 53`"), "{error}");
        let spec = FilterSpec { filter: Some("prot".to_owned()), snaplen: 64 };
        let error = spec.compile(LinkType::ETHERNET).err().unwrap().to_string();
        assert!(error.ends_with(", at its beginning"), "{error}");
    }

    #[test]
    fn packets_are_rejected_or_cut() {
        let origin = Origin { source: "s".into(), device: "d".into(), listen_port: None };
        let mut filter = SoftwareFilter::new(FilterSpec { filter: Some("ip".to_owned()), snaplen: 16 });
        let (ethernet, usb) = (InterfaceSlot(0), InterfaceSlot(1));
        filter.open(ethernet, &origin, LinkType::ETHERNET);
        filter.open(usb, &origin, LinkType(220));
        let (mut ip, lldp) = ([0; 60], [0; 60]);
        ip[12] = 8;
        let record = Record { time: packet::Timestamp::ZERO, original: 60, bytes: &ip };
        let kept = filter.apply(ethernet, &record).unwrap();
        assert_eq!((kept.bytes.len(), kept.original), (16, 60));
        assert!(filter.apply(usb, &record).is_none());
        assert!(filter.apply(ethernet, &Record { bytes: &lldp, ..record }).is_none());
    }
}
