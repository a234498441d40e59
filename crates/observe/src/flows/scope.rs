//! The series that an origin's packets count for.
//!
//! A scope is a set of labels. Origins or interfaces with the same labels share a scope, because no series may be
//! exposed twice: two routers that send TZSP to the same port, or an interface that came back with another index.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::Labels;
use packet::Origin;

use crate::{OriginId, Scope};

/// The scopes. Their numbers are [`OriginId`]s, because each is an origin with its own clock to the table.
#[derive(Debug)]
pub(super) struct Scopes {
    scope: Scope,
    ids: HashMap<Series, OriginId>,
    series: Vec<Series>,
    /// By origin.
    origins: Vec<Option<Registered>>,
}

/// The series of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Series {
    /// Whether the packets arrived by TZSP.
    pub(super) tzsp: bool,
    /// The labels of the scope, escaped, as the text between the braces.
    pub(super) labels: Arc<str>,
}

/// A registered origin.
#[derive(Debug)]
struct Registered {
    scope: OriginId,
    /// The scopes of interfaces with a name, by index.
    interfaces: HashMap<u32, OriginId>,
}

impl Scopes {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, ids: HashMap::new(), series: Vec::new(), origins: Vec::new() }
    }

    /// See [`Flows::register`](super::Flows::register).
    pub(super) fn register(&mut self, id: OriginId, origin: &Origin, interfaces: &[(u32, Arc<str>)]) {
        let scope = self.intern(origin, &origin.device);
        // Interfaces in TZSP are those of the router, whose address is the device already.
        let interfaces = if origin.listen_port.is_none() { interfaces } else { &[] };
        let named: Vec<_> =
            interfaces.iter().map(|(index, name)| (*index, self.intern(origin, name))).collect();
        if id.index() >= self.origins.len() {
            self.origins.resize_with(id.index() + 1, || None);
        }
        let registered =
            self.origins[id.index()].get_or_insert_with(|| Registered { scope, interfaces: HashMap::new() });
        registered.scope = scope;
        registered.interfaces.extend(named);
    }

    /// The scope of a packet.
    #[inline]
    pub(super) fn of(&mut self, id: OriginId, interface: Option<u32>) -> OriginId {
        match self.origins.get(id.index()) {
            Some(Some(registered)) => {
                let named = interface.and_then(|index| registered.interfaces.get(&index).copied());
                named.unwrap_or(registered.scope)
            }
            _ => self.of_unregistered(id),
        }
    }

    /// All scopes of an origin's packets.
    pub(super) fn all_of(&self, id: OriginId) -> impl Iterator<Item = OriginId> {
        let registered = self.origins.get(id.index()).and_then(Option::as_ref);
        registered.into_iter().flat_map(|registered| {
            std::iter::once(registered.scope).chain(registered.interfaces.values().copied())
        })
    }

    /// The series of all scopes, by number.
    pub(super) fn series(&self) -> &[Series] {
        &self.series
    }

    /// Packets of an unregistered origin are counted for a device without a name.
    #[cold]
    fn of_unregistered(&mut self, id: OriginId) -> OriginId {
        self.register(id, &Origin { source: "".into(), device: "".into(), listen_port: None }, &[]);
        self.of(id, None)
    }

    fn intern(&mut self, origin: &Origin, device: &str) -> OriginId {
        let mut labels = Labels::new();
        if self.scope == Scope::SourceAndDevice {
            labels.push("source", &origin.source);
        }
        // The device of a TZSP origin is the router's address, which is a label only at a collector.
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
