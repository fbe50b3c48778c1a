//! How a run's outcome is decided: which of several events counts. Used by the supervisor alone.

use crate::outcome::VmOutcome;

/// How the run came out, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) outcome: Option<VmOutcome>,
    /// vCPUs that have halted.
    pub(super) halted: usize,
    /// The outcome stands, whatever still comes.
    pub(super) decided: bool,
}

impl Verdict {
    /// The first outcome counts, but an error beats a success that is queued with it.
    pub(super) fn consider(&mut self, outcome: VmOutcome) {
        let wins = match &self.outcome {
            _ if self.decided => false,
            None => true,
            Some(first) => !first.is_failure() && outcome.is_failure(),
        };
        self.settle(wins, outcome);
    }

    /// Output that cannot be written also beats a success that was decided: the run did not go
    /// well if the last of its output is lost.
    pub(super) fn consider_output(&mut self, outcome: VmOutcome) {
        match &self.outcome {
            Some(first) if !first.is_failure() && first.waits_for_reader() => {
                self.settle(true, outcome);
            }
            _ => self.consider(outcome),
        }
    }

    fn settle(&mut self, wins: bool, outcome: VmOutcome) {
        if wins {
            self.outcome = Some(outcome);
        } else {
            log::info!(target: "minivmm::vmm", "after the end was decided: {outcome}");
        }
    }
}
