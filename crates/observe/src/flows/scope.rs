//! Which series an origin's packets count for.
//!
//! A scope is a set of labels. What is told apart by a label has a scope of its own, and what is not has none: two routers
//! that send TZSP to the same port, or an interface that went away and came back with another index, must not give the
//! same series twice.

use std::collections::HashMap;
use std::sync::Arc;

use packet::Origin;

use crate::{Labels, OriginId, Scope};

/// The scopes. They are numbered as an [`OriginId`], for to the table each is an origin with a clock of its own.
#[derive(Debug)]
pub(super) struct Scopes {
    scope: Scope,
    ids: HashMap<Series, OriginId>,
    series: Vec<Series>,
    /// By the number of the origin.
    origins: Vec<Option<Met>>,
}

/// What the series of a scope are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Series {
    /// Whether their packets came by TZSP.
    pub(super) tzsp: bool,
    /// Their labels, but for those of the flow, as they stand between the braces.
    pub(super) labels: Arc<str>,
}

/// An origin that was met.
#[derive(Debug)]
struct Met {
    scope: OriginId,
    /// By the index of the interface, where that has a name.
    interfaces: HashMap<u32, OriginId>,
}

impl Scopes {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, ids: HashMap::new(), series: Vec::new(), origins: Vec::new() }
    }

    /// See [`Flows::meet`](super::Flows::meet).
    pub(super) fn meet(&mut self, id: OriginId, origin: &Origin, interfaces: &[(u32, Arc<str>)]) {
        let scope = self.intern(origin, &origin.device);
        // What TZSP tells of interfaces, if anything, is of the router's, and a collector's label has its address.
        let interfaces = if origin.listen_port.is_none() { interfaces } else { &[] };
        let named: Vec<_> =
            interfaces.iter().map(|(index, name)| (*index, self.intern(origin, name))).collect();
        if id.index() >= self.origins.len() {
            self.origins.resize_with(id.index() + 1, || None);
        }
        let met = self.origins[id.index()].get_or_insert_with(|| Met { scope, interfaces: HashMap::new() });
        met.scope = scope;
        met.interfaces.extend(named);
    }

    /// The scope of a packet.
    #[inline]
    pub(super) fn of(&mut self, id: OriginId, interface: Option<u32>) -> OriginId {
        match self.origins.get(id.index()) {
            Some(Some(met)) => {
                let named = interface.and_then(|index| met.interfaces.get(&index).copied());
                named.unwrap_or(met.scope)
            }
            _ => self.of_stranger(id),
        }
    }

    /// The scopes that an origin's packets may have.
    pub(super) fn all_of(&self, id: OriginId) -> impl Iterator<Item = OriginId> {
        let met = self.origins.get(id.index()).and_then(Option::as_ref);
        met.into_iter().flat_map(|met| std::iter::once(met.scope).chain(met.interfaces.values().copied()))
    }

    /// The series of all scopes, by number.
    pub(super) fn series(&self) -> &[Series] {
        &self.series
    }

    /// Packets before an introduction are counted all the same, for a device without a name.
    #[cold]
    fn of_stranger(&mut self, id: OriginId) -> OriginId {
        self.meet(id, &Origin { source: "".into(), device: "".into(), listen_port: None }, &[]);
        self.of(id, None)
    }

    fn intern(&mut self, origin: &Origin, device: &str) -> OriginId {
        let mut labels = Labels::new();
        if self.scope == Scope::SourceAndDevice {
            labels.push("source", &origin.source);
        }
        // The device of TZSP is the router's address, which only a collector tells. All others always say where they are.
        if self.scope == Scope::SourceAndDevice || origin.listen_port.is_none() {
            labels.push("device", device);
        }
        if let Some(port) = origin.listen_port {
            labels.push("listen_port", port);
        }
        let series = Series { tzsp: origin.listen_port.is_some(), labels: labels.as_str().into() };
        let next = OriginId(u32::try_from(self.series.len()).unwrap_or(u32::MAX));
        *self.ids.entry(series).or_insert_with_key(|series| {
            self.series.push(series.clone());
            next
        })
    }
}
