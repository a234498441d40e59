//! Clocks that are set back.

use std::time::Duration;

use packet::Timestamp;

/// Packets of a pipe that are this much older than those before were captured after the clock of their host was set
/// back. Less than that is disorder.
const STEP: Duration = Duration::from_secs(1);

/// Whether what was due at `due` is due now. It was to happen within `ahead`: if it is further ahead, it was computed
/// before the clock was set back.
pub(crate) fn is_due(due: Timestamp, now: Timestamp, ahead: Duration) -> bool {
    now >= due || due > now + ahead
}

/// The latest time of a pipe's packets, with another packet: later ones are hardly older. Follows the clock back.
pub(crate) fn latest_piped(latest: Timestamp, time: Timestamp) -> Timestamp {
    if time + STEP < latest { time } else { latest.max(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_due_time_does_not_outlive_its_clock() {
        let check = |now, expected| {
            let ahead = Duration::from_millis(75);
            assert_eq!(is_due(millis(5000), millis(now), ahead), expected, "at {now}");
        };
        check(4925, false);
        check(4999, false);
        check(5000, true);
        check(9000, true);
        check(4924, true);
        check(0, true);
    }

    #[test]
    fn the_latest_time_follows_a_clock_that_is_set_back() {
        assert_eq!(latest_piped(millis(5000), millis(5001)), millis(5001));
        assert_eq!(latest_piped(millis(5000), millis(4000)), millis(5000));
        assert_eq!(latest_piped(millis(5000), millis(3999)), millis(3999));
    }
}
