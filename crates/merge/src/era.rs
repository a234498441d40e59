//! Which sources can be merged with one another: those whose clocks agree, roughly.
//!
//! Packets are merged by the clocks of their hosts. Between a live capture and a file from last year there is no order to
//! establish, and a host whose clock is an hour ahead would make the others wait, or move the horizon past everything that
//! they have yet to send. Such sources are merged apart from the others, in order among themselves.

use std::time::Duration;

use packet::Timestamp;

/// How much earlier than the collector's clock a source may begin and still count as live: the sum of a relay's delays
/// and of wrong clocks. What is older is taken for the replay of a file.
const LIVE: Duration = Duration::from_secs(3600);

/// How much a source's clock may be ahead of the collector's, besides the window: what hosts without NTP drift in a few
/// weeks.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// The time by a source's clock, in relation to the collector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// Now, and shortly before: live captures.
    Present,
    /// Long ago: files that are replayed.
    Past,
    /// Later than now: a clock that is ahead, a file with wrong times, or a lie.
    Future,
}

impl Era {
    /// All eras, in the order of their discriminants: the live one is served first.
    pub(crate) const ALL: [Self; 3] = [Self::Present, Self::Past, Self::Future];

    /// The era of a batch. `time` is the latest time in it, or its watermark if that is later; `wall` is the collector's
    /// clock; `current` is the era of the source's earlier batches, if it has sent packets.
    pub(crate) fn of(time: Timestamp, wall: Timestamp, window: Duration, current: Option<Self>) -> Self {
        if time > wall + window + CLOCK_TOLERANCE {
            return Self::Future;
        }
        let begun = || if time + LIVE < wall { Self::Past } else { Self::Present };
        match current {
            // A file that was recorded until a moment ago stays with the other files to its end. A host whose clock has
            // been corrected does not: its packets arrive as they are captured.
            Some(Self::Past) if time + window + CLOCK_TOLERANCE < wall => Self::Past,
            // A live source that sends old packets had to keep them while the collector was unreachable.
            Some(Self::Present) => Self::Present,
            Some(Self::Past | Self::Future) | None => begun(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The era of a batch whose time is `offset` seconds after the collector's.
    fn check(offset: i64, current: Option<Era>, expected: Era) {
        let wall = Timestamp::from_parts(1_700_000_000, 0);
        let nanos = wall.as_nanos().saturating_add_signed(offset * 1_000_000_000);
        let era = Era::of(Timestamp::from_nanos(nanos), wall, Duration::from_secs(1), current);
        assert_eq!(era, expected, "{offset} s, was {current:?}");
    }

    #[test]
    fn an_era_is_where_a_source_begins_unless_its_clock_is_ahead_or_was_corrected() {
        for (offset, expected) in
            [(-3601, Era::Past), (-3600, Era::Present), (2, Era::Present), (3, Era::Future)]
        {
            check(offset, None, expected);
        }
        for (offset, expected) in [(-3601, Era::Present), (0, Era::Present), (3, Era::Future)] {
            check(offset, Some(Era::Present), expected);
        }
        for (offset, expected) in [(-9999, Era::Past), (-3, Era::Past), (-2, Era::Present), (3, Era::Future)]
        {
            check(offset, Some(Era::Past), expected);
        }
        for (offset, expected) in [(-9999, Era::Past), (0, Era::Present), (3, Era::Future)] {
            check(offset, Some(Era::Future), expected);
        }
    }
}
