//! The watch over a campaign's VMs, on the main thread: iterations that take too long, signals, the
//! time limit, and what each of them means for the campaign.

use std::time::{Duration, Instant};

use super::fleet::{Fleet, LOOK_MAX};
use super::ledger::Ledger;
use crate::host::{self, Signals, Taken};
use crate::outcome::{EndSignal, ExitCode, VmOutcome};
use crate::stress::config::StressConfig;
use crate::stress::result::Cut;

/// The shortest time between two looks at the VMs.
const LOOK_MIN: Duration = Duration::from_millis(1);
/// How much later than it should a look may come before something else must have had the time.
const SLACK: Duration = Duration::from_millis(500);

/// Watches over the VMs.
pub(super) struct Watch<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) stress: &'a StressConfig,
    pub(super) signals: &'a Signals,
    pub(super) limit: Option<Duration>,
}

impl Watch<'_> {
    /// Until all have ended. Returns what has cut the campaign short, if anything from outside did.
    pub(super) fn run(&self, vms: &mut Fleet, began: Instant) -> Option<Cut> {
        let look = (self.stress.iteration_timeout / 8).clamp(LOOK_MIN, LOOK_MAX);
        let (mut cut, mut stopped) = (None, false);
        let mut ran = began.elapsed();
        let mut looked = Instant::now();
        loop {
            let ended = vms.wait(look);
            // Time in which we were stopped, or had no CPU, is not the guests'.
            let passed = looked.elapsed();
            looked = Instant::now();
            let lost = passed.saturating_sub(look + SLACK);
            ran += passed - lost;
            if !lost.is_zero() {
                self.ledger.forgive(lost);
            }
            if ended {
                return cut;
            }
            for (vm, round) in self.ledger.overdue(self.stress.iteration_timeout) {
                vms.end_round(vm, round);
            }
            cut = cut.or_else(|| self.cut(vms, ran));
            // One VM that cannot go on is the end of all.
            if !stopped && (cut.is_some() || vms.cut().is_some()) {
                stopped = true;
                self.ledger.end();
                vms.stop();
            }
        }
    }

    /// What ends the campaign from outside, if anything does now.
    fn cut(&self, vms: &Fleet, ran: Duration) -> Option<Cut> {
        match self.signals.try_next() {
            Some(Taken::End(signal)) => {
                let outcome = VmOutcome::Signal(signal);
                return Some(Cut { why: name_of(signal).into(), exit_code: outcome.exit_code() });
            }
            Some(Taken::Look) => vms.show_exits(),
            Some(Taken::Suspend) => host::suspend(),
            Some(Taken::Continue) | None => {}
        }
        let limit = self.limit.filter(|limit| ran >= *limit)?;
        let why = format!("time-out after {}", humantime::format_duration(limit));
        Some(Cut { why, exit_code: ExitCode::TimedOut as u8 })
    }
}

fn name_of(signal: EndSignal) -> &'static str {
    match signal {
        EndSignal::Hangup => "SIGHUP",
        EndSignal::Interrupt => "SIGINT",
        EndSignal::Quit => "SIGQUIT",
        EndSignal::Terminate => "SIGTERM",
    }
}
