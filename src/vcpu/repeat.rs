//! What a VM that runs its guest again and again has besides: how it does so, the iteration that
//! runs, and what that has come to. The doing is in `turn.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::devices::Leftover;
use crate::exit::VcpuId;
use crate::outcome::VmOutcome;
use crate::report::VcpuReport;
use crate::stress::chaos::{Chaos, ChaosRate};
use crate::stress::iteration::Iteration;
use crate::stress::lockstep::{Lockstep, QUANTUM};
use crate::stress::ports::Reported;
use crate::stress::start::StartMode;
use crate::vcpu::VcpuEnd;
use crate::vcpu::campaign::{Campaign, Finished, has_passed};
use crate::vcpu::pace::Pace;
use crate::vcpu::registers::Registers;
use crate::vcpu::rounds::Brought;
use crate::vcpu::state::VcpuControl;

/// How long vCPUs that start together, each on a CPU of its own, wait there for each other, at
/// most: longer than a wake-up takes on a host whose idle CPUs sleep.
const RENDEZVOUS_MAX: Duration = Duration::from_millis(1);

/// How a guest is run again and again.
#[derive(Clone, Debug)]
pub struct RepeatSetup {
    /// What decides about iterations.
    pub campaign: Arc<dyn Campaign>,
    /// Which of the campaign's VMs this is.
    pub vm: usize,
    /// How the vCPUs start.
    pub start: StartMode,
    /// How often they are disturbed.
    pub chaos: Option<ChaosRate>,
    /// One of them runs at a time.
    pub lockstep: bool,
    /// The longest that an iteration may take; who watches over it cuts it ([`super::rounds`]).
    pub limit: Duration,
    /// Each vCPU has a host CPU of its own, so that they may wait for each other on them.
    pub own_cpus: bool,
}

/// What the threads of such a VM share.
#[derive(Debug)]
pub struct Repeat {
    pub(super) setup: RepeatSetup,
    pub(super) vcpus: u32,
    pub(super) lockstep: Option<Lockstep>,
    /// The iteration that runs; changes at the turn only.
    pub(super) current: Mutex<Iteration>,
    /// vCPUs that have come to the start of an iteration, in all iterations together.
    at_start: AtomicU64,
}

/// What a vCPU brings to the turnstile.
#[derive(Debug, Default)]
pub struct RoundEnd {
    /// How it ended; none before the first round.
    pub(super) end: Option<VcpuEnd>,
    /// The how manieth to end it was.
    pub(super) order: u64,
    /// The number of its first exit.
    pub(super) first_exit: u64,
    /// When it entered the guest.
    pub(super) entered: Option<Instant>,
    pub(super) reported: Reported,
    pub(super) perturbations: u64,
}

impl Repeat {
    /// For a VM of so many vCPUs.
    pub fn new(setup: RepeatSetup, vcpus: u32) -> Self {
        let count = usize::try_from(vcpus).unwrap_or(usize::MAX);
        let lockstep = setup.lockstep.then(|| Lockstep::new(count, Some(QUANTUM)));
        let (current, at_start) = (Mutex::default(), AtomicU64::new(0));
        Self { setup, vcpus, lockstep, current, at_start }
    }

    /// Names the calling thread as that of vCPU `id`.
    pub fn adopt(&self, id: VcpuId) {
        if let Some(lockstep) = &self.lockstep {
            lockstep.adopt(id);
        }
    }

    /// What a vCPU's run loop needs of it.
    pub fn pace<'a>(&'a self, id: VcpuId, controls: &'a [Arc<VcpuControl>]) -> Option<Pace<'a>> {
        let rate = self.setup.chaos;
        let chaos = rate.map(|rate| Chaos::new(id, self.vcpus, rate, Iteration::default()));
        let lockstep = self.lockstep.as_ref();
        let wanted = chaos.is_some() || lockstep.is_some();
        wanted.then_some(Pace { chaos, lockstep, controls })
    }

    /// Waits on the CPU until all vCPUs have come, since waking them takes much longer than they
    /// are to differ by. One that does not come, for it was told to stop, is not waited for long.
    pub(super) fn rendezvous(&self, round: u64) {
        let all = round * u64::from(self.vcpus);
        self.at_start.fetch_add(1, Ordering::AcqRel);
        let began = Instant::now();
        while self.at_start.load(Ordering::Acquire) < all && began.elapsed() < RENDEZVOUS_MAX {
            std::hint::spin_loop();
        }
    }

    /// What the iteration has come to, with what the vCPUs bring and what is left in the devices.
    pub(super) fn finished(
        &self,
        controls: &[Arc<VcpuControl>],
        brought: Brought<RoundEnd>,
        left: Leftover,
    ) -> Finished {
        let Brought { mut ends, cut } = brought;
        let entered: Option<Vec<_>> = ends.iter().map(|brought| brought.entered).collect();
        let skew = entered.filter(|entered| entered.len() > 1).and_then(|entered| {
            let (first, last) = (entered.iter().min()?, entered.iter().max()?);
            Some(*last - *first)
        });
        let reported = ends.iter_mut().map(|brought| std::mem::take(&mut brought.reported));
        let reported = reported.collect();
        let perturbations = ends.iter().map(|brought| brought.perturbations).sum();
        let starts: Vec<_> = ends.iter().map(|brought| brought.first_exit).collect();
        let (outcome, registers) = outcome_of(ends, cut.then_some(self.setup.limit));
        let mut vcpus = Vec::new();
        if !has_passed(&outcome) {
            for ((control, first), registers) in controls.iter().zip(starts).zip(registers) {
                let count = control.exits.count().saturating_sub(first);
                let mut exits = control.exits.last();
                exits.retain(|record| record.exit().is_some_and(|exit| exit.sequence >= first));
                vcpus.push(VcpuReport { count, exits, registers });
            }
        }
        Finished {
            iteration: *self.current.lock(),
            outcome,
            vcpus,
            output: left.output,
            post_code: left.post_code,
            reported,
            skew,
            perturbations,
            preemptions: self.lockstep.as_ref().map_or(0, Lockstep::preemptions),
        }
    }
}

type EachRegisters = Vec<Option<Box<Registers>>>;

/// How an iteration came out, by the rule for whole runs: the first that ended it, but an error
/// beats a success; if nothing did, and it was cut, it took too long. With the registers of those
/// who were stopped.
fn outcome_of(ends: Vec<RoundEnd>, cut: Option<Duration>) -> (VmOutcome, EachRegisters) {
    let mut registers: EachRegisters = ends.iter().map(|_| None).collect();
    let mut found = Vec::new();
    for (id, brought) in (0..).map(VcpuId).zip(ends) {
        let outcome = match brought.end {
            None | Some(VcpuEnd::Halted) => continue,
            Some(VcpuEnd::Stopped { registers: stopped }) => {
                registers[id.index()] = stopped;
                continue;
            }
            Some(end) => VmOutcome::of_end(id, end),
        };
        found.push((!outcome.is_failure(), brought.order, outcome));
    }
    let first = found.into_iter().min_by_key(|(success, order, _)| (*success, *order));
    let outcome = match (first, cut) {
        (Some((_, _, outcome)), _) => outcome,
        (None, Some(limit)) => VmOutcome::TimedOut(limit),
        (None, None) => VmOutcome::AllHalted,
    };
    (outcome, registers)
}
