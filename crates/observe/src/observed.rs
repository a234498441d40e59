//! What every observer is handed: a packet, and where it was seen.

use std::collections::HashMap;
use std::sync::Arc;

use packet::{Headers, Origin, Timestamp};

use crate::Labels;

/// A packet, its headers read.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// When it was captured.
    pub time: Timestamp,
    /// How long it was on the wire, in bytes.
    pub wire_len: u32,
    /// What was kept of it.
    pub bytes: &'a [u8],
    /// What its headers say.
    pub headers: &'a Headers,
    /// Where it was captured.
    pub origin: OriginId,
}

/// An origin by its number in [`Origins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginId(pub u32);

impl OriginId {
    /// As an index into a table with a row for each origin.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which labels tell the series of different origins apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// None: there is one origin.
    #[default]
    None,
    /// `device`: a capture on several devices.
    Device,
    /// `source` and `device`: a collector.
    SourceAndDevice,
}

/// The origins seen so far, numbered in the order of their appearance.
///
/// Observers keep the number, four bytes, where they would keep two names. An origin is never forgotten: there are as many
/// as there are devices.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    scope: Scope,
    ids: HashMap<Origin, OriginId>,
    known: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    origin: Origin,
    labels: Labels,
    /// See [`Origins::alike`] and [`Origins::alike_with_device`].
    alike: OriginId,
    alike_with_device: OriginId,
    interfaces: HashMap<u32, Arc<str>>,
}

impl Origins {
    /// None yet.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, ..Self::default() }
    }

    /// The number of `origin`, which is a new one where it was not seen before.
    pub fn intern(&mut self, origin: &Origin) -> OriginId {
        if let Some(&id) = self.ids.get(origin) {
            return id;
        }
        let id = OriginId(u32::try_from(self.known.len()).unwrap_or(u32::MAX));
        let labels = match self.scope {
            Scope::None => Labels::new(),
            Scope::Device => Labels::new().with("device", &origin.device),
            Scope::SourceAndDevice => {
                Labels::new().with("source", &origin.source).with("device", &origin.device)
            }
        };
        // Looked for once, as every batch asks for it.
        let mut same = self.known.iter().filter(|known| known.labels == labels);
        let alike = same.clone().next().map_or(id, |known| known.alike);
        let with_device = same.find(|known| known.origin.device == origin.device);
        let alike_with_device = with_device.map_or(id, |known| known.alike_with_device);
        let interfaces = HashMap::new();
        self.known.push(Known { origin: origin.clone(), labels, alike, alike_with_device, interfaces });
        self.ids.insert(origin.clone(), id);
        id
    }

    /// Takes note of what the interfaces of an origin are called whose packets tell their interface by its index.
    pub fn name_interfaces(&mut self, id: OriginId, names: &[(u32, Arc<str>)]) {
        if let Some(known) = self.known.get_mut(id.index()) {
            known.interfaces.extend(names.iter().cloned());
        }
    }

    /// The origin of that number.
    #[must_use]
    pub fn get(&self, id: OriginId) -> Option<&Origin> {
        self.known.get(id.index()).map(|known| &known.origin)
    }

    /// The labels that tell the series of this origin from those of others, escaped, as they stand between the braces; empty
    /// where none are needed.
    #[must_use]
    pub fn labels(&self, id: OriginId) -> &str {
        self.known.get(id.index()).map_or("", |known| known.labels.as_str())
    }

    /// The first origin whose series have the same labels as this one's: what was seen at either counts as one, for no two
    /// series may have the same labels.
    #[must_use]
    pub fn alike(&self, id: OriginId) -> OriginId {
        self.known.get(id.index()).map_or(id, |known| known.alike)
    }

    /// The same for series that are also labelled with the name of the device.
    #[must_use]
    pub fn alike_with_device(&self, id: OriginId) -> OriginId {
        self.known.get(id.index()).map_or(id, |known| known.alike_with_device)
    }

    /// The name of the device that saw a packet: of the packet's own interface where that is known, else of the origin.
    #[must_use]
    pub fn device(&self, id: OriginId, interface: Option<u32>) -> &str {
        let Some(known) = self.known.get(id.index()) else { return "" };
        interface.and_then(|index| known.interfaces.get(&index)).unwrap_or(&known.origin.device)
    }

    /// All origins, by number.
    pub fn iter(&self) -> impl Iterator<Item = (OriginId, &Origin)> {
        self.known.iter().zip(0..).map(|(known, id)| (OriginId(id), &known.origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str, device: &str) -> Origin {
        Origin { source: source.into(), device: device.into(), listen_port: None }
    }

    #[test]
    fn an_origin_has_one_number_and_the_labels_of_its_scope() {
        for (scope, expected) in [
            (Scope::None, ""),
            (Scope::Device, r#"device="eth\"0""#),
            (Scope::SourceAndDevice, r#"source="edge",device="eth\"0""#),
        ] {
            let mut origins = Origins::new(scope);
            let first = origins.intern(&origin("edge", "eth\"0"));
            let second = origins.intern(&origin("edge", "eth1"));
            assert_ne!(first, second);
            assert_eq!(origins.intern(&origin("edge", "eth\"0")), first);
            assert_eq!(origins.labels(first), expected);
            assert_eq!(origins.iter().count(), 2);
        }
    }

    #[test]
    fn origins_with_the_same_labels_count_as_one() {
        let mut origins = Origins::new(Scope::None);
        let ids = [("a", "eth0"), ("b", "eth0"), ("a", "eth1")].map(|(s, d)| origins.intern(&origin(s, d)));
        assert_eq!(ids.map(|id| origins.alike(id)), [ids[0]; 3]);
        assert_eq!(ids.map(|id| origins.alike_with_device(id)), [ids[0], ids[0], ids[2]]);
        let mut origins = Origins::new(Scope::SourceAndDevice);
        let ids = [("a", "eth0"), ("b", "eth0")].map(|(s, d)| origins.intern(&origin(s, d)));
        assert_eq!(ids.map(|id| origins.alike(id)), ids);
    }

    #[test]
    fn a_packet_was_seen_by_its_own_interface() {
        let mut origins = Origins::new(Scope::None);
        let any = origins.intern(&origin("edge", "any"));
        origins.name_interfaces(any, &[(2, "eth0".into())]);
        let devices = [Some(2), Some(3), None].map(|interface| origins.device(any, interface));
        assert_eq!(devices, ["eth0", "any", "any"]);
    }
}
