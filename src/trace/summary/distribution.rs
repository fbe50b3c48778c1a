//! How a duration is distributed: exact count, sum and extremes, and a histogram for the
//! percentiles. All values are nanoseconds.

use hdrhistogram::Histogram;

/// The longest duration that a percentile tells apart, 68.7 s: what is longer counts as this
/// there. The sum and the maximum are exact beyond it.
pub const LONGEST_NS: u64 = (1 << 36) - 1;

/// What a histogram holds before it grows. Most exits take less; the few that take longer make
/// it allocate, at most twenty times in its life.
const FIRST_RANGE_NS: u64 = 1 << 14;

/// The percentiles are within 1 %. A histogram of two significant digits takes 8 to 32 KiB, one
/// of three 40 to 216, and the nearer it stays to the cache the less an exit costs.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Durations that were measured.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    samples: u64,
    total: u64,
    min: u64,
    max: u64,
    /// Made with the first sample: many distributions never get one.
    histogram: Option<Histogram<u64>>,
}

impl Distribution {
    /// Adds a duration.
    pub fn add(&mut self, nanoseconds: u64) {
        if self.samples == 0 {
            self.min = nanoseconds;
            self.histogram = empty();
        }
        self.samples = self.samples.saturating_add(1);
        self.total = self.total.saturating_add(nanoseconds);
        self.min = self.min.min(nanoseconds);
        self.max = self.max.max(nanoseconds);
        if let Some(histogram) = &mut self.histogram {
            // Fails only if a counter has no index, and none is so far out.
            let _ = histogram.record(nanoseconds.min(LONGEST_NS));
        }
    }

    /// Adds everything that `other` has.
    pub fn merge(&mut self, other: &Self) {
        if other.samples == 0 {
            return;
        }
        if self.samples == 0 {
            self.min = other.min;
            self.histogram = empty();
        }
        self.samples = self.samples.saturating_add(other.samples);
        self.total = self.total.saturating_add(other.total);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        // Not the crate's own `add`, which copies an empty part as large as the fullest one.
        if let (Some(histogram), Some(other)) = (&mut self.histogram, &other.histogram) {
            for bin in other.iter_recorded() {
                let value = bin.value_iterated_to().min(LONGEST_NS);
                let _ = histogram.record_n(value, bin.count_at_value());
            }
        }
    }

    /// How many durations.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Their sum.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The shortest; 0 without samples.
    pub fn min(&self) -> u64 {
        self.min
    }

    /// The longest; 0 without samples.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean, rounded down; 0 without samples.
    pub fn mean(&self) -> u64 {
        self.total.checked_div(self.samples).unwrap_or(0)
    }

    /// The duration that a share of `quantile` of the samples, 0 to 1, does not exceed.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let histogram = self.histogram.as_ref();
        let value = histogram.map_or(0, |histogram| histogram.value_at_quantile(quantile));
        // A bin is wider than what is in it; the extremes are exact.
        value.max(self.min).min(self.max)
    }

    /// How many samples each power of two has: element n counts those from 2^n up to, but not
    /// with, 2^(n+1). Element 0 also has those of 0 ns.
    pub fn by_power_of_two(&self) -> [u64; 64] {
        let mut counts = [0u64; 64];
        for bin in self.histogram.iter().flat_map(Histogram::iter_recorded) {
            // No bin reaches over a power of two.
            let power = bin.value_iterated_to().max(1).ilog2();
            if let Some(count) = usize::try_from(power).ok().and_then(|n| counts.get_mut(n)) {
                *count = count.saturating_add(bin.count_at_value());
            }
        }
        counts
    }
}

/// A histogram that grows with what it is given. None if the crate refuses the bounds, which are
/// constants; then there are no percentiles, and all the rest is right.
fn empty() -> Option<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, FIRST_RANGE_NS, SIGNIFICANT_DIGITS).ok()?;
    histogram.auto(true);
    Some(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(sorted: &[u64], per_mille: usize) -> u64 {
        sorted[(sorted.len() * per_mille).div_ceil(1000).max(1) - 1]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn percentiles_are_those_of_sorted_values(
            mut values in prop::collection::vec(0..1_000_000_000u64, 1..400),
        ) {
            let mut distribution = Distribution::default();
            for value in &values {
                distribution.add(*value);
            }
            values.sort_unstable();
            for (quantile, per_mille) in [(0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
                let exact = naive(&values, per_mille);
                let found = distribution.quantile(quantile);
                prop_assert!(exact <= found && found - exact <= exact / 100);
            }
            prop_assert_eq!(distribution.min(), values[0]);
            prop_assert_eq!(distribution.max(), values[values.len() - 1]);
            prop_assert_eq!(distribution.total(), values.iter().sum::<u64>());
        }

        #[test]
        fn powers_of_two_are_counted_exactly(
            values in prop::collection::vec((0..36u32, any::<u64>()), 0..100),
        ) {
            let mut expected = [0u64; 64];
            let mut distribution = Distribution::default();
            for (power, random) in values {
                distribution.add((1 << power) | (random & ((1 << power) - 1)));
                expected[power as usize] += 1;
            }
            prop_assert_eq!(distribution.by_power_of_two(), expected);
        }
    }

    #[test]
    fn what_is_longer_than_the_longest_is_still_counted() {
        let mut distribution = Distribution::default();
        for value in [u64::MAX, u64::MAX, 0] {
            distribution.add(value);
        }
        assert_eq!((distribution.min(), distribution.max()), (0, u64::MAX));
        assert_eq!((distribution.samples(), distribution.total()), (3, u64::MAX));
        assert!(distribution.quantile(0.5) >= LONGEST_NS);
        assert_eq!(distribution.by_power_of_two()[35], 2);
    }

    #[test]
    fn nothing_has_no_mean() {
        let nothing = Distribution::default();
        assert_eq!((nothing.mean(), nothing.quantile(0.99), nothing.samples()), (0, 0, 0));
    }
}
