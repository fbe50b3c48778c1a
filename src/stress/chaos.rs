//! Chaos: perturbations of a guest's run that are drawn from the iteration's seed. Before each
//! entry into the guest a vCPU draws whether it is disturbed, and how. The same seed draws the same
//! perturbations at the same exits of each vCPU; what the guest makes of them is up to the host's
//! scheduler, but for `lockstep`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;
use thiserror::Error;

use crate::exit::VcpuId;
use crate::stress::iteration::Iteration;
use crate::stress::purpose::Purpose;

/// The longest delay on the CPU.
const DELAY_MAX: Duration = Duration::from_micros(50);
/// The longest time that a vCPU is taken off the CPU.
const PAUSE_MAX: Duration = Duration::from_millis(2);
/// The mean distance of the kicks from outside, at rate 1.
const KICK_PERIOD: Duration = Duration::from_micros(200);
/// Bounds of the channel to the devices, one of which is drawn for each iteration.
const CAPACITIES: [usize; 5] = [1, 2, 7, 64, usize::MAX];

/// How often a vCPU is disturbed: the part of its entries into the guest, 0 to 1, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChaosRate(u32);

/// A text that is no [`ChaosRate`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a rate: expected a number from 0 to 1, such as 0.05")]
pub struct ChaosRateError(pub String);

const MILLION: u32 = 1_000_000;

impl Default for ChaosRate {
    /// One entry in twenty.
    fn default() -> Self {
        Self(MILLION / 20)
    }
}

impl fmt::Display for ChaosRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(MILLION))
    }
}

impl FromStr for ChaosRate {
    type Err = ChaosRateError;

    fn from_str(text: &str) -> Result<Self, ChaosRateError> {
        let rate: f64 = text.parse().map_err(|_| ChaosRateError(text.to_owned()))?;
        if !(0.0..=1.0).contains(&rate) {
            return Err(ChaosRateError(text.to_owned()));
        }
        // In range, as was just seen; what is lost is below a millionth.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let millionths = (rate * f64::from(MILLION)).round() as u32;
        Ok(Self(millionths))
    }
}

impl ChaosRate {
    /// How long the thread that kicks from outside waits, on average; none if it never does.
    pub fn kick_period(self) -> Option<Duration> {
        (self.0 > 0).then(|| KICK_PERIOD.mul_f64(f64::from(MILLION) / f64::from(self.0)))
    }
}

/// What is done to a vCPU before it enters the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Perturbation {
    /// It keeps its CPU and waits.
    Delay(Duration),
    /// It gives up its CPU for so long.
    Pause(Duration),
    /// A vCPU, maybe itself, is made to leave the guest.
    Kick(VcpuId),
    /// It serves the devices first, as if the channel to them were full.
    Help,
}

/// One vCPU's draws.
#[derive(Debug)]
pub struct Chaos {
    id: VcpuId,
    vcpus: u32,
    rate: ChaosRate,
    random: Xoshiro256PlusPlus,
    drawn: u64,
}

impl Chaos {
    /// The draws of vCPU `id` of `vcpus` in this iteration.
    pub fn new(id: VcpuId, vcpus: u32, rate: ChaosRate, iteration: Iteration) -> Self {
        let random = Purpose::Chaos(id).stream(iteration);
        Self { id, vcpus, rate, random, drawn: 0 }
    }

    /// Another iteration begins.
    pub fn begin(&mut self, iteration: Iteration) {
        *self = Self::new(self.id, self.vcpus, self.rate, iteration);
    }

    /// What is done to the vCPU before its next entry.
    pub fn draw(&mut self) -> Option<Perturbation> {
        if self.rate.0 == 0 || below(&mut self.random, MILLION) >= self.rate.0 {
            return None;
        }
        self.drawn += 1;
        Some(match below(&mut self.random, 8) {
            0..4 => Perturbation::Delay(up_to(&mut self.random, DELAY_MAX)),
            4 => Perturbation::Pause(up_to(&mut self.random, PAUSE_MAX)),
            5 | 6 => Perturbation::Kick(VcpuId(below(&mut self.random, self.vcpus.max(1)))),
            _ => Perturbation::Help,
        })
    }

    /// How many there have been in this iteration.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }
}

/// How many posted accesses may be in line in this iteration.
pub fn draw_capacity(iteration: Iteration) -> usize {
    let mut random = Purpose::Capacity.stream(iteration);
    let count = u32::try_from(CAPACITIES.len()).unwrap_or(u32::MAX);
    CAPACITIES[below(&mut random, count) as usize]
}

/// The kicks from outside in one iteration: after how long, and whom.
pub fn draw_kicks(
    iteration: Iteration,
    vcpus: u32,
    period: Duration,
) -> impl Iterator<Item = (Duration, VcpuId)> {
    let mut random = Purpose::Kicks.stream(iteration);
    std::iter::repeat_with(move || {
        let wait = up_to(&mut random, 2 * period);
        (wait, VcpuId(below(&mut random, vcpus.max(1))))
    })
}

/// A number below `end`, each as likely as the others to within `end` / 2^32.
pub(super) fn below(random: &mut Xoshiro256PlusPlus, end: u32) -> u32 {
    let wide = u64::from(random.next_u32()) * u64::from(end);
    // The high half of a product is below `end`.
    u32::try_from(wide >> 32).unwrap_or(0)
}

/// A time up to `max`.
pub(super) fn up_to(random: &mut Xoshiro256PlusPlus, max: Duration) -> Duration {
    let end = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
    let wide = u128::from(random.next_u64()) * u128::from(end);
    Duration::from_nanos(u64::try_from(wide >> 64).unwrap_or(0))
}

#[cfg(test)]
mod tests;
