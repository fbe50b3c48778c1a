//! [`Shard`]: the share of a run's iterations that one machine takes.

use std::fmt;
use std::iter;
use std::str::FromStr;

use thiserror::Error;

use crate::number::{NumberError, parse_u64};

/// Which share of the iterations, out of how many: `2/4` is the second of four. Both count from
/// 1, and the share is never above their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    index: u32,
    count: u32,
}

/// Why numbers or a text are no [`Shard`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShardError {
    /// Not two numbers with a slash between them.
    #[error("'{0}' is not a shard: expected K/N, such as 1/4 for the first of four")]
    Form(String),
    /// One of the two is no number.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// A share below the first, beyond the last, or of none.
    #[error("there is no shard {index}/{count}: of N shards the first is 1/N and the last N/N")]
    None {
        /// The share.
        index: u64,
        /// Of how many.
        count: u64,
    },
    /// More shares than can be counted.
    #[error("{count} shards are more than the limit of {limit}", limit = u32::MAX)]
    TooMany {
        /// How many.
        count: u64,
    },
}

impl Shard {
    /// The share `index`, from 1, of `count`.
    ///
    /// # Errors
    ///
    /// If there is no such share.
    pub fn new(index: u64, count: u64) -> Result<Self, ShardError> {
        if index == 0 || index > count {
            return Err(ShardError::None { index, count });
        }
        match (u32::try_from(index), u32::try_from(count)) {
            (Ok(index), Ok(count)) => Ok(Self { index, count }),
            _ => Err(ShardError::TooMany { count }),
        }
    }

    /// Which share, from 1.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Of how many.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether an iteration is in this share: iteration i is in that of `i % count + 1`.
    pub fn has(self, iteration: u64) -> bool {
        iteration % u64::from(self.count) == self.first()
    }

    /// Its iterations out of `total`, in ascending order.
    pub fn iterations(self, total: u64) -> impl Iterator<Item = u64> + use<> {
        let step = u64::from(self.count);
        iter::successors(Some(self.first()), move |iteration| iteration.checked_add(step))
            .take_while(move |iteration| *iteration < total)
    }

    /// How many iterations out of `total` it has.
    pub fn len(self, total: u64) -> u64 {
        total.saturating_sub(self.first()).div_ceil(u64::from(self.count))
    }

    fn first(self) -> u64 {
        u64::from(self.index) - 1
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let (index, count) =
            text.split_once('/').ok_or_else(|| ShardError::Form(text.to_owned()))?;
        Self::new(parse_u64(index)?, parse_u64(count)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    #[test]
    fn iterations_are_dealt_out() {
        let of = |text, total| shard(text).iterations(total).collect::<Vec<_>>();
        assert_eq!(of("1/3", 8), [0, 3, 6]);
        assert_eq!(of("2/3", 8), [1, 4, 7]);
        assert_eq!(of("3/3", 8), [2, 5]);
        assert_eq!(of("1/1", 3), [0, 1, 2]);
        assert_eq!(of("3/4", 2), [0; 0]);
        assert_eq!(shard("4294967295/4294967295").iterations(u64::MAX).next(), Some(4_294_967_294));
    }

    #[test]
    fn what_is_no_shard_is_shown() {
        for (text, why) in [
            ("", "'' is not a shard: expected K/N"),
            ("3", "'3' is not a shard: expected K/N"),
            ("a/4", "'a' is not a number"),
            ("1/4/2", "'4/2' is not a number"),
            ("0/4", "there is no shard 0/4: of N shards the first is 1/N and the last N/N"),
            ("5/4", "there is no shard 5/4"),
            ("0/0", "there is no shard 0/0"),
            ("1/4294967296", "4294967296 shards are more than the limit of 4294967295"),
        ] {
            let error = text.parse::<Shard>().unwrap_err().to_string();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(index in 1_u64..=u32::MAX.into(), more in 0_u64..1000) {
            let count = (index + more).min(u32::MAX.into());
            let shard = Shard::new(index, count).unwrap();
            prop_assert_eq!(shard.to_string().parse(), Ok(shard));
        }

        #[test]
        fn each_iteration_is_in_one_shard(total in 0_u64..300, count in 1_u64..20) {
            let mut all = Vec::new();
            for index in 1..=count {
                let shard = Shard::new(index, count).unwrap();
                let share: Vec<_> = shard.iterations(total).collect();
                prop_assert_eq!(u64::try_from(share.len()).unwrap(), shard.len(total));
                prop_assert!(share.is_sorted());
                prop_assert!((0..total).all(|i| shard.has(i) == share.contains(&i)));
                all.extend(share);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..total).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9/x]{0,12}") {
            if let Ok(shard) = text.parse::<Shard>() {
                prop_assert!((1..=shard.count()).contains(&shard.index()));
            }
        }
    }
}
