//! What does not grow with the number of streams: totals and histograms of an origin.

use super::verdict::{Event, Verdict};

/// What the bounds of the histograms' buckets are multiples of, in nanoseconds: 50 µs.
const UNIT: u64 = 50_000;

/// The upper bounds of the buckets in units, 100 µs to 10 s: small numbers, so that a time is compared with all of them at
/// once, which is faster than a search whose steps nobody foresees.
const BOUNDS: [u32; 16] =
    [2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000];

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    /// How many times lie in each bucket; the last one is that of what is longer than all bounds.
    buckets: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Histogram {
    #[inline]
    pub(super) fn observe(&mut self, nanos: u64) {
        // A time is at most a whole number of units if, rounded up to a whole number, it is.
        let units = u32::try_from(nanos.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let bucket: u32 = BOUNDS.iter().map(|&bound| u32::from(bound < units)).sum();
        self.buckets[bucket as usize] += 1;
        self.nanos = self.nanos.saturating_add(nanos);
    }

    /// For each bound in seconds, and then for none, how many times were at most that long.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let bounds =
            BOUNDS.iter().map(|&bound| Some(u64::from(bound) as f64 * UNIT as f64 / 1e9)).chain([None]);
        let sums = self.buckets.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        bounds.zip(sums)
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }
}

/// The totals of an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) events: [u64; Event::COUNT],
    /// Connections that began with a SYN.
    pub(super) opened: u64,
    /// Connections of which each side that was seen has sent FIN.
    pub(super) finished: u64,
    /// Connections that a RST ended.
    pub(super) reset: u64,
    /// Connections that were silent for so long that they were forgotten, without an end.
    pub(super) timed_out: u64,
    /// Directed streams that were forgotten because there was no room.
    pub(super) evicted: u64,
    /// Directed streams there are.
    pub(super) streams: u64,
    /// Those of them whose sender has sent neither FIN nor RST.
    pub(super) active: u64,
    pub(super) delays: Histogram,
    pub(super) initial_rtts: Histogram,
}

impl Totals {
    /// Counts a segment with so many bytes of data.
    #[inline]
    pub(super) fn count(&mut self, bytes: u32, verdict: &Verdict) {
        self.segments += 1;
        self.bytes += u64::from(bytes);
        for event in verdict.events.indices() {
            if let Some(count) = self.events.get_mut(event) {
                *count += 1;
            }
        }
        if let Some(nanos) = verdict.delay.and_then(|nanos| u64::try_from(nanos).ok()) {
            self.delays.observe(nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::default();
        for nanos in [0, 100_000, 100_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe(nanos);
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative[..2], [(Some(0.0001), 2), (Some(0.00025), 3)]);
        assert_eq!(cumulative[15..], [(Some(10.0), 4), (None, 5)]);
        assert_eq!((histogram.count(), histogram.seconds()), (5, 20.000200002));
    }
}
