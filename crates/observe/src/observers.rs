//! All observers of a program, and the one walk over a batch that feeds them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packet::headers::address_family;
use packet::{Headers, LinkType, Origin, Records, Timestamp};

use crate::flows::{self, Flows};
use crate::pairs::{self, Pairs};
use crate::sizes::Sizes;
use crate::streams::{self, Streams};
use crate::{Exposition, Observed, OriginId, Origins, Scope};

/// Which observers run, and within which bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How the series of different origins are told apart.
    pub scope: Scope,
    /// Packet sizes, by address family.
    pub sizes: bool,
    /// Packets and bytes, by addresses and protocol.
    pub flows: Option<flows::Config>,
    /// The health of every TCP stream.
    pub streams: Option<streams::Config>,
    /// TCP between pairs of hosts.
    pub pairs: Option<pairs::Config>,
}

/// Packets of one origin, as they lie in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Whose they are.
    pub origin: OriginId,
    /// What they begin with.
    pub link_type: LinkType,
    /// How many there are.
    pub packets: u32,
    /// Records, one after the other.
    pub records: &'a [u8],
    /// No older packet of this origin comes any more.
    pub watermark: Timestamp,
}

/// The observers. They are shared by the threads that see packets and the one that answers scrapes: a batch locks each
/// observer once, a scrape only for as long as it takes to copy a few figures.
#[derive(Debug)]
pub struct Observers {
    origins: Mutex<Origins>,
    packets: AtomicU64,
    sizes: Option<Mutex<Sizes>>,
    flows: Option<Mutex<Flows>>,
    streams: Option<Mutex<Streams>>,
    pairs: Option<Mutex<Pairs>>,
}

impl Observers {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            origins: Mutex::new(Origins::new(config.scope)),
            packets: AtomicU64::new(0),
            sizes: config.sizes.then(Mutex::default),
            flows: config.flows.map(|config| Mutex::new(Flows::new(config))),
            streams: config.streams.map(|config| Mutex::new(Streams::new(config))),
            pairs: config.pairs.map(|config| Mutex::new(Pairs::new(config))),
        })
    }

    /// The number of an origin, by which its batches are observed from then on. `interfaces` are the names of those behind
    /// a cooked device; to be called again when there are more.
    pub fn origin(&self, origin: &Origin, interfaces: &[(u32, Arc<str>)]) -> OriginId {
        let mut origins = lock(&self.origins);
        let id = origins.intern(origin);
        origins.name_interfaces(id, interfaces);
        drop(origins);
        if let Some(flows) = &self.flows {
            lock(flows).meet(id, origin, interfaces);
        }
        id
    }

    /// Looks at a batch.
    pub fn observe(&self, batch: &Batch<'_>) {
        self.packets.fetch_add(u64::from(batch.packets), Ordering::Relaxed);
        if self.flows.is_some() || self.streams.is_some() || self.pairs.is_some() {
            self.observe_headers(batch);
        } else if let Some(sizes) = &self.sizes {
            let mut counted = Sizes::default();
            for record in Records::new(batch.records) {
                counted.observe(address_family(batch.link_type, record.bytes), record.original);
            }
            lock(sizes).add(&counted);
        }
    }

    /// Reads the headers of every packet, once for all observers.
    fn observe_headers(&self, batch: &Batch<'_>) {
        let (for_streams, for_pairs) = {
            let origins = lock(&self.origins);
            (origins.alike(batch.origin), origins.alike_with_device(batch.origin))
        };
        let mut counted = Sizes::default();
        let mut flows = self.flows.as_ref().map(lock);
        let mut streams = self.streams.as_ref().map(lock);
        let mut pairs = self.pairs.as_ref().map(lock);
        for record in Records::new(batch.records) {
            let headers = Headers::parse(batch.link_type, record.bytes, record.original);
            let packet = Observed {
                time: record.time,
                wire_len: record.original,
                bytes: record.bytes,
                headers: &headers,
                origin: batch.origin,
            };
            counted.observe(headers.family, record.original);
            if let Some(flows) = &mut flows {
                flows.observe(&packet);
            }
            let verdict =
                streams.as_mut().map(|streams| streams.observe(&Observed { origin: for_streams, ..packet }));
            let packet = Observed { origin: for_pairs, ..packet };
            match (&mut pairs, verdict) {
                (Some(pairs), Some(verdict)) => pairs.observe_judged(&packet, &verdict),
                (Some(pairs), None) => pairs.observe(&packet),
                (None, _) => {}
            }
        }
        if let Some(flows) = &mut flows {
            flows.advance(batch.origin, batch.watermark);
        }
        if let Some(streams) = &mut streams {
            streams.advance(for_streams, batch.watermark);
        }
        if let Some(pairs) = &mut pairs {
            pairs.advance(for_pairs, batch.watermark);
        }
        if let Some(sizes) = &self.sizes {
            lock(sizes).add(&counted);
        }
    }

    /// Packets that were looked at, whatever observers there are.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Writes all that was measured.
    pub fn expose(&self, out: &mut Exposition) {
        if let Some(sizes) = &self.sizes {
            let sizes = lock(sizes).clone();
            sizes.expose(out);
        }
        // A copy, for the packets' threads look their origins up while the tables are written.
        let origins = lock(&self.origins).clone();
        if let Some(flows) = &self.flows {
            Flows::expose(flows, out);
        }
        if let Some(streams) = &self.streams {
            Streams::expose(streams, &origins, out);
        }
        if let Some(pairs) = &self.pairs {
            Pairs::expose(pairs, &origins, out);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
