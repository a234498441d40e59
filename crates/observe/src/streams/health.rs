//! How well a stream does, in one number.

/// What the score is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Signs {
    pub(super) retransmissions: u32,
    pub(super) resets: u32,
    pub(super) out_of_order: u32,
    pub(super) duplicate_acks: u32,
    pub(super) zero_windows: u32,
    pub(super) gaps: u32,
    /// How many bitrates were measured, and how much they vary: their standard deviation as a part of their mean.
    pub(super) bitrates: (u32, f64),
    /// How many delays were measured, and their standard deviation in seconds.
    pub(super) delays: (u32, f64),
}

/// More samples than this before a spread is held against a stream.
const ENOUGH_SAMPLES: u32 = 5;

/// The health score of tcp-stream-exporter, over true counts: from 100, which is perfect, down to 0.
///
/// | term | points off | at most |
/// | --- | --- | --- |
/// | retransmission | 5 each | 30 |
/// | reset | 20 each | |
/// | segment out of order | 2 each | 20 |
/// | duplicate ACK | 1 each | 10 |
/// | zero window | 10 each | 20 |
/// | gap | 3 each | 15 |
/// | bitrate's coefficient of variation above 0.3, of more than 5 samples | 10 | |
/// | standard deviation of the delay above 50 ms, of more than 5 samples | 5 | |
pub(super) fn score(signs: &Signs) -> f64 {
    let counted = |count: u32, points: f64, at_most: f64| (f64::from(count) * points).min(at_most);
    let spread = |(samples, spread): (u32, f64), limit: f64, points: f64| {
        if samples > ENOUGH_SAMPLES && spread > limit { points } else { 0.0 }
    };
    let off = counted(signs.retransmissions, 5.0, 30.0)
        + counted(signs.resets, 20.0, f64::INFINITY)
        + counted(signs.out_of_order, 2.0, 20.0)
        + counted(signs.duplicate_acks, 1.0, 10.0)
        + counted(signs.zero_windows, 10.0, 20.0)
        + counted(signs.gaps, 3.0, 15.0)
        + spread(signs.bitrates, 0.3, 10.0)
        + spread(signs.delays, 0.050, 5.0);
    (100.0 - off).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(signs: Signs, expected: f64) {
        assert_eq!(score(&signs), expected, "{signs:?}");
    }

    #[test]
    fn each_term_takes_its_points_up_to_its_limit() {
        let none = Signs::default();
        check(none, 100.0);
        check(Signs { retransmissions: 2, ..none }, 90.0);
        check(Signs { retransmissions: 7, ..none }, 70.0);
        check(Signs { resets: 2, ..none }, 60.0);
        check(Signs { out_of_order: 3, ..none }, 94.0);
        check(Signs { out_of_order: 11, ..none }, 80.0);
        check(Signs { duplicate_acks: 4, ..none }, 96.0);
        check(Signs { duplicate_acks: 11, ..none }, 90.0);
        check(Signs { zero_windows: 1, ..none }, 90.0);
        check(Signs { zero_windows: 3, ..none }, 80.0);
        check(Signs { gaps: 4, ..none }, 88.0);
        check(Signs { gaps: 6, ..none }, 85.0);
    }

    #[test]
    fn a_spread_counts_when_there_are_enough_samples() {
        let none = Signs::default();
        check(Signs { bitrates: (6, 0.31), ..none }, 90.0);
        check(Signs { bitrates: (5, 0.31), ..none }, 100.0);
        check(Signs { bitrates: (6, 0.30), ..none }, 100.0);
        check(Signs { delays: (6, 0.051), ..none }, 95.0);
        check(Signs { delays: (5, 0.051), ..none }, 100.0);
        check(Signs { delays: (6, 0.050), ..none }, 100.0);
    }

    #[test]
    fn it_never_falls_below_nothing() {
        let worst = Signs { retransmissions: u32::MAX, resets: 6, ..Signs::default() };
        check(worst, 0.0);
    }
}
