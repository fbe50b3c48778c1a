//! [`Seed`]: where everything random in a run comes from, so that a run can be had again.
//!
//! What a seed leads to is part of what minivmm promises: a seed in a result from last year must
//! still mean the same. So the algorithms are named and the tests have their values.

use std::fmt;
use std::str::FromStr;

use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};

use crate::number::{NumberError, parse_u64};

/// What SplitMix64 adds to its state for each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Keeps the streams of a seed apart from the seeds of its iterations.
const STREAMS: u64 = u64::from_le_bytes(*b"streams\0");

/// A seed. As text it is a number, shown in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(
    /// The number.
    pub u64,
);

impl Seed {
    /// The seed of an iteration of a run that has this one: the seed itself for iteration 0, so
    /// that any iteration can be run again alone by giving its seed, and for iteration n the nth
    /// number of SplitMix64. No two of the iterations above 0 have the same.
    pub fn iteration(self, number: u64) -> Self {
        if number == 0 { self } else { Self(splitmix64(self.0, number - 1)) }
    }

    /// The random numbers for one purpose. Streams of other purposes and seeds have nothing to do
    /// with it, so that taking more numbers for one purpose changes no other: Xoshiro256++,
    /// seeded by way of SplitMix64.
    pub fn stream(self, purpose: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(splitmix64(splitmix64(self.0 ^ STREAMS, 0), purpose))
    }
}

/// The number at `index`, from 0, of SplitMix64 with that seed.
fn splitmix64(seed: u64, index: u64) -> u64 {
    SplitMix64::seed_from_u64(seed.wrapping_add(index.wrapping_mul(STEP))).next_u64()
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for Seed {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        parse_u64(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // The first of the reference implementation, https://prng.di.unimi.it/splitmix64.c.
        let seed = 1_477_776_061_723_855_037;
        let numbers = [1_985_237_415_132_408_290, 2_979_275_885_539_914_483];
        assert_eq!([0, 1].map(|index| splitmix64(seed, index)), numbers);
        let mut sequence = SplitMix64::seed_from_u64(42);
        assert!((0..1000).all(|index| splitmix64(42, index) == sequence.next_u64()));
    }

    #[test]
    fn what_a_seed_means_does_not_change() {
        // From an implementation of its own, in another language.
        let iterations = [0, 1, 2, 1000, u64::MAX].map(|number| Seed(42).iteration(number));
        assert_eq!(
            iterations.map(|seed| seed.to_string()),
            [
                "0x2a",
                "0xbdd732262feb6e95",
                "0x28efe333b266f103",
                "0x66091ca85313fa68",
                "0x6ab7b547ac33cdaf"
            ]
        );
        let streams = [(42, 0), (42, 1), (43, 0)].map(|(seed, purpose)| {
            let mut stream = Seed(seed).stream(purpose);
            [stream.next_u64(), stream.next_u64()]
        });
        assert_eq!(
            streams,
            [
                [0xa543_d9d5_8425_1568, 0xc412_3a76_5fbb_fdae],
                [0x6652_aef8_645a_698b, 0x556f_62df_5288_8754],
                [0x466e_4ee1_dfb8_3b03, 0x4787_3cf6_fddb_b251],
            ]
        );
    }

    #[test]
    fn both_ways_to_write_a_number_are_taken() {
        assert_eq!(
            ["42", "0x2a", "0X2A"].map(str::parse),
            [Ok(Seed(42)), Ok(Seed(42)), Ok(Seed(42))]
        );
        for text in ["", "-1", "0x", "seed", "0x10000000000000000"] {
            let error = text.parse::<Seed>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(seed: u64) {
            prop_assert_eq!(Seed(seed).to_string().parse(), Ok(Seed(seed)));
        }

        #[test]
        fn iterations_have_seeds_of_their_own(seed: u64, a in 1_u64.., b in 1_u64..) {
            prop_assert_eq!(Seed(seed).iteration(0), Seed(seed));
            prop_assert_eq!(Seed(seed).iteration(a) == Seed(seed).iteration(b), a == b);
        }
    }
}
