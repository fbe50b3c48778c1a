//! One run of a guest among many.

use crate::stress::seed::Seed;

/// Which iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Iteration {
    /// Its number, from 0.
    pub number: u64,
    /// What all that is random in it is drawn from.
    pub seed: Seed,
}
