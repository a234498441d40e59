//! The origins of packets, and the labels of their series.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{LabelSet, Labels};
use packet::Origin;

/// The number of an origin in [`Origins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginId(pub u32);

impl OriginId {
    /// The number as an index.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The labels that distinguish the series of different origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// No labels: there is one origin.
    #[default]
    None,
    /// `device`, for a capture on several devices.
    Device,
    /// `source` and `device`, for a collector.
    SourceAndDevice,
}

/// All origins so far, numbered in the order of their registration.
///
/// Observers store the number, which is four bytes, in place of two names. Origins are never removed: there is one for
/// each device.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    scope: Scope,
    ids: HashMap<Origin, OriginId>,
    registered: Vec<Registered>,
}

#[derive(Clone, Debug)]
struct Registered {
    origin: Origin,
    /// The same labels as text for a table, and as objects for a collector.
    labels: Labels,
    label_set: LabelSet,
    /// See [`Origins::canonical`] and [`Origins::canonical_with_device`].
    canonical: OriginId,
    canonical_with_device: OriginId,
    /// Names by index.
    interfaces: HashMap<u32, Arc<str>>,
}

impl Origins {
    /// No origins.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, ..Self::default() }
    }

    /// The number of `origin`, which is assigned at the first call.
    pub fn register(&mut self, origin: &Origin) -> OriginId {
        if let Some(&id) = self.ids.get(origin) {
            return id;
        }
        let id = OriginId(u32::try_from(self.registered.len()).unwrap_or(u32::MAX));
        let named = match self.scope {
            Scope::None => &[][..],
            Scope::Device => &[("device", &origin.device)],
            Scope::SourceAndDevice => &[("source", &origin.source), ("device", &origin.device)],
        };
        let labels = named.iter().fold(Labels::new(), |labels, (name, value)| labels.with(name, value));
        let label_set = named.iter().fold(LabelSet::new(), |labels, (name, value)| labels.with(name, value));
        let mut same = self.registered.iter().filter(|other| other.labels == labels);
        let canonical = same.clone().next().map_or(id, |other| other.canonical);
        let with_device = same.find(|other| other.origin.device == origin.device);
        let canonical_with_device = with_device.map_or(id, |other| other.canonical_with_device);
        self.registered.push(Registered {
            origin: origin.clone(),
            labels,
            label_set,
            canonical,
            canonical_with_device,
            interfaces: HashMap::new(),
        });
        self.ids.insert(origin.clone(), id);
        id
    }

    /// Sets the names of interfaces of an origin whose packets carry an interface index.
    pub(crate) fn name_interfaces(&mut self, id: OriginId, names: &[(u32, Arc<str>)]) {
        if let Some(registered) = self.registered.get_mut(id.index()) {
            registered.interfaces.extend(names.iter().cloned());
        }
    }

    /// The labels of the origin's series, escaped, as the text between the braces; empty for none.
    pub(crate) fn labels(&self, id: OriginId) -> &str {
        self.registered.get(id.index()).map_or("", |registered| registered.labels.as_str())
    }

    /// The labels of the origin's series.
    pub(crate) fn label_set(&self, id: OriginId) -> LabelSet {
        self.registered.get(id.index()).map_or_else(LabelSet::new, |registered| registered.label_set.clone())
    }

    /// The first origin with the same labels. Its packets and those of `id` are counted together, because two series must
    /// not have the same labels.
    pub(crate) fn canonical(&self, id: OriginId) -> OriginId {
        self.registered.get(id.index()).map_or(id, |registered| registered.canonical)
    }

    /// The first origin with the same labels and the same device.
    pub(crate) fn canonical_with_device(&self, id: OriginId) -> OriginId {
        self.registered.get(id.index()).map_or(id, |registered| registered.canonical_with_device)
    }

    /// The name of the device that captured a packet: that of the packet's own interface if it has a name, else that of
    /// the origin.
    pub(crate) fn device(&self, id: OriginId, interface: Option<u32>) -> &str {
        let Some(registered) = self.registered.get(id.index()) else { return "" };
        interface.and_then(|index| registered.interfaces.get(&index)).unwrap_or(&registered.origin.device)
    }

    /// All origins, one for each set of labels.
    pub(crate) fn canonical_ids(&self) -> impl Iterator<Item = OriginId> {
        let ids =
            self.registered.iter().zip(0..).map(|(registered, id)| (registered.canonical, OriginId(id)));
        ids.filter(|(canonical, id)| canonical == id).map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str, device: &str) -> Origin {
        Origin { source: source.into(), device: device.into(), listen_port: None }
    }

    #[test]
    fn an_origin_has_one_number_and_the_labels_of_the_scope() {
        for (scope, expected) in [
            (Scope::None, ""),
            (Scope::Device, r#"device="eth\"0""#),
            (Scope::SourceAndDevice, r#"source="edge",device="eth\"0""#),
        ] {
            let mut origins = Origins::new(scope);
            let first = origins.register(&origin("edge", "eth\"0"));
            let second = origins.register(&origin("edge", "eth1"));
            assert_ne!(first, second);
            assert_eq!(origins.register(&origin("edge", "eth\"0")), first);
            assert_eq!(origins.labels(first), expected);
            assert_eq!(origins.registered.len(), 2);
        }
    }

    #[test]
    fn origins_with_the_same_labels_share_a_canonical_id() {
        let mut origins = Origins::new(Scope::None);
        let ids = [("a", "eth0"), ("b", "eth0"), ("a", "eth1")].map(|(s, d)| origins.register(&origin(s, d)));
        assert_eq!(ids.map(|id| origins.canonical(id)), [ids[0]; 3]);
        assert_eq!(ids.map(|id| origins.canonical_with_device(id)), [ids[0], ids[0], ids[2]]);
        assert_eq!(origins.canonical_ids().collect::<Vec<_>>(), [ids[0]]);
        let mut origins = Origins::new(Scope::SourceAndDevice);
        let ids = [("a", "eth0"), ("b", "eth0")].map(|(s, d)| origins.register(&origin(s, d)));
        assert_eq!(ids.map(|id| origins.canonical(id)), ids);
    }

    #[test]
    fn a_packet_belongs_to_its_own_interface() {
        let mut origins = Origins::new(Scope::None);
        let any = origins.register(&origin("edge", "any"));
        origins.name_interfaces(any, &[(2, "eth0".into())]);
        let devices = [Some(2), Some(3), None].map(|interface| origins.device(any, interface));
        assert_eq!(devices, ["eth0", "any", "any"]);
    }
}
