//! Log lines that anyone on the network can cause, at a bounded rate.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use merge::MonotonicTime;

/// The most keys to tell apart. Events of further keys are counted together.
const MAX_KEYS: usize = 256;

/// Limits the lines of each key, for example of a peer, to a number per interval.
#[derive(Debug)]
pub(super) struct LogLimiter<K> {
    interval: Duration,
    lines: u32,
    keys: HashMap<K, Interval>,
    /// The events of keys that had no room.
    others: Interval,
}

/// The current interval of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    began: Option<MonotonicTime>,
    lines: u32,
    /// Events since the last line.
    unreported: u64,
}

impl<K: Eq + Hash> LogLimiter<K> {
    /// Permits `lines` lines of a key in each interval.
    pub(super) fn new(lines: u32, interval: Duration) -> Self {
        Self { interval, lines, keys: HashMap::new(), others: Interval::default() }
    }

    /// Adds `count` events. Returns the number of events to report if there are any and a line is permitted.
    pub(super) fn add(&mut self, key: K, count: u64, now: MonotonicTime) -> Option<u64> {
        if count == 0 && !self.keys.contains_key(&key) {
            return None;
        }
        if self.keys.len() >= MAX_KEYS && !self.keys.contains_key(&key) {
            let interval = self.interval;
            self.keys.retain(|_, kept| !kept.is_over(interval, now));
        }
        let has_room = self.keys.len() < MAX_KEYS || self.keys.contains_key(&key);
        let of_key = if has_room { self.keys.entry(key).or_default() } else { &mut self.others };
        of_key.add(count, self.lines, self.interval, now)
    }
}

impl Interval {
    fn is_over(&self, interval: Duration, now: MonotonicTime) -> bool {
        self.began.is_none_or(|began| now.since(began) >= interval)
    }

    fn add(&mut self, count: u64, lines: u32, interval: Duration, now: MonotonicTime) -> Option<u64> {
        self.unreported = self.unreported.saturating_add(count);
        if self.unreported == 0 {
            return None;
        }
        if self.is_over(interval, now) {
            (self.began, self.lines) = (Some(now), 0);
        }
        if self.lines == lines {
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> MonotonicTime {
        MonotonicTime::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn lines_of_a_key_are_limited_and_report_all_events() {
        let mut limiter = LogLimiter::new(1, Duration::from_secs(10));
        let mut add = |key, count, at| limiter.add(key, count, secs(at));
        assert_eq!(add('a', 0, 0), None);
        assert_eq!((add('a', 3, 0), add('b', 1, 0)), (Some(3), Some(1)));
        assert_eq!(add('a', 1, 9), None);
        assert_eq!(add('a', 2, 10), Some(3));
        assert_eq!(add('a', 0, 30), None);
        assert_eq!(add('a', u64::MAX, 31), Some(u64::MAX));
        let mut limiter = LogLimiter::new(2, Duration::from_secs(10));
        let lines: Vec<_> = (0..12).map(|at| limiter.add((), 1, secs(at))).collect();
        let expected = [Some(1), Some(1)].into_iter().chain([None; 8]).chain([Some(9), Some(1)]);
        assert!(lines.iter().copied().eq(expected), "{lines:?}");
    }

    #[test]
    fn keys_are_bounded() {
        let mut limiter = LogLimiter::new(1, Duration::from_secs(10));
        for round in 0..3 {
            let lines = (0..100_000).filter(|key| limiter.add(*key, 1, secs(round * 10)).is_some()).count();
            assert!((1..=MAX_KEYS + 1).contains(&lines), "{lines}");
        }
        assert!(limiter.keys.len() <= MAX_KEYS);
    }
}
