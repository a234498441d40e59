//! The health score of a stream.

/// The inputs of the score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct HealthInputs {
    pub(super) retransmissions: u32,
    pub(super) resets: u32,
    pub(super) out_of_order: u32,
    pub(super) duplicate_acks: u32,
    pub(super) zero_windows: u32,
    pub(super) gaps: u32,
    /// The number of bitrate samples, and their coefficient of variation.
    pub(super) bitrates: (u32, f64),
    /// The number of delay samples, and their standard deviation in seconds.
    pub(super) delays: (u32, f64),
}

/// A spread counts only if there are more samples than this.
const MIN_SAMPLES: u32 = 5;

/// The health score of tcp-stream-exporter, from 100 (perfect) down to 0.
///
/// | term | points deducted | at most |
/// | --- | --- | --- |
/// | retransmission | 5 each | 30 |
/// | reset | 20 each | |
/// | segment out of order | 2 each | 20 |
/// | duplicate ACK | 1 each | 10 |
/// | zero window | 10 each | 20 |
/// | gap | 3 each | 15 |
/// | coefficient of variation of the bitrate above 0.3, with more than 5 samples | 10 | |
/// | standard deviation of the delay above 50 ms, with more than 5 samples | 5 | |
pub(super) fn score(inputs: &HealthInputs) -> f64 {
    let counted = |count: u32, points: f64, at_most: f64| (f64::from(count) * points).min(at_most);
    let spread = |(samples, spread): (u32, f64), limit: f64, points: f64| {
        if samples > MIN_SAMPLES && spread > limit { points } else { 0.0 }
    };
    let deducted = counted(inputs.retransmissions, 5.0, 30.0)
        + counted(inputs.resets, 20.0, f64::INFINITY)
        + counted(inputs.out_of_order, 2.0, 20.0)
        + counted(inputs.duplicate_acks, 1.0, 10.0)
        + counted(inputs.zero_windows, 10.0, 20.0)
        + counted(inputs.gaps, 3.0, 15.0)
        + spread(inputs.bitrates, 0.3, 10.0)
        + spread(inputs.delays, 0.050, 5.0);
    (100.0 - deducted).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(inputs: HealthInputs, expected: f64) {
        assert_eq!(score(&inputs), expected, "{inputs:?}");
    }

    #[test]
    fn each_term_deducts_points_up_to_its_limit() {
        let none = HealthInputs::default();
        check(none, 100.0);
        check(HealthInputs { retransmissions: 2, ..none }, 90.0);
        check(HealthInputs { retransmissions: 7, ..none }, 70.0);
        check(HealthInputs { resets: 2, ..none }, 60.0);
        check(HealthInputs { out_of_order: 3, ..none }, 94.0);
        check(HealthInputs { out_of_order: 11, ..none }, 80.0);
        check(HealthInputs { duplicate_acks: 4, ..none }, 96.0);
        check(HealthInputs { duplicate_acks: 11, ..none }, 90.0);
        check(HealthInputs { zero_windows: 1, ..none }, 90.0);
        check(HealthInputs { zero_windows: 3, ..none }, 80.0);
        check(HealthInputs { gaps: 4, ..none }, 88.0);
        check(HealthInputs { gaps: 6, ..none }, 85.0);
    }

    #[test]
    fn a_spread_needs_more_than_five_samples() {
        let none = HealthInputs::default();
        check(HealthInputs { bitrates: (6, 0.31), ..none }, 90.0);
        check(HealthInputs { bitrates: (5, 0.31), ..none }, 100.0);
        check(HealthInputs { bitrates: (6, 0.30), ..none }, 100.0);
        check(HealthInputs { delays: (6, 0.051), ..none }, 95.0);
        check(HealthInputs { delays: (5, 0.051), ..none }, 100.0);
        check(HealthInputs { delays: (6, 0.050), ..none }, 100.0);
    }

    #[test]
    fn the_score_is_never_negative() {
        let worst = HealthInputs { retransmissions: u32::MAX, resets: 6, ..HealthInputs::default() };
        check(worst, 0.0);
    }
}
