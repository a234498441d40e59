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

/// The most interface names of an origin: those that a batch can have, and as many that are gone. A host that runs
/// containers names new ones all the time.
pub(crate) const MAX_NAMES: usize = 1024;

/// The most interface names of all origins. Packets of interfaces without a name count for their origin's device.
pub(crate) const MAX_NAMES_IN_ALL: usize = 65_536;

/// All origins that are known.
///
/// Observers store their number, which is four bytes, in place of two names. The number of a forgotten origin is used
/// again.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    scope: Scope,
    ids: HashMap<Origin, OriginId>,
    /// See [`Origins::canonical`].
    canonical: HashMap<Labels, OriginId>,
    /// See [`Origins::canonical_with_device`].
    canonical_with_device: HashMap<(Labels, Arc<str>), OriginId>,
    /// By number.
    registered: Vec<Option<Registered>>,
    free: Vec<OriginId>,
    /// How many interface names there are.
    names: usize,
    /// Each copy has one.
    copies: Arc<()>,
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
    /// How often others name it as one of these two.
    users: u32,
    /// Names by index.
    interfaces: HashMap<u32, Arc<str>>,
    /// Whether it was forgotten, and is kept because others are counted with it.
    forgotten: bool,
}

impl Origins {
    /// No origins.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, ..Self::default() }
    }

    /// The number of `origin`, which is assigned at the first call.
    pub fn register(&mut self, origin: &Origin) -> OriginId {
        self.register_as(origin, true)
    }

    /// The number of `origin`. `reuse` permits that of a forgotten origin.
    pub(crate) fn register_as(&mut self, origin: &Origin, reuse: bool) -> OriginId {
        if let Some(&id) = self.ids.get(origin) {
            if let Some(Some(registered)) = self.registered.get_mut(id.index()) {
                registered.forgotten = false;
            }
            return id;
        }
        let free = if reuse { self.free.pop() } else { None };
        let id = free.unwrap_or_else(|| {
            self.registered.push(None);
            OriginId(u32::try_from(self.registered.len() - 1).unwrap_or(u32::MAX))
        });
        let named = match self.scope {
            Scope::None => &[][..],
            Scope::Device => &[("device", &origin.device)],
            Scope::SourceAndDevice => &[("source", &origin.source), ("device", &origin.device)],
        };
        let labels = named.iter().fold(Labels::new(), |labels, (name, value)| labels.with(name, value));
        let label_set = named.iter().fold(LabelSet::new(), |labels, (name, value)| labels.with(name, value));
        let canonical = *self.canonical.entry(labels.clone()).or_insert(id);
        let of_device = (labels.clone(), Arc::clone(&origin.device));
        let canonical_with_device = *self.canonical_with_device.entry(of_device).or_insert(id);
        for used in [canonical, canonical_with_device].into_iter().filter(|used| *used != id) {
            if let Some(Some(used)) = self.registered.get_mut(used.index()) {
                used.users += 1;
            }
        }
        if let Some(place) = self.registered.get_mut(id.index()) {
            *place = Some(Registered {
                origin: origin.clone(),
                labels,
                label_set,
                canonical,
                canonical_with_device,
                users: 0,
                interfaces: HashMap::new(),
                forgotten: false,
            });
        }
        self.ids.insert(origin.clone(), id);
        id
    }

    /// Forgets an origin, unless others are counted with it: then it is forgotten with the last of them. Returns the
    /// numbers that are out of use now, to be passed to [`free`](Self::free).
    pub(crate) fn forget(&mut self, id: OriginId) -> Vec<OriginId> {
        let Some(Some(registered)) = self.registered.get_mut(id.index()) else { return Vec::new() };
        registered.forgotten = true;
        let with = [registered.canonical_with_device, registered.canonical];
        let mut freed = Vec::new();
        // An origin is free before those that it is counted with.
        for candidate in [id].into_iter().chain(with) {
            let Some(place) = self.registered.get_mut(candidate.index()) else { continue };
            let Some(registered) = place.take_if(|known| known.forgotten && known.users == 0) else {
                continue;
            };
            self.remove(candidate, &registered);
            freed.push(candidate);
        }
        freed
    }

    /// Removes a free origin from everything but [`Self::registered`].
    fn remove(&mut self, id: OriginId, registered: &Registered) {
        for used in [registered.canonical, registered.canonical_with_device] {
            if let Some(Some(used)) = self.registered.get_mut(used.index()) {
                used.users -= 1;
            }
        }
        if registered.canonical == id {
            self.canonical.remove(&registered.labels);
        }
        if registered.canonical_with_device == id {
            let of_device = (registered.labels.clone(), Arc::clone(&registered.origin.device));
            self.canonical_with_device.remove(&of_device);
        }
        self.names -= registered.interfaces.len();
        self.ids.remove(&registered.origin);
    }

    /// Permits that these numbers are used again.
    pub(crate) fn free(&mut self, ids: &[OriginId]) {
        self.free.extend(ids);
    }

    /// Sets the names of interfaces of an origin whose packets carry an interface index.
    pub(crate) fn name_interfaces(&mut self, id: OriginId, names: &[(u32, Arc<str>)]) {
        let Some(Some(registered)) = self.registered.get_mut(id.index()) else { return };
        let interfaces = &mut registered.interfaces;
        self.names -= interfaces.len();
        if interfaces.len() + names.len() > MAX_NAMES {
            // Those that the device does not have any more are forgotten.
            interfaces.clear();
        }
        let room = MAX_NAMES.min(MAX_NAMES_IN_ALL - self.names);
        for (index, name) in names {
            if interfaces.len() < room || interfaces.contains_key(index) {
                interfaces.insert(*index, Arc::clone(name));
            }
        }
        self.names += interfaces.len();
    }

    /// Whether there is a copy of this.
    pub(crate) fn is_copied(&self) -> bool {
        Arc::strong_count(&self.copies) > 1
    }

    /// How many numbers there are, used and free.
    #[cfg(test)]
    pub(crate) fn numbers(&self) -> usize {
        self.registered.len()
    }

    fn get(&self, id: OriginId) -> Option<&Registered> {
        self.registered.get(id.index())?.as_ref()
    }

    /// The labels of the origin's series, escaped, as the text between the braces; empty for none.
    pub(crate) fn labels(&self, id: OriginId) -> &str {
        self.get(id).map_or("", |registered| registered.labels.as_str())
    }

    /// The labels of the origin's series.
    pub(crate) fn label_set(&self, id: OriginId) -> LabelSet {
        self.get(id).map_or_else(LabelSet::new, |registered| registered.label_set.clone())
    }

    /// The first origin with the same labels. Its packets and those of `id` are counted together, because two series must
    /// not have the same labels.
    pub(crate) fn canonical(&self, id: OriginId) -> OriginId {
        self.get(id).map_or(id, |registered| registered.canonical)
    }

    /// The first origin with the same labels and the same device.
    pub(crate) fn canonical_with_device(&self, id: OriginId) -> OriginId {
        self.get(id).map_or(id, |registered| registered.canonical_with_device)
    }

    /// The name of the device that captured a packet: that of the packet's own interface if it has a name, else that of
    /// the origin.
    pub(crate) fn device(&self, id: OriginId, interface: Option<u32>) -> &str {
        let Some(registered) = self.get(id) else { return "" };
        interface.and_then(|index| registered.interfaces.get(&index)).unwrap_or(&registered.origin.device)
    }

    /// All origins, one for each set of labels.
    pub(crate) fn canonical_ids(&self) -> impl Iterator<Item = OriginId> {
        let ids = self
            .registered
            .iter()
            .zip(0..)
            .filter_map(|(registered, id)| Some((registered.as_ref()?.canonical, OriginId(id))));
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

    #[test]
    fn numbers_of_forgotten_origins_are_used_again() {
        let mut origins = Origins::new(Scope::SourceAndDevice);
        let a = origins.register(&origin("a", "eth0"));
        let b = origins.register(&origin("b", "eth0"));
        assert_eq!((origins.forget(a), origins.forget(a)), (vec![a], vec![]));
        assert_eq!((origins.labels(a), origins.canonical_ids().count()), ("", 1));
        assert_ne!(origins.register_as(&origin("c", "eth0"), false), a);
        assert_ne!(origins.register(&origin("d", "eth0")), a);
        origins.free(&[a]);
        assert_eq!(origins.register(&origin("e", "eth0")), a);
        assert_eq!(origins.register(&origin("b", "eth0")), b);
    }

    #[test]
    fn an_origin_that_others_are_counted_with_stays_until_they_are_forgotten() {
        let mut origins = Origins::new(Scope::None);
        let ids = [("a", "x"), ("b", "y"), ("c", "y")].map(|(s, d)| origins.register(&origin(s, d)));
        assert_eq!((origins.forget(ids[0]), origins.forget(ids[1])), (vec![], vec![]));
        assert_eq!(origins.canonical(ids[2]), ids[0]);
        let mut freed = origins.forget(ids[2]);
        freed.sort_unstable();
        assert_eq!(freed, ids);
        assert!(
            origins.ids.is_empty()
                && origins.canonical.is_empty()
                && origins.canonical_with_device.is_empty()
        );
    }

    #[test]
    fn interface_names_are_bounded() {
        let mut origins = Origins::new(Scope::None);
        let names = |from: u32| (from..from + 512).map(|index| (index, "x".into())).collect::<Vec<_>>();
        for source in 0..200 {
            let id = origins.register(&origin(&source.to_string(), "any"));
            for step in 0..10 {
                origins.name_interfaces(id, &names(step * 512));
            }
            if source == 0 {
                assert_eq!(origins.device(id, Some(5119)), "x");
            }
        }
        assert_eq!(origins.names, MAX_NAMES_IN_ALL);
        for source in 0..200 {
            let id = origins.register(&origin(&source.to_string(), "any"));
            origins.forget(id);
        }
        assert_eq!(origins.names, 0);
    }
}
