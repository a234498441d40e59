//! All observers of a program, and the one walk over a batch that feeds them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packet::headers::address_family;
use packet::{LinkType, Origin, Records, Timestamp};

use crate::sizes::Sizes;
use crate::{Exposition, OriginId, Origins, Scope};

/// Which observers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How the series of different origins are told apart.
    pub scope: Scope,
    /// Packet sizes, by address family.
    pub sizes: bool,
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
}

impl Observers {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            origins: Mutex::new(Origins::new(config.scope)),
            packets: AtomicU64::new(0),
            sizes: config.sizes.then(Mutex::default),
        })
    }

    /// The number of an origin, by which its batches are observed from then on.
    pub fn origin(&self, origin: &Origin, interfaces: &[(u32, Arc<str>)]) -> OriginId {
        let mut origins = lock(&self.origins);
        let id = origins.intern(origin);
        origins.name_interfaces(id, interfaces);
        id
    }

    /// Looks at a batch.
    pub fn observe(&self, batch: &Batch<'_>) {
        self.packets.fetch_add(u64::from(batch.packets), Ordering::Relaxed);
        if let Some(sizes) = &self.sizes {
            let mut counted = Sizes::default();
            for record in Records::new(batch.records) {
                counted.observe(address_family(batch.link_type, record.bytes), record.original);
            }
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
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
