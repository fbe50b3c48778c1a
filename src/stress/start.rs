//! How the vCPUs of a VM start into an iteration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::exit::VcpuId;
use crate::stress::chaos::{below, up_to};
use crate::stress::iteration::Iteration;
use crate::stress::purpose::Purpose;

/// The longest that a vCPU comes late with [`StartMode::Random`].
const LATE_MAX: Duration = Duration::from_micros(200);

/// Who starts when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartMode {
    /// All at the same time, as near as the host can.
    #[default]
    Together,
    /// Each this much later than the one before.
    Stagger(Duration),
    /// In an order and at distances that the seed draws.
    Random,
    /// Each when the one before is about to enter the guest.
    OneByOne,
}

/// A text that is no [`StartMode`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a way to start: expected together, stagger=DURATION, random or one-by-one")]
pub struct StartModeError(pub String);

impl fmt::Display for StartMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Together => f.write_str("together"),
            Self::Stagger(step) => write!(f, "stagger={}", humantime::format_duration(*step)),
            Self::Random => f.write_str("random"),
            Self::OneByOne => f.write_str("one-by-one"),
        }
    }
}

impl FromStr for StartMode {
    type Err = StartModeError;

    fn from_str(text: &str) -> Result<Self, StartModeError> {
        let error = || StartModeError(text.to_owned());
        match text {
            "together" => Ok(Self::Together),
            "random" => Ok(Self::Random),
            "one-by-one" => Ok(Self::OneByOne),
            _ => {
                let step = text.strip_prefix("stagger=").ok_or_else(error)?;
                humantime::parse_duration(step).map(Self::Stagger).map_err(|_| error())
            }
        }
    }
}

impl StartMode {
    /// In which order the vCPUs are woken.
    pub fn order(self, iteration: Iteration, vcpus: u32) -> Vec<VcpuId> {
        let mut order: Vec<_> = (0..vcpus).map(VcpuId).collect();
        match self {
            Self::Together | Self::Stagger(_) => {}
            Self::OneByOne => order.truncate(1),
            Self::Random => {
                let mut random = Purpose::Start.stream(iteration);
                for last in (1..vcpus).rev() {
                    order.swap(last as usize, below(&mut random, last + 1) as usize);
                }
            }
        }
        order
    }

    /// How long after the start of the iteration vCPU `id` goes on.
    pub fn delay(self, iteration: Iteration, id: VcpuId) -> Duration {
        match self {
            Self::Together | Self::OneByOne => Duration::ZERO,
            Self::Stagger(step) => step.saturating_mul(id.0),
            Self::Random => up_to(&mut Purpose::Late(id).stream(iteration), LATE_MAX),
        }
    }
}

#[cfg(test)]
mod tests;
