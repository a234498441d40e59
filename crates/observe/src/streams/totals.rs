//! Totals of an origin, which do not grow with the number of streams.

use super::analysis::{Event, SegmentAnalysis};

/// The unit of the bucket bounds in nanoseconds: 50 µs.
const UNIT: u64 = 50_000;

/// The upper bounds of the buckets in units: 100 µs to 10 s. They are small integers so that the compiler can compare a
/// time with all of them at once, which is faster than a search with unpredictable branches.
const BOUNDS: [u32; 16] =
    [2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000];

/// [`BOUNDS`] in seconds.
const BOUNDS_IN_SECONDS: [f64; BOUNDS.len()] = {
    let (mut seconds, mut index) = ([0.0; BOUNDS.len()], 0);
    while index < BOUNDS.len() {
        seconds[index] = (BOUNDS[index] as u64 * UNIT) as f64 / 1e9;
        index += 1;
    }
    seconds
};

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    /// The count of each bucket, not cumulative. The last one is above all bounds.
    buckets: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Histogram {
    /// Adds a time in nanoseconds.
    #[inline]
    pub(super) fn observe(&mut self, nanos: u64) {
        // Rounding up keeps the comparison with a whole number of units exact.
        let units = u32::try_from(nanos.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let bucket: u32 = BOUNDS.iter().map(|&bound| u32::from(bound < units)).sum();
        self.buckets[bucket as usize] += 1;
        self.nanos = self.nanos.saturating_add(nanos);
    }

    /// The histogram in seconds.
    pub(super) fn as_metric(&self) -> metrics::Histogram<'_> {
        metrics::Histogram { bounds: &BOUNDS_IN_SECONDS, counts: &self.buckets, sum: self.nanos as f64 / 1e9 }
    }
}

/// The totals of an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) segments: u64,
    /// Bytes of data, retransmissions included.
    pub(super) bytes: u64,
    pub(super) events: [u64; Event::COUNT],
    /// Connections with a SYN.
    pub(super) opened: u64,
    /// Connections with a FIN in each captured direction.
    pub(super) finished: u64,
    /// Connections that ended with a RST.
    pub(super) reset: u64,
    /// Connections removed because they were idle, without FIN or RST.
    pub(super) timed_out: u64,
    /// Streams removed because the table was full.
    pub(super) evicted: u64,
    /// Streams in the table.
    pub(super) streams: u64,
    /// Streams in the table without FIN and RST.
    pub(super) active: u64,
    pub(super) delays: Histogram,
    pub(super) initial_rtts: Histogram,
}

impl Totals {
    /// Counts a segment with `bytes` bytes of data.
    #[inline]
    pub(super) fn count(&mut self, bytes: u32, analysis: &SegmentAnalysis) {
        self.segments += 1;
        self.bytes += u64::from(bytes);
        for event in analysis.events.indices() {
            if let Some(count) = self.events.get_mut(event) {
                *count += 1;
            }
        }
        if let Some(nanos) = analysis.delay.and_then(|nanos| u64::try_from(nanos).ok()) {
            self.delays.observe(nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_bounds_are_inclusive() {
        let mut histogram = Histogram::default();
        for nanos in [0, 100_000, 100_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe(nanos);
        }
        let metrics::Histogram { bounds, counts, sum } = histogram.as_metric();
        assert_eq!((bounds[0], bounds[1], bounds[15]), (0.0001, 0.00025, 10.0));
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 5);
        assert_eq!(sum, 20.000200002);
    }
}
