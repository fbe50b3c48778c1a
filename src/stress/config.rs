//! What a user asks of a campaign: how often the guest is run, and how it is disturbed.

use std::path::PathBuf;
use std::time::Duration;

use crate::stress::chaos::ChaosRate;
use crate::stress::condition::Condition;
use crate::stress::seed::Seed;
use crate::stress::shard::Shard;
use crate::stress::start::StartMode;

/// The longest that an iteration may take, unless the user says otherwise.
pub const DEFAULT_ITERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Plain values, like all of a VM's configuration, of which this is a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StressConfig {
    /// How many iterations the campaign has, over all its shards; none for as many as it takes.
    pub iterations: Option<u64>,
    /// Where all that is random comes from; drawn if not given.
    pub seed: Option<Seed>,
    /// How many VMs run at once.
    pub jobs: u32,
    /// A failed iteration does not end the campaign.
    pub keep_going: bool,
    /// The longest that one iteration may take.
    pub iteration_timeout: Duration,
    /// How the vCPUs start.
    pub start: StartMode,
    /// How often vCPUs are disturbed.
    pub chaos: Option<ChaosRate>,
    /// One vCPU at a time.
    pub lockstep: bool,
    /// Outcomes that must be seen.
    pub expect: Vec<Condition>,
    /// Outcomes that must not.
    pub forbid: Vec<Condition>,
    /// Which part of the iterations.
    pub shard: Option<Shard>,
    /// Where the results go as JSON.
    pub result: Option<PathBuf>,
}

impl Default for StressConfig {
    fn default() -> Self {
        Self {
            iterations: Some(1),
            seed: None,
            jobs: 1,
            keep_going: false,
            iteration_timeout: DEFAULT_ITERATION_TIMEOUT,
            start: StartMode::default(),
            chaos: None,
            lockstep: false,
            expect: Vec::new(),
            forbid: Vec::new(),
            shard: None,
            result: None,
        }
    }
}
