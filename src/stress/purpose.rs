//! What the random numbers of an iteration are drawn for: a stream of its own each, so that a
//! draw more for one changes no other.

use rand_xoshiro::Xoshiro256PlusPlus;

use crate::exit::VcpuId;
use crate::stress::iteration::Iteration;

/// A use of random numbers. The numbers behind the names are part of what a seed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A vCPU's random number port.
    Guest(VcpuId),
    /// A vCPU's perturbations.
    Chaos(VcpuId),
    /// How late a vCPU starts.
    Late(VcpuId),
    /// The order in which vCPUs start.
    Start,
    /// The bound of the channel to the devices.
    Capacity,
    /// Kicks from outside.
    Kicks,
    /// Who runs next in lockstep.
    Lockstep,
}

impl Purpose {
    /// The random numbers for it in this iteration.
    pub fn stream(self, iteration: Iteration) -> Xoshiro256PlusPlus {
        // The vCPU in the low half, or one of the purposes that all of them share.
        let (kind, index) = match self {
            Self::Guest(id) => (0, id.0),
            Self::Chaos(id) => (1, id.0),
            Self::Late(id) => (2, id.0),
            Self::Start => (3, 0),
            Self::Capacity => (3, 1),
            Self::Kicks => (3, 2),
            Self::Lockstep => (3, 3),
        };
        iteration.seed.stream(kind << 32 | u64::from(index))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_xoshiro::rand_core::Rng;

    use super::*;

    #[test]
    fn no_two_purposes_share_their_numbers() {
        use Purpose::*;
        let (first, second) = (VcpuId(0), VcpuId(1));
        let each = [Guest(first), Guest(second), Chaos(first), Late(first), Late(second)];
        let shared = [Start, Capacity, Kicks, Lockstep];
        let numbers = each
            .iter()
            .chain(&shared)
            .map(|purpose| purpose.stream(Iteration::default()).next_u64());
        assert_eq!(numbers.collect::<BTreeSet<_>>().len(), each.len() + shared.len());
    }
}
