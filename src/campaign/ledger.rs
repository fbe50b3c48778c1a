//! What is known of a campaign while it runs: which iteration each VM is at, and what those before
//! have come to. The VMs' vCPU threads write it, one iteration at a time; the main thread reads it.
//!
//! One lock, held for as long as it takes to count; nothing else is waited for, and no other lock
//! taken, while it is held.

use std::fmt;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::campaign::command::ReplayCommand;
use crate::outcome::ExitCode;
use crate::report::Details;
use crate::stress::condition::Condition;
use crate::stress::histogram::{Outcome, Witness};
use crate::stress::iteration::Iteration;
use crate::stress::result::{CampaignResult, Disturbances, Failure};
use crate::stress::seed::Seed;
use crate::vcpu::campaign::{Campaign, Finished, has_passed};

/// How many failures are shown with everything that is known of them; of the others only a line.
const SHOWN_IN_FULL: u64 = 3;
/// How many failures have a line on standard error. All are in the result.
const SHOWN: u64 = 20;

/// What a [`Ledger`] is made of.
pub(super) struct Rules {
    /// The numbers of the iterations.
    pub(super) numbers: Box<dyn Iterator<Item = u64> + Send>,
    /// The campaign's seed.
    pub(super) seed: Seed,
    /// A failure does not end it.
    pub(super) keep_going: bool,
    /// Outcomes that are failures.
    pub(super) forbid: Vec<Condition>,
    /// How an iteration is run again.
    pub(super) command: ReplayCommand,
}

/// See the module's text.
pub(super) struct Ledger {
    seed: Seed,
    keep_going: bool,
    forbid: Vec<Condition>,
    command: ReplayCommand,
    state: Mutex<State>,
}

struct State {
    numbers: Box<dyn Iterator<Item = u64> + Send>,
    result: CampaignResult,
    vms: Vec<Running>,
    /// Texts about failures that are still to be shown.
    stories: Vec<String>,
    /// No more iterations.
    ending: bool,
    /// No VM runs any more.
    over: bool,
}

/// Where a VM is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running {
    /// Its own count of iterations, from 1; 0 before the first.
    pub(super) round: u64,
    pub(super) iteration: Iteration,
    /// Since when.
    pub(super) since: Option<Instant>,
}

impl Ledger {
    /// For so many VMs, of which nothing is known yet.
    pub(super) fn new(rules: Rules, result: CampaignResult, vms: usize) -> Self {
        let Rules { numbers, seed, keep_going, forbid, command } = rules;
        let state = State {
            numbers,
            result,
            vms: vec![Running::default(); vms],
            stories: Vec::new(),
            ending: false,
            over: false,
        };
        Self { seed, keep_going, forbid, command, state: Mutex::new(state) }
    }

    /// No iteration begins from now on.
    pub(super) fn end(&self) {
        self.state.lock().ending = true;
    }

    /// No VM runs any more.
    pub(super) fn close(&self) {
        self.state.lock().over = true;
    }

    /// Whether no VM runs any more.
    pub(super) fn is_over(&self) -> bool {
        self.state.lock().over
    }

    /// The process was stopped for so long: no VM is to blame for that time.
    pub(super) fn forgive(&self, time: Duration) {
        for running in &mut self.state.lock().vms {
            running.since = running.since.and_then(|since| since.checked_add(time));
        }
    }

    /// Where a VM is.
    pub(super) fn running(&self, vm: usize) -> Running {
        self.state.lock().vms.get(vm).copied().unwrap_or_default()
    }

    /// Those VMs and their rounds that have run for longer than `limit`.
    pub(super) fn overdue(&self, limit: Duration) -> Vec<(usize, u64)> {
        let state = self.state.lock();
        let overdue = |running: &Running| running.since.is_some_and(|t| t.elapsed() > limit);
        let vms = state.vms.iter().enumerate();
        vms.filter(|(_, running)| overdue(running)).map(|(vm, run)| (vm, run.round)).collect()
    }

