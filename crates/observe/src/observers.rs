//! All observers of a program, and the walk over a batch that feeds them.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Exposition;
use packet::headers::address_family;
use packet::{Origin, Records};
use parking_lot::Mutex;
use prometheus::core::Collector;

use crate::flows::{Flows, FlowsConfig};
use crate::holders::Holders;
use crate::observer::{BatchOrigin, Chunk, Observer};
use crate::pairs::{Pairs, PairsConfig};
use crate::sizes::{self, Sizes};
use crate::streams::{Streams, StreamsConfig};
use crate::{ObservedBatch, OriginId, Origins, Scope};

/// The observers to run, and their bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserversConfig {
    /// The labels that distinguish origins.
    pub scope: Scope,
    /// Packet lengths by address family.
    pub sizes: bool,
    /// Packets and bytes by addresses and protocol.
    pub flows: Option<FlowsConfig>,
    /// The health of each TCP stream.
    pub streams: Option<StreamsConfig>,
    /// TCP between pairs of hosts.
    pub pairs: Option<PairsConfig>,
}

/// The observers.
///
/// Capture threads and scrapes share them. Each observer has one lock, which a thread takes for a chunk of up to 64
/// packets at a time. So threads that capture on several devices take turns in an observer, but they can be in
/// different observers at the same time. A scrape holds a lock only while it copies about a thousand entries.
#[derive(Debug)]
pub struct Observers {
    origins: Mutex<Registry>,
    packets: AtomicU64,
    /// Counted during the walk itself, because it needs only the address family.
    sizes: Option<Mutex<Sizes>>,
    /// Those that need parsed headers.
    observers: Vec<Arc<dyn Observer>>,
}

#[derive(Debug)]
struct Registry {
    /// Scrapes read a snapshot.
    origins: Arc<Origins>,
    holders: Holders,
}

impl Registry {
    fn forget(&mut self, id: OriginId) -> Vec<OriginId> {
        let freed = Arc::make_mut(&mut self.origins).forget(id);
        freed.iter().for_each(|id| self.holders.clear(*id));
        freed
    }
}

impl Observers {
    /// Observers that have seen no packet.
    #[must_use]
    pub fn new(config: ObserversConfig) -> Arc<Self> {
        let ObserversConfig { scope, sizes, flows, streams, pairs } = config;
        // Each observer is registered here. Pairs comes after streams, whose analysis it uses.
        let observers = [
            flows.map(|config| shared(Flows::new(config, scope))),
            streams.map(|config| shared(Streams::new(config))),
            pairs.map(|config| shared(Pairs::new(config))),
        ];
        Arc::new(Self {
            origins: Mutex::new(Registry {
                origins: Arc::new(Origins::new(scope)),
                holders: Holders::default(),
            }),
            packets: AtomicU64::new(0),
            sizes: sizes.then(Mutex::default),
            observers: observers.into_iter().flatten().collect(),
        })
    }

    /// The id of an origin, to be used for its batches until [`release`](Self::release) is called as often as this, or
    /// [`forget`](Self::forget) once. `interfaces` are the names of the interfaces that a cooked device's packets refer to
    /// by index; call this again when there are more.
    pub fn register(&self, origin: &Origin, interfaces: &[(u32, Arc<str>)]) -> OriginId {
        let id = {
            let mut registry = self.origins.lock();
            let Registry { origins, holders } = &mut *registry;
            // A scrape reads a snapshot, and must not find another origin under a number of it.
            let reuse = Arc::get_mut(origins).is_some_and(|origins| !origins.is_copied());
            let origins = Arc::make_mut(origins);
            let id = origins.register_as(origin, reuse);
            origins.name_interfaces(id, interfaces);
            holders.add(id);
            id
        };
        for observer in &self.observers {
            observer.register(id, origin, interfaces);
        }
        id
    }

