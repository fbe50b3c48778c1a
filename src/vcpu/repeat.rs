//! A VM that runs its guest again and again. Between two iterations the vCPU that came last makes
//! the turn, while all others wait at the turnstile: it has the campaign told how the iteration came
//! out, puts memory and devices back to how they were, and draws what the next one needs. The vCPUs
//! themselves are put back by their own threads, each as soon as it has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::devices::DeviceSet;
use crate::devices::watch::Watch;
use crate::exit::VcpuId;
use crate::outcome::VmOutcome;
use crate::report::VcpuReport;
use crate::stress::chaos::{self, Chaos, ChaosRate};
use crate::stress::iteration::{Campaign, Finished, Iteration, has_passed};
use crate::stress::lockstep::{Lockstep, QUANTUM};
use crate::stress::ports::Reported;
use crate::stress::start::StartMode;
use crate::vcpu::handle::{Shared, VcpuSeat};
use crate::vcpu::pace::Pace;
use crate::vcpu::rounds::Brought;
use crate::vcpu::runner::Runner;
use crate::vcpu::{BuildVcpu, VcpuEnd, VcpuError, VcpuRun};

/// How long vCPUs that start together, each on a CPU of its own, wait there for each other, at most:
/// longer than a wake-up takes on a host whose idle CPUs sleep.
const RENDEZVOUS_MAX: Duration = Duration::from_millis(1);
/// How long such a vCPU waits on its CPU for the others to end an iteration before it sleeps.
const SPIN_MAX: Duration = Duration::from_micros(100);

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
    setup: RepeatSetup,
    vcpus: u32,
    lockstep: Option<Lockstep>,
    /// The iteration that runs; changes at the turn only.
    current: Mutex<Iteration>,
    /// vCPUs that have come to the start of an iteration, in all iterations together.
    at_start: AtomicU64,
}

/// What a vCPU brings to the turnstile.
#[derive(Debug, Default)]
pub struct RoundEnd {
    /// How it ended; none before the first round.
    end: Option<VcpuEnd>,
    /// The how manieth to end it was.
    order: u64,
    /// The number of its first exit.
    first_exit: u64,
    /// When it entered the guest.
    entered: Option<Instant>,
    reported: Reported,
    perturbations: u64,
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
    pub fn pace<'a, B>(&'a self, id: VcpuId, shared: &'a Shared<B>) -> Option<Pace<'a>> {
        let rate = self.setup.chaos;
        let chaos = rate.map(|rate| Chaos::new(id, self.vcpus, rate, Iteration::default()));
        let lockstep = self.lockstep.as_ref();
        let wanted = chaos.is_some() || lockstep.is_some();
        wanted.then_some(Pace { chaos, lockstep, controls: &shared.controls })
    }

    /// Waits on the CPU for a while, if that is the vCPU's own.
    pub fn spin<B>(&self, shared: &Shared<B>, id: VcpuId, round: u64) {
        if self.setup.own_cpus && self.vcpus > 1 {
            shared.rounds.spin(id, round, SPIN_MAX);
        }
    }

