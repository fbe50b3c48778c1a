//! From round to round: how the vCPU threads of a VM come together, start, and, in a campaign, do
//! it again. Between two iterations the vCPU that came last makes the turn, while all others wait
//! at the turnstile: it has the campaign told how the iteration came out, puts memory and devices
//! back to how they were, and draws what the next one needs. The vCPUs themselves are put back by
//! their own threads, each as soon as it has ended.

use std::time::{Duration, Instant};

use crate::devices::DeviceSet;
use crate::devices::watch::Watch;
use crate::events::Event;
use crate::exit::VcpuId;
use crate::stress::chaos;
use crate::stress::iteration::Iteration;
use crate::stress::start::StartMode;
use crate::vcpu::repeat::{Repeat, RoundEnd};
use crate::vcpu::rounds::{BOOT_VCPU, Brought};
use crate::vcpu::runner::Runner;
use crate::vcpu::shared::{Shared, VcpuSeat};
use crate::vcpu::{BuildVcpu, VcpuEnd, VcpuError, VcpuRun};

/// How long a vCPU with a CPU of its own waits there for the others to end an iteration before it
/// sleeps.
const SPIN_MAX: Duration = Duration::from_micros(100);

impl<B: BuildVcpu> Shared<B> {
    /// Comes to the turnstile before `round`, counted from 1, with what the round before has come
    /// to, and waits there. The last one to come makes the turn. False if there are no more rounds.
    ///
    /// # Errors
    ///
    /// The turn fails; the supervisor then sends the others home.
    pub fn come(
        &self,
        seat: &VcpuSeat,
        brought: RoundEnd,
        round: u64,
        runner: &mut Runner<'_, B::Vcpu>,
    ) -> Result<bool, VcpuError> {
        let ready = Instant::now();
        if let Some(brought) = self.rounds.arrive(seat.id, brought) {
            if let Some(recorder) = runner.recorder() {
                recorder.record_again();
            }
            let first = match &self.repeat {
                None => Some(self.all()),
                Some(repeat) => turn(repeat, self, brought, runner.recorder())?,
            };
            if let Some(first) = first {
                self.open(&first, round);
            } else {
                self.rounds.close();
            }
            if round == 1 && !self.rounds.is_closed() {
                seat.events.send(Event::Started(ready));
            }
        }
        if let Some(repeat) = &self.repeat
            && repeat.setup.own_cpus
            && repeat.vcpus > 1
        {
            self.rounds.spin(seat.id, round, SPIN_MAX);
        }
        let runs = self.rounds.wait(seat.id, round);
        if runs && self.builder.starts_alone() {
            self.rounds.wait_in_guest(seat.id, round);
        }
        Ok(runs)
    }

    /// Whom to let run first when the vCPUs of a single run start.
    fn all(&self) -> Vec<VcpuId> {
        (0..self.rounds.vcpus()).map(VcpuId::from_index).collect()
    }

    /// Begins a round, in which these vCPUs are let run first.
    fn open(&self, first: &[VcpuId], round: u64) {
        self.rounds.open();
        // A boot vCPU is let run by the last of the others.
        let comes_last = self.builder.starts_alone() && self.rounds.vcpus() > 1;
        for id in first.iter().filter(|id| !comes_last || **id != BOOT_VCPU) {
            self.rounds.let_run(*id, round);
        }
    }
}

/// Runs the iterations of one vCPU until there are no more.
pub fn run_iterations<B: BuildVcpu>(
    repeat: &Repeat,
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
        brought = match run_round(repeat, shared, seat, runner, round) {
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
    repeat: &Repeat,
    shared: &Shared<B>,
    seat: &VcpuSeat,
    runner: &mut Runner<'_, B::Vcpu>,
    round: u64,
) -> Result<RoundEnd, VcpuEnd> {
    let iteration = *repeat.current.lock();
    runner.begin(iteration);
    let first_exit = runner.exits();
    hold(repeat, shared, seat, iteration, round);
    let entered = Instant::now();
    let end = runner.run();
    let ends_round = !matches!(end, VcpuEnd::Halted | VcpuEnd::Stopped { .. });
    let order = shared.rounds.note_end(seat.id, ends_round);
    if let Some(lockstep) = &repeat.lockstep {
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
fn hold<B>(repeat: &Repeat, shared: &Shared<B>, seat: &VcpuSeat, iteration: Iteration, round: u64) {
    let delay = repeat.setup.start.delay(iteration, seat.id);
    if !delay.is_zero() {
        wait_unless(delay, || seat.control.stop_requested());
    }
    match repeat.setup.start {
        StartMode::OneByOne => shared.rounds.let_run(VcpuId(seat.id.0 + 1), round),
        StartMode::Together if repeat.setup.own_cpus => repeat.rendezvous(round),
        _ => {}
    }
}

/// Between two iterations; on the thread of the vCPU that came last. Returns whom to let run
/// first; none if there are no more iterations.
///
/// # Errors
///
/// The guest's memory cannot be put back.
fn turn<B: BuildVcpu>(
    repeat: &Repeat,
    shared: &Shared<B>,
    brought: Brought<RoundEnd>,
    watch: &mut impl Watch,
) -> Result<Option<Vec<VcpuId>>, VcpuError> {
    let has_run = brought.ends.iter().any(|brought| brought.end.is_some());
    if has_run {
        let Ok(left) = shared.queue.settle(watch, DeviceSet::reset) else { return Ok(None) };
        let finished = repeat.finished(&shared.controls, brought, left);
        repeat.setup.campaign.finished(repeat.setup.vm, finished);
    }
    let Some(iteration) = repeat.setup.campaign.next(repeat.setup.vm) else { return Ok(None) };
    if has_run {
        shared.builder.reset().map_err(|source| {
            let what = "putting the VM back";
            VcpuError::Setup { what, source }
        })?;
    }
    *repeat.current.lock() = iteration;
    let disturbs = repeat.setup.chaos.is_some_and(|rate| rate.kick_period().is_some());
    if disturbs {
        shared.queue.set_limit(chaos::draw_capacity(iteration));
    }
    if let Some(lockstep) = &repeat.lockstep {
        lockstep.begin(iteration);
    }
    let order = match repeat.setup.start {
        // Nobody has asked for an order.
        StartMode::Together if disturbs => StartMode::Random,
        start => start,
    };
    Ok(Some(order.order(iteration, repeat.vcpus)))
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