    /// Takes back a call of [`register`](Self::register). An origin that is out of use is forgotten when thousands of
    /// others were released after it.
    pub fn release(&self, id: OriginId) {
        let freed = {
            let mut registry = self.origins.lock();
            registry.holders.remove(id).map_or_else(Vec::new, |oldest| registry.forget(oldest))
        };
        self.forget_all(&freed);
    }

    /// Forgets an origin, and everything that was measured of it.
    pub fn forget(&self, id: OriginId) {
        let freed = self.origins.lock().forget(id);
        self.forget_all(&freed);
    }

    fn forget_all(&self, freed: &[OriginId]) {
        if freed.is_empty() {
            return;
        }
        for observer in &self.observers {
            freed.iter().for_each(|id| observer.forget(*id));
        }
        // Not earlier: another thread might register an origin with one of these numbers.
        Arc::make_mut(&mut self.origins.lock().origins).free(freed);
    }

    /// Observes a batch.
    pub fn observe(&self, batch: &ObservedBatch<'_>) {
        self.packets.fetch_add(u64::from(batch.packets), Ordering::Relaxed);
        if self.observers.is_empty() {
            self.observe_sizes(batch);
        } else {
            self.observe_headers(batch);
        }
    }

    /// The default alongside a relay: no observer needs the headers.
    fn observe_sizes(&self, batch: &ObservedBatch<'_>) {
        let Some(sizes) = &self.sizes else { return };
        let mut counted = Sizes::default();
        for record in Records::new(batch.records) {
            counted.observe(address_family(batch.link_type, record.bytes), record.original);
        }
        sizes.lock().add(&counted);
    }

    /// Parses the headers of each packet once for all observers.
    fn observe_headers(&self, batch: &ObservedBatch<'_>) {
        let origin = self.batch_origin(batch.origin);
        let mut chunk = Chunk::new(origin, batch.packets as usize);
        let mut records = Records::new(batch.records);
        let mut counted = Sizes::default();
        while chunk.refill(&mut records, batch.link_type) {
            for packet in chunk.packets() {
                counted.observe(packet.headers.family, packet.wire_len);
            }
            for observer in &self.observers {
                observer.observe(&mut chunk);
            }
        }
        for observer in &self.observers {
            observer.advance(origin, batch.watermark);
        }
        if let Some(sizes) = &self.sizes {
            sizes.lock().add(&counted);
        }
    }

    fn batch_origin(&self, id: OriginId) -> BatchOrigin {
        let origins = &self.origins.lock().origins;
        BatchOrigin {
            id,
            canonical: origins.canonical(id),
            canonical_with_device: origins.canonical_with_device(id),
        }
    }

    /// Packets observed so far, whichever observers run.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Collectors of all metrics whose number does not grow with the traffic, to be registered in a
    /// `prometheus::Registry`.
    ///
    /// # Errors
    /// A declaration is invalid.
    pub fn collectors(self: &Arc<Self>) -> prometheus::Result<Vec<Box<dyn Collector>>> {
        let mut collectors = Vec::new();
        if self.sizes.is_some() {
            let this = Arc::clone(self);
            let collect = move || this.sizes.as_ref().map(|sizes| sizes.lock().collect()).unwrap_or_default();
            collectors.push(metrics::collector(sizes::DECLARATIONS, collect)?);
        }
        for observer in &self.observers {
            let (this, observer) = (Arc::clone(self), Arc::clone(observer));
            let declarations = observer.declarations();
            let collect = move || observer.collect(&this.snapshot());
            collectors.push(metrics::collector(declarations, collect)?);
        }
        Ok(collectors)
    }

    /// Writes the tables: the metrics whose number grows with the traffic.
    pub fn write_tables(&self, out: &mut Exposition) {
        let origins = self.snapshot();
        for observer in &self.observers {
            observer.write_table(&origins, out);
        }
    }

    fn snapshot(&self) -> Arc<Origins> {
        Arc::clone(&self.origins.lock().origins)
    }
}

fn shared<T>(observer: T) -> Arc<dyn Observer>
where
    Mutex<T>: Observer + 'static,
{
    Arc::new(Mutex::new(observer))
}
