//! What is random in a round, all of it from the round's seed.

use std::ops::RangeInclusive;
use std::time::Duration;

use minivmm::stress::seed::Seed;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

/// See the module's text.
pub struct Draw(Xoshiro256PlusPlus);

impl Draw {
    pub fn new(seed: Seed) -> Self {
        Self(seed.stream(0))
    }

    /// A number in the range; that some are a trifle more likely does not matter here.
    pub fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.0.next_u64() % (range.end() - range.start() + 1)
    }

    /// The same, for numbers of vCPUs.
    pub fn count(&mut self, range: RangeInclusive<u32>) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.number(range).try_into().unwrap()
    }

    /// A time up to `max`; short ones are as likely as long ones, whatever the scale: half of them
    /// are below a thirtieth of `max`.
    pub fn time(&mut self, max: Duration) -> Duration {
        let scale = 1 << self.number(0..=10);
        max * self.count(0..=1000) / 1000 / scale
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let last = u64::try_from(among.len() - 1).unwrap();
        among[usize::try_from(self.number(0..=last)).unwrap()]
    }

    /// Draws for something that goes on beside the round.
    pub fn fork(&mut self) -> Self {
        Self::new(Seed(self.0.next_u64()))
    }
}
