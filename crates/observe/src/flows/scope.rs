//! The series that an origin's packets count for.
//!
//! A scope is a set of labels. Origins or interfaces with the same labels share a scope, because no series may be
//! exposed twice: two routers that send TZSP to the same port, or an interface that came back with another index.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::Labels;
use packet::Origin;

use crate::origins::{MAX_NAMES, MAX_NAMES_IN_ALL};
use crate::{OriginId, Scope};

/// The scopes. Their numbers are [`OriginId`]s, because each is an origin with its own clock to the table.
#[derive(Debug)]
pub(super) struct Scopes {
    scope: Scope,
    ids: HashMap<Series, OriginId>,
    /// By number; those of numbers that are free are out of use.
    series: Vec<Series>,
    /// How many origins and interfaces have a scope.
    users: Vec<u32>,
    free: Vec<OriginId>,
    /// By origin.
    origins: Vec<Option<Registered>>,
    /// How many interfaces have a scope.
    names: usize,
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
        Self {
            scope,
            ids: HashMap::new(),
            series: Vec::new(),
            users: Vec::new(),
            free: Vec::new(),
            origins: Vec::new(),
            names: 0,
        }
    }

    /// See [`Flows::register`](super::Flows::register). Returns the scopes that are out of use: their flows must be removed
    /// before the next call.
    pub(super) fn register(
        &mut self,
        id: OriginId,
        origin: &Origin,
        interfaces: &[(u32, Arc<str>)],
    ) -> Vec<OriginId> {
        let scope = self.intern(origin, &origin.device);
        // Interfaces in TZSP are those of the router, whose address is the device already.
        let interfaces = if origin.listen_port.is_none() { interfaces } else { &[] };
        if id.index() >= self.origins.len() {
            self.origins.resize_with(id.index() + 1, || None);
        }
        let before = self.origins[id.index()].take();
        let mut named = HashMap::new();
        let mut unused = Vec::new();
        if let Some(before) = before {
            unused.push(before.scope);
            if before.interfaces.len() + interfaces.len() <= MAX_NAMES {
                named = before.interfaces;
            } else {
                // Those that the device does not have any more are forgotten.
                self.names -= before.interfaces.len();
                unused.extend(before.interfaces.into_values());
            }
        }
        for (index, name) in interfaces {
            let has_room = named.len() < MAX_NAMES && self.names < MAX_NAMES_IN_ALL;
            if has_room || named.contains_key(index) {
                let scope = self.intern(origin, name);
                match named.insert(*index, scope) {
                    Some(before) => unused.push(before),
                    None => self.names += 1,
                }
            }
        }
        self.origins[id.index()] = Some(Registered { scope, interfaces: named });
        self.release(unused)
    }

    /// Forgets an origin. Returns the scopes that are out of use, as [`Scopes::register`] does.
    pub(super) fn forget(&mut self, id: OriginId) -> Vec<OriginId> {
        let Some(registered) = self.origins.get_mut(id.index()).and_then(Option::take) else {
            return Vec::new();
        };
        self.names -= registered.interfaces.len();
        self.release(registered.interfaces.into_values().chain([registered.scope]).collect())
    }

    /// Takes back one use of each scope. Returns those that have none left.
    fn release(&mut self, mut scopes: Vec<OriginId>) -> Vec<OriginId> {
        scopes.retain(|scope| {
            let users = &mut self.users[scope.index()];
            *users -= 1;
            *users == 0
        });
        for scope in &scopes {
            self.ids.remove(&self.series[scope.index()]);
        }
        self.free.extend(&scopes);
        scopes
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

    /// The scope of a device of an origin, with one more user.
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
        let scope = match self.ids.get(&series) {
            Some(&scope) => scope,
            None => self.add(series),
        };
        self.users[scope.index()] += 1;
        scope
    }

    fn add(&mut self, series: Series) -> OriginId {
        let scope = self.free.pop().unwrap_or_else(|| {
            self.series.push(series.clone());
            self.users.push(0);
            OriginId(u32::try_from(self.series.len() - 1).unwrap_or(u32::MAX))
        });
        self.series[scope.index()] = series.clone();
        self.ids.insert(series, scope);
        scope
    }
}
