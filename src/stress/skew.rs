//! How far apart the vCPUs of an iteration started, over all iterations.

use std::collections::BTreeMap;

use thiserror::Error;

/// How many leading binary digits of a duration tell the buckets apart, after the first.
const DIGITS: u32 = 4;

/// Durations by size, in nanoseconds. The shortest and the longest are exact; the others are
/// counted in sixteen buckets for each power of two, so that there are at most a thousand of them
/// and a percentile is rounded up by at most one sixteenth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartSkew {
    /// The lowest duration of each bucket, and how many there are.
    buckets: BTreeMap<u64, u64>,
    /// The shortest and the longest, if there are any.
    extremes: Option<(u64, u64)>,
}

/// Why buckets and extremes are no [`StartSkew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the buckets of the start skew are not possible")]
pub struct SkewError;

impl StartSkew {
    /// Counts a start: the time in nanoseconds from the first vCPU's to the last one's.
    pub fn add(&mut self, nanoseconds: u64) {
        self.add_bucket(start_of(nanoseconds), 1);
        self.widen((nanoseconds, nanoseconds));
    }

    /// Adds all that was counted elsewhere.
    pub fn merge(&mut self, from: &Self) {
        from.buckets.iter().for_each(|(start, count)| self.add_bucket(*start, *count));
        from.extremes.into_iter().for_each(|extremes| self.widen(extremes));
    }

    /// How many starts there were.
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The shortest and the longest, in nanoseconds; `None` without any.
    pub fn extremes(&self) -> Option<(u64, u64)> {
        self.extremes
    }

    /// What `percent` of the starts, 1 to 100, do not exceed, in nanoseconds and rounded up;
    /// `None` without any.
    pub fn percentile(&self, percent: u32) -> Option<u64> {
        let (_, max) = self.extremes?;
        let wanted = (u128::from(self.count()) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        let reached = self.buckets.iter().find(|(_, count)| {
            seen += u128::from(**count);
            seen >= wanted
        });
        Some(reached.map_or(max, |(start, _)| end_of(*start).min(max)))
    }

    /// The lowest duration of each bucket, and how many there are; shortest first.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().map(|(start, count)| (*start, *count))
    }

    /// What [`StartSkew::buckets`] and [`StartSkew::extremes`] said.
    ///
    /// # Errors
    ///
    /// If they never say this.
    pub fn from_buckets(
        from: impl IntoIterator<Item = (u64, u64)>,
        extremes: Option<(u64, u64)>,
    ) -> Result<Self, SkewError> {
        let mut buckets = BTreeMap::new();
        for (start, count) in from {
            let new = buckets.insert(start, count).is_none();
            if !new || count == 0 || start != start_of(start) {
                return Err(SkewError);
            }
        }
        let ends = buckets.first_key_value().zip(buckets.last_key_value());
        let ends = ends.map(|((first, _), (last, _))| (*first, *last));
        let ordered = extremes.is_none_or(|(min, max)| min <= max);
        if !ordered || ends != extremes.map(|(min, max)| (start_of(min), start_of(max))) {
            return Err(SkewError);
        }
        Ok(Self { buckets, extremes })
    }

    fn add_bucket(&mut self, start: u64, count: u64) {
        let sum = self.buckets.entry(start).or_default();
        *sum = sum.saturating_add(count);
    }

    fn widen(&mut self, (low, high): (u64, u64)) {
        let (min, max) = self.extremes.unwrap_or((low, high));
        self.extremes = Some((min.min(low), max.max(high)));
    }
}

/// How many binary digits of a duration its bucket leaves out.
fn left_out(nanoseconds: u64) -> u32 {
    nanoseconds.checked_ilog2().unwrap_or(0).saturating_sub(DIGITS)
}

/// The lowest duration in the bucket of this one.
fn start_of(nanoseconds: u64) -> u64 {
    nanoseconds >> left_out(nanoseconds) << left_out(nanoseconds)
}

/// The highest duration in the bucket of this one.
fn end_of(nanoseconds: u64) -> u64 {
    nanoseconds | ((1 << left_out(nanoseconds)) - 1)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn skew_of(values: &[u64]) -> StartSkew {
        let mut skew = StartSkew::default();
        values.iter().for_each(|value| skew.add(*value));
        skew
    }

    /// Durations of all sizes.
    pub(in crate::stress) fn durations() -> impl Strategy<Value = Vec<u64>> {
        vec((any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift), 0..40)
    }

    #[test]
    fn few_are_shown_as_they_are() {
        let skew = skew_of(&[3, 1, 2]);
        assert_eq!((skew.count(), skew.extremes()), (3, Some((1, 3))));
        assert_eq!(
            [1, 50, 99, 100].map(|p| skew.percentile(p)),
            [Some(1), Some(2), Some(3), Some(3)]
        );
        assert_eq!((StartSkew::default().percentile(50), StartSkew::default().count()), (None, 0));
    }

    #[test]
    fn buckets_that_cannot_be_are_refused() {
        let from = |buckets: &[(u64, u64)], extremes| {
            StartSkew::from_buckets(buckets.iter().copied(), extremes)
        };
        assert!(from(&[(1, 2), (100, 1)], Some((1, 101))).is_ok());
        assert!(from(&[], None).is_ok());
        for (buckets, extremes) in [
            (&[(1, 0)][..], Some((1, 1))),
            (&[(1, 1)], None),
            (&[], Some((1, 1))),
            (&[(1, 1), (1, 1)], Some((1, 1))),
            (&[(101, 1)], Some((101, 101))),
            (&[(1, 1), (9, 1)], Some((1, 8))),
            (&[(100, 1)], Some((101, 100))),
        ] {
            assert_eq!(from(buckets, extremes), Err(SkewError), "{buckets:?} {extremes:?}");
        }
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_sorted_values(
            mut values in durations(),
            percent in 1_u32..=100,
        ) {
            let skew = skew_of(&values);
            prop_assert_eq!(skew.percentile(percent).is_none(), values.is_empty());
            if let Some(found) = skew.percentile(percent) {
                values.sort_unstable();
                let index = (values.len() * usize::try_from(percent).unwrap()).div_ceil(100) - 1;
                let exact = values[index];
                prop_assert!(exact <= found && found - exact <= exact / 16, "{} {}", exact, found);
            }
        }

        #[test]
        fn parts_add_up(a in durations(), b in durations()) {
            let (one, other) = (skew_of(&a), skew_of(&b));
            let mut sum = one.clone();
            sum.merge(&other);
            prop_assert_eq!(&sum, &skew_of(&[a, b].concat()));
            let mut back = other;
            back.merge(&one);
            prop_assert_eq!(back, sum);
        }

        #[test]
        fn buckets_and_back(values in durations()) {
            let skew = skew_of(&values);
            prop_assert!(skew.buckets().count() <= 1024);
            prop_assert_eq!(StartSkew::from_buckets(skew.buckets(), skew.extremes()), Ok(skew));
        }
    }
}
