//! How far a source's clock is from ours.
//!
//! A batch says when it was sent by the source's clock. When it came by ours, less that, is the difference of the
//! clocks plus the time that the batch was under way. The way is now and then a short one, and never a negative one: so
//! the smallest difference of a while is the best estimate, and too large by the shortest way. What is left of that is
//! half a millisecond in a local network, and more where all batches queue, as they do behind a slow reader.

use std::time::Duration;

use packet::Timestamp;

/// Minima are kept for this long together.
const BUCKET: Duration = Duration::from_secs(5);

/// How many of them there are: those of a minute, so that a clock which drifts or is set is seen to.
const BUCKETS: usize = 12;

/// The smallest difference of the last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct ClockOffset {
    /// The number of each bucket, counted from the Unix epoch, and its smallest difference in nanoseconds.
    buckets: [Option<(u64, i64)>; BUCKETS],
    newest: u64,
}

impl ClockOffset {
    /// A batch came.
    pub(super) fn record(&mut self, sent_at: Timestamp, now: Timestamp) {
        let difference = now.nanos_since(sent_at);
        let number = now.as_nanos() / BUCKET.as_nanos() as u64;
        self.newest = number;
        let bucket = &mut self.buckets[number as usize % BUCKETS];
        *bucket = match *bucket {
            Some((same, least)) if same == number => Some((number, least.min(difference))),
            _ => Some((number, difference)),
        };
    }

    /// In nanoseconds: positive where the source's clock is behind.
    pub(super) fn estimate(&self) -> Option<i64> {
        // Of a clock of ours that was set back, the buckets ahead do not count.
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

    /// Batches of (sent, received), in seconds.
    fn check(batches: &[(u64, u64)], expected: Option<i64>) {
        let mut offset = ClockOffset::default();
        for &(sent, received) in batches {
            offset.record(Timestamp::from_parts(sent as u32, 0), Timestamp::from_parts(received as u32, 0));
        }
        assert_eq!(offset.estimate(), expected.map(|secs| secs * 1_000_000_000), "{batches:?}");
    }

    #[test]
    fn the_shortest_way_of_the_last_minute_counts() {
        check(&[], None);
        check(&[(990, 1000), (993, 1001), (991, 1002)], Some(8));
        check(&[(1010, 1000), (1009, 1001)], Some(-10));
        // A minute later the short way is forgotten.
        check(&[(999, 1000), (1040, 1050)], Some(1));
        check(&[(999, 1000), (1050, 1060)], Some(10));
        // Our clock was set back: what it said before does not count.
        check(&[(999, 1000), (905, 930)], Some(25));
    }
}
