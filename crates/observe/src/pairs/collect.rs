//! The metrics whose number does not depend on the number of pairs.

use std::collections::BTreeMap;

use metrics::Declaration;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use super::Pairs;
use crate::{OriginId, Origins};

const PAIRS: Declaration = Declaration::gauge("packeteur_pairs", "Pairs of hosts in the table.");

const EVICTED: Declaration =
    Declaration::counter("packeteur_pairs_evicted_total", "Pairs of hosts evicted to make room for others.");

/// All families that [`collect`] returns.
pub(super) const DECLARATIONS: [Declaration; 2] = [PAIRS, EVICTED];

/// The number of pairs, and of evicted ones, for each set of labels.
pub(super) fn collect(shared: &Mutex<Pairs>, origins: &Origins) -> Vec<MetricFamily> {
    let (chunks, evicted) = {
        let pairs = shared.lock();
        (pairs.table.chunks(), pairs.evicted.clone())
    };
    // Pairs are counted by origin and device, their number only by labels.
    let mut sums: BTreeMap<OriginId, (u64, u64)> = origins.canonical_ids().map(|id| (id, (0, 0))).collect();
    for chunk in 0..chunks {
        let pairs = shared.lock();
        for (_, entry) in pairs.table.chunk(chunk) {
            sums.entry(origins.canonical(entry.origin())).or_default().0 += 1;
        }
    }
    for (id, evicted) in (0..).map(OriginId).zip(evicted) {
        sums.entry(origins.canonical(id)).or_default().1 += evicted;
    }
    let samples = |value: fn(&(u64, u64)) -> u64| {
        sums.iter().map(move |(id, sum)| (origins.label_set(*id), value(sum) as f64))
    };
    vec![PAIRS.samples(samples(|sum| sum.0)), EVICTED.samples(samples(|sum| sum.1))]
}
