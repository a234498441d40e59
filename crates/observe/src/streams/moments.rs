//! Mean and standard deviation of a quantity, in constant space.

/// Count, mean and sum of squared differences from the mean, updated by Welford's method (Technometrics 4, 1962), which
/// stays accurate when the spread is small compared with the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    mean: f64,
    squares: f64,
    count: u32,
}

impl Moments {
    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        // After four billion values one more makes no difference.
        self.count = self.count.saturating_add(1);
        let from_old = value - self.mean;
        self.mean += from_old / f64::from(self.count);
        self.squares += from_old * (value - self.mean);
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    pub(super) const fn mean(&self) -> f64 {
        self.mean
    }

    /// The population standard deviation; 0 without values.
    pub(super) fn deviation(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / f64::from(self.count)).max(0.0).sqrt() }
    }

    /// The coefficient of variation: the standard deviation divided by the mean; 0 if the mean is 0.
    pub(super) fn variation(&self) -> f64 {
        if self.mean == 0.0 { 0.0 } else { self.deviation() / self.mean }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moments_match_their_definition(values in prop::collection::vec(0u32..1_000_000, 1..100)) {
            let mut moments = Moments::default();
            for &value in &values {
                moments.add(f64::from(value));
            }
            let count = values.len() as f64;
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
            let squares = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
            let deviation = (squares / count).sqrt();
            prop_assert!((moments.mean() - mean).abs() < 1e-6);
            prop_assert!((moments.deviation() - deviation).abs() < 1e-6);
            prop_assert!(mean == 0.0 || (moments.variation() - deviation / mean).abs() < 1e-6);
        }
    }

    #[test]
    fn without_values_all_moments_are_zero() {
        let nothing = Moments::default();
        assert_eq!((nothing.deviation(), nothing.variation(), nothing.count()), (0.0, 0.0, 0));
    }
}