    /// Runs the iterations of one vCPU until there are no more.
    pub fn run<B: BuildVcpu>(
        &self,
        shared: &Shared<B>,
        seat: &VcpuSeat,
        runner: &mut Runner<'_, B::Vcpu>,
    ) -> VcpuEnd {
        let mut brought = RoundEnd::default();
        for round in 1.. {
            match shared.come(seat, brought, round, runner) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return VcpuEnd::Failed { error, registers: None },
            }
            brought = match self.run_round(shared, seat, runner, round) {
                Ok(brought) => brought,
                Err(end) => return end,
            };
        }
        // Nothing was wrong with the VM; how the iterations came out, the campaign knows.
        match seat.control.is_stopping() {
            true => VcpuEnd::Stopped { registers: None },
            false => VcpuEnd::Halted,
        }
    }

    /// Runs one iteration, and puts the vCPU back to how it was. An error is the end of the VM.
    fn run_round<B: BuildVcpu>(
        &self,
        shared: &Shared<B>,
        seat: &VcpuSeat,
        runner: &mut Runner<'_, B::Vcpu>,
        round: u64,
    ) -> Result<RoundEnd, VcpuEnd> {
        let iteration = *self.current.lock();
        runner.begin(iteration);
        let first_exit = runner.exits();
        self.hold(shared, seat, iteration, round);
        let entered = Instant::now();
        let end = runner.run();
        let ends_round = !matches!(end, VcpuEnd::Halted | VcpuEnd::Stopped { .. });
        let order = shared.rounds.note_end(seat.id, ends_round);
        if let Some(lockstep) = &self.lockstep {
            lockstep.leave(seat.id);
        }
        if seat.control.is_stopping() || matches!(end, VcpuEnd::Failed { .. }) {
            return Err(end);
        }
        runner.vcpu().reset().map_err(|source| {
            let error = VcpuError::Setup { what: "putting the vCPU back", source };
            VcpuEnd::Failed { error, registers: None }
        })?;
        Ok(RoundEnd {
            // A vCPU that was told to end its round before it entered the guest has not run.
            entered: (runner.exits() > first_exit).then_some(entered),
            end: Some(end),
            order,
            first_exit,
            reported: runner.take_reported(),
            perturbations: runner.perturbations(),
        })
    }

    /// The start of an iteration, as the user wants it.
    fn hold<B>(&self, shared: &Shared<B>, seat: &VcpuSeat, iteration: Iteration, round: u64) {
        let delay = self.setup.start.delay(iteration, seat.id);
        if !delay.is_zero() {
            wait_unless(delay, || seat.control.stop_requested());
        }
        match self.setup.start {
            StartMode::OneByOne => shared.rounds.let_run(VcpuId(seat.id.0 + 1), round),
            StartMode::Together if self.setup.own_cpus => self.rendezvous(round),
            _ => {}
        }
    }

    /// Waits on the CPU until all vCPUs have come, since waking them takes much longer than they
    /// are to differ by. One that does not come, for it was told to stop, is not waited for long.
    fn rendezvous(&self, round: u64) {
        let all = round * u64::from(self.vcpus);
        self.at_start.fetch_add(1, Ordering::AcqRel);
        let began = Instant::now();
        while self.at_start.load(Ordering::Acquire) < all && began.elapsed() < RENDEZVOUS_MAX {
            std::hint::spin_loop();
        }
    }

    /// Between two iterations; on the thread of the vCPU that came last. Returns whom to let run
    /// first; none if there are no more iterations.
    ///
    /// # Errors
    ///
    /// The guest's memory cannot be put back.
    pub fn turn<B: BuildVcpu>(
        &self,
        shared: &Shared<B>,
        brought: Brought<RoundEnd>,
        watch: &mut impl Watch,
    ) -> Result<Option<Vec<VcpuId>>, VcpuError> {
        let has_run = brought.ends.iter().any(|brought| brought.end.is_some());
        if has_run {
            let Ok(output) = shared.queue.settle(watch, DeviceSet::reset) else { return Ok(None) };
            let finished = self.finished(shared, brought, output);
            self.setup.campaign.finished(self.setup.vm, finished);
        }
        let Some(iteration) = self.setup.campaign.next(self.setup.vm) else { return Ok(None) };
        if has_run {
            shared.builder.reset_memory().map_err(|source| {
                let what = "putting the guest's memory back";
                VcpuError::Setup { what, source }
            })?;
        }
        *self.current.lock() = iteration;
        let disturbs = self.setup.chaos.is_some_and(|rate| rate.kick_period().is_some());
        if disturbs {
            shared.queue.set_limit(chaos::draw_capacity(iteration));
        }
        if let Some(lockstep) = &self.lockstep {
            lockstep.begin(iteration);
        }
        let order = match self.setup.start {
            // Nobody has asked for an order.
            StartMode::Together if disturbs => StartMode::Random,
            start => start,
        };
        Ok(Some(order.order(iteration, self.vcpus)))
    }

    fn finished<B>(
        &self,
        shared: &Shared<B>,
        brought: Brought<RoundEnd>,
        output: Vec<u8>,
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
            for ((control, first), registers) in shared.controls.iter().zip(starts).zip(registers) {
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
            output,
            reported,
            skew,
            perturbations,
            preemptions: self.lockstep.as_ref().map_or(0, Lockstep::preemptions),
        }
    }
}

type EachRegisters = Vec<Option<Box<crate::vcpu::registers::Registers>>>;

/// How an iteration came out, by the rule for whole runs: the first that ended it, but an error
/// beats a success; if nothing did, and it was cut, it took too long. With the registers of those who
/// were stopped.
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
        (Some((false, _, outcome)), _) => outcome,
        (_, Some(limit)) => VmOutcome::TimedOut(limit),
        (Some((_, _, outcome)), None) => outcome,
        (None, None) => VmOutcome::AllHalted,
    };
    (outcome, registers)
}

/// Sleeps for `time`, in short pieces, unless `stop`.
fn wait_unless(time: Duration, stop: impl Fn() -> bool) {
    const PIECE: Duration = Duration::from_millis(20);
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed())
        && !stop()
    {
        std::thread::sleep(left.min(PIECE));
    }
}
