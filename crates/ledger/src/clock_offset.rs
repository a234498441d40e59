//! The offset between a source's clock and the collector's.
//!
//! Receive time minus send time is the clock offset plus the transit time. Transit times are never negative and some are
//! short, so the smallest difference over a while is the best estimate; it is too large by the shortest transit time.
//! That is half a millisecond in a local network, and more while all batches queue behind a slow reader.

use std::time::Duration;

use packet::Timestamp;

/// The time that one minimum covers.
const BUCKET: Duration = Duration::from_secs(5);

/// The number of minima: one minute's, so that the estimate follows a clock that drifts or is set.
const BUCKETS: usize = 12;

/// The smallest difference of the last minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockOffset {
    /// For each bucket its number, counted from the Unix epoch, and its smallest difference in nanoseconds.
    buckets: [Option<(u64, i64)>; BUCKETS],
    newest: u64,
}

impl ClockOffset {
    /// Records a batch.
    pub(crate) fn record(&mut self, sent_at: Timestamp, now: Timestamp) {
        let difference = now.nanos_since(sent_at);
        let number = now.as_nanos() / BUCKET.as_nanos() as u64;
        self.newest = number;
        let bucket = &mut self.buckets[number as usize % BUCKETS];
        *bucket = match *bucket {
            Some((same, least)) if same == number => Some((number, least.min(difference))),
            _ => Some((number, difference)),
        };
    }

    /// The estimate in nanoseconds: positive if the source's clock is behind. `None` before the first batch.
    pub(crate) fn estimate(&self) -> Option<i64> {
        // If the collector's clock was set back, there are buckets in the future, which do not count.
        let minute = self.newest.saturating_sub(BUCKETS as u64 - 1)..=self.newest;
        self.buckets
            .iter()
            .flatten()
            .filter(|(number, _)| minute.contains(number))
            .map(|(_, least)| *least)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records batches of (sent, received), in seconds.
    fn check(batches: &[(u64, u64)], expected: Option<i64>) {
        let mut offset = ClockOffset::default();
        for &(sent, received) in batches {
            offset.record(Timestamp::from_parts(sent as u32, 0), Timestamp::from_parts(received as u32, 0));
        }
        assert_eq!(offset.estimate(), expected.map(|secs| secs * 1_000_000_000), "{batches:?}");
    }

    #[test]
    fn shortest_transit_of_the_last_minute_is_the_estimate() {
        check(&[], None);
        check(&[(990, 1000), (993, 1001), (991, 1002)], Some(8));
        check(&[(1010, 1000), (1009, 1001)], Some(-10));
        // A minute later the short transit is forgotten.
        check(&[(999, 1000), (1040, 1050)], Some(1));
        check(&[(999, 1000), (1050, 1060)], Some(10));
        // The collector's clock was set back: what was measured before does not count.
        check(&[(999, 1000), (905, 930)], Some(25));
    }
}
