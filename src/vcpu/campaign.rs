//! What decides about a VM's iterations, as its vCPU threads see it: plain data between them, who
//! run an iteration, and the campaign, which counts them.

use std::fmt;
use std::time::Duration;

use crate::devices::GuestEnd;
use crate::devices::post_code::PostCode;
use crate::outcome::VmOutcome;
use crate::report::VcpuReport;
use crate::stress::iteration::Iteration;
use crate::stress::ports::Reported;

/// An iteration that is over.
#[derive(Debug)]
pub struct Finished {
    /// Which.
    pub iteration: Iteration,
    /// How it came out.
    pub outcome: VmOutcome,
    /// What is known of each vCPU; empty if the iteration has passed.
    pub vcpus: Vec<VcpuReport>,
    /// What the guest has sent, if that is kept; its end, if it was much.
    pub output: Vec<u8>,
    /// The last POST code that it has written.
    pub post_code: Option<PostCode>,
    /// The outcomes that each vCPU has reported.
    pub reported: Vec<Reported>,
    /// From the first vCPU's first entry into the guest to the last one's; none if not all came
    /// to one, or there is one only.
    pub skew: Option<Duration>,
    /// How often the guest was disturbed on purpose.
    pub perturbations: u64,
    /// How often a vCPU had to be interrupted so that another one could run (`lockstep`).
    pub preemptions: u64,
}

/// What decides which iterations there are. Called by vCPU threads, by one at a time for each VM.
pub trait Campaign: Send + Sync + fmt::Debug {
    /// The next iteration of a VM; none if there are no more.
    fn next(&self, vm: usize) -> Option<Iteration>;

    /// One is over.
    fn finished(&self, vm: usize, finished: Finished);
}

/// Whether an iteration with this outcome has passed: its vCPUs halted, or it powered off, or
/// wrote 0 to the exit port.
pub fn has_passed(outcome: &VmOutcome) -> bool {
    matches!(
        outcome,
        VmOutcome::AllHalted | VmOutcome::Guest { end: GuestEnd::PowerOff | GuestEnd::Exit(0), .. }
    )
}