    /// How many iterations are over, and how many of them have failed.
    pub(super) fn progress(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.result.run(), state.result.failed())
    }

    /// Texts about failures, each shown once.
    pub(super) fn take_stories(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().stories)
    }

    /// The end: what there is, once no VM runs any more.
    pub(super) fn take_result(&self, finish: impl FnOnce(&mut CampaignResult)) -> CampaignResult {
        let mut state = self.state.lock();
        finish(&mut state.result);
        state.result.clone()
    }

    /// What is wrong with an iteration, in a line, and its exit code; nothing if it has passed.
    fn fault(&self, finished: &Finished) -> Option<(String, NonZeroU8)> {
        if !has_passed(&finished.outcome) {
            let code = NonZeroU8::new(finished.outcome.exit_code());
            return Some((finished.outcome.to_string(), code.unwrap_or(NonZeroU8::MIN)));
        }
        let states = finished.reported.iter().flat_map(|reported| reported.states.keys());
        let is_forbidden = |outcome: &&Outcome| {
            let (value, label) = (outcome.value, outcome.label.as_str());
            self.forbid.iter().any(|condition| condition.matches(value, label))
        };
        let Outcome { value, label } = states.into_iter().find(is_forbidden)?;
        let code = NonZeroU8::new(ExitCode::Condition as u8).unwrap_or(NonZeroU8::MIN);
        Some((format!("forbidden outcome {value:#x} {label}").trim_end().to_owned(), code))
    }
}

impl Campaign for Ledger {
    fn next(&self, vm: usize) -> Option<Iteration> {
        let mut state = self.state.lock();
        if state.ending {
            return None;
        }
        let Some(number) = state.numbers.next() else {
            state.ending = true;
            return None;
        };
        let iteration = Iteration { number, seed: self.seed.iteration(number) };
        let running = &mut state.vms[vm];
        let round = running.round + 1;
        *running = Running { round, iteration, since: Some(Instant::now()) };
        Some(iteration)
    }

    fn finished(&self, vm: usize, finished: Finished) {
        let fault = self.fault(&finished);
        let Iteration { number: iteration, seed } = finished.iteration;
        let mut state = self.state.lock();
        state.vms[vm].since = None;
        let (perturbations, preemptions) = (finished.perturbations, finished.preemptions);
        state.result.add_disturbances(Disturbances { perturbations, preemptions });
        for (outcome, count) in finished.reported.iter().flat_map(|reported| &reported.states) {
            let (value, witness) = (outcome.value, Witness { iteration, seed });
            state.result.add_outcome(value, outcome.label.as_str(), *count, witness);
        }
        state.result.add_other(finished.reported.iter().map(|reported| reported.other).sum());
        if let Some(skew) = finished.skew {
            state.result.add_skew(u64::try_from(skew.as_nanos()).unwrap_or(u64::MAX));
        }
        let Some((what, exit_code)) = fault else {
            state.result.add_pass();
            return;
        };
        let command = self.command.for_seed(seed);
        let nth = state.result.failed();
        if nth < SHOWN {
            let mut story = format!("iteration {iteration} (seed {seed}) failed: {what}\n");
            if nth < SHOWN_IN_FULL {
                story += &story_of(&finished);
            }
            story += &format!("  again, alone: {command}\n");
            state.stories.push(story);
        }
        state.result.add_failure(Failure { iteration, seed, what, exit_code, command });
        state.ending |= !self.keep_going;
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Everything that is known of a failure: registers, the last exits, the output.
fn story_of(finished: &Finished) -> String {
    let details = Details::new(&finished.outcome, &finished.vcpus, finished.post_code);
    let mut story = details.to_string();
    if !finished.output.is_empty() {
        story += "output of the iteration:\n";
        story += &printable(&finished.output);
        if !story.ends_with('\n') {
            story.push('\n');
        }
    }
    story
}

/// What a guest has sent, harmless to a terminal: all but its lines and tabs is shown escaped.
fn printable(output: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(output).chars() {
        match c {
            '\n' | '\t' => text.push(c),
            '\r' => {}
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_shown_without_what_steers_a_terminal() {
        assert_eq!(printable(b"a\tb\r\n\x1b[2J\xff\n"), "a\tb\n\\u{1b}[2J\u{fffd}\n");
    }
}
