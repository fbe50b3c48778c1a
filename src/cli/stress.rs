//! The options about running a guest again and again.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueHint};
use thiserror::Error;

use super::timeout;
use crate::number::{NumberError, parse_u64};
use crate::stress::chaos::ChaosRate;
use crate::stress::condition::Condition;
use crate::stress::config::{DEFAULT_ITERATION_TIMEOUT, StressConfig};
use crate::stress::seed::Seed;
use crate::stress::shard::Shard;
use crate::stress::start::StartMode;

/// The most VMs at once.
const JOBS_MAX: u32 = 1024;

#[derive(Debug, Args)]
#[command(next_help_heading = "Stress")]
pub(super) struct StressArgs {
    /// Run the guest N times, each time from its first state
    #[arg(long, value_name = "N", value_parser = repeat, allow_negative_numbers = true)]
    repeat: Option<NonZeroU64>,

    /// Run the guest until an iteration fails
    #[arg(long, conflicts_with_all = ["repeat", "keep_going", "shard"])]
    until_fail: bool,

    /// Where all that is random comes from, as a number [default: drawn, and printed]
    #[arg(long, value_name = "SEED", allow_negative_numbers = true)]
    seed: Option<Seed>,

    /// Run this many VMs at once
    #[arg(long, value_name = "J", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(JOBS_MAX)))]
    jobs: Option<u32>,

    /// Go on after an iteration has failed
    #[arg(long, overrides_with = "fail_fast")]
    keep_going: bool,

    /// End with the first iteration that fails; the default
    #[arg(long, action = ArgAction::SetTrue)]
    fail_fast: bool,

    /// The longest that one iteration may take [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    iteration_timeout: Option<Duration>,

    /// Disturb the vCPUs, as the seed draws it: the part of their entries into the guest, 0 to 1
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "0.05")]
    chaos: Option<ChaosRate>,

    /// Let one vCPU at a time run, from exit to exit, in an order that the seed draws
    #[arg(long)]
    lockstep: bool,

    /// Outcomes of which one must be seen: 0x3,0x10-0x1f,0x1/0xff,label=TEXT; may be repeated
    #[arg(long, value_name = "OUTCOMES")]
    expect: Vec<Condition>,

    /// Outcomes of which none may be seen
    #[arg(long, value_name = "OUTCOMES")]
    forbid: Vec<Condition>,

    /// Run only the Kth part of N of the iterations; `minivmm merge` adds up the results
    #[arg(long, value_name = "K/N", requires = "repeat", requires = "seed")]
    shard: Option<Shard>,

    /// Write the results to a file, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    result: Option<PathBuf>,
}

#[derive(Debug, Error)]
enum RepeatError {
    #[error("a campaign has at least one iteration")]
    Zero,
    #[error(transparent)]
    Number(#[from] NumberError),
}

fn repeat(text: &str) -> Result<NonZeroU64, RepeatError> {
    NonZeroU64::new(parse_u64(text)?).ok_or(RepeatError::Zero)
}

impl StressArgs {
    /// What is asked for, with `start` if that was given; nothing if no option is given.
    pub(super) fn into_config(self, start: Option<StartMode>) -> Option<StressConfig> {
        let iterations = self.repeat.map(NonZeroU64::get);
        let config = StressConfig {
            iterations: if self.until_fail { None } else { Some(iterations.unwrap_or(1)) },
            seed: self.seed,
            jobs: self.jobs.unwrap_or(1),
            keep_going: self.keep_going,
            iteration_timeout: self.iteration_timeout.unwrap_or(DEFAULT_ITERATION_TIMEOUT),
            start: start.unwrap_or_default(),
            chaos: self.chaos,
            lockstep: self.lockstep,
            expect: self.expect,
            forbid: self.forbid,
            shard: self.shard,
            result: self.result,
        };
        // An option that is given its default value asks for a campaign, too.
        let asked = self.repeat.is_some()
            || self.fail_fast
            || self.jobs.is_some()
            || self.iteration_timeout.is_some()
            || start.is_some();
        (asked || config != StressConfig::default()).then_some(config)
    }
}
