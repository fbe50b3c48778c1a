//! The life of a vCPU's thread: bind to a CPU, make the vCPU, wait at the gate, run,
//! report. It reports its end on every path, a panic included.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::devices::queue::DeviceQueue;
use crate::devices::{DeviceSet, PostPolicy};
use crate::events::{Event, EventSender};
use crate::exit::VcpuId;
use crate::panics;
use crate::trace::tracer::VcpuTracing;
use crate::vcpu::repeat::{Repeat, RoundEnd};
use crate::vcpu::rounds::Rounds;
use crate::vcpu::runner::Runner;
use crate::vcpu::state::{Gate, VcpuControl};
use crate::vcpu::{BuildVcpu, VcpuEnd, VcpuError, VcpuRun};

/// What the threads of one VM share.
#[derive(Debug)]
pub struct Shared<B> {
    /// The way to the devices.
    pub queue: DeviceQueue<DeviceSet>,
    /// Which accesses may be posted.
    pub posting: PostPolicy,
    /// What other threads may ask of each vCPU, by index.
    pub controls: Vec<Arc<VcpuControl>>,
    /// Where the vCPUs wait for the start, and between iterations.
    pub rounds: Rounds<RoundEnd>,
    /// How the guest is run again and again, if it is.
    pub repeat: Option<Repeat>,
    /// Where their threads wait, after their ends, until all have ended. An exit unmaps memory,
    /// of the vCPU and of the thread, and that waits for every thread that was preempted in a
    /// page fault; with hundreds of vCPUs still spinning each such wait takes seconds, and the
    /// supervisor, which is to stop them, would be next in line.
    pub exit: Gate<()>,
    /// Makes the vCPUs; last, so that it is dropped last.
    pub builder: B,
}

/// What one vCPU's thread is given.
#[derive(Debug)]
pub struct VcpuSeat {
    /// Which vCPU.
    pub id: VcpuId,
    /// The host CPU that the thread is bound to.
    pub cpu: Option<usize>,
    /// Its own part of what is shared.
    pub control: Arc<VcpuControl>,
    /// Where it reports.
    pub events: EventSender,
    /// What it records with.
    pub tracing: VcpuTracing,
}

/// What the thread of one vCPU does, from its first instruction to its last.
pub fn vcpu_life<B: BuildVcpu>(shared: Arc<Shared<B>>, seat: VcpuSeat) -> impl FnOnce() {
    move || {
        let life = AssertUnwindSafe(|| live(&shared, &seat));
        // The vCPU is kept, and the thread too, until all vCPUs have ended.
        let (end, _vcpu) = panic::catch_unwind(life)
            .unwrap_or_else(|payload| (VcpuEnd::Panicked(panics::message(&*payload)), None));
        seat.events.send(Event::VcpuEnded(seat.id, end));
        shared.exit.wait();
    }
}

fn live<B: BuildVcpu>(shared: &Shared<B>, seat: &VcpuSeat) -> (VcpuEnd, Option<B::Vcpu>) {
    let vcpu = match prepare(shared, seat) {
        Ok(vcpu) => vcpu,
        Err(error) => return (VcpuEnd::Failed { error, registers: None }, None),
    };
    shared.rounds.adopt(seat.id);
    let posting = shared.posting.clone();
    let tracing = seat.tracing.clone();
    let mut runner = Runner::new(seat.id, vcpu, &seat.control, &shared.queue, posting, tracing);
    // Declared after the vCPU and so dropped before it, on a panic too.
    let published = seat.control.publish(runner.vcpu().kicker());
    let end = match &shared.repeat {
        None => match shared.come(seat, RoundEnd::default(), 1, &mut runner) {
            Ok(true) => runner.run(),
            Ok(false) => VcpuEnd::Stopped { registers: None },
            Err(error) => VcpuEnd::Failed { error, registers: None },
        },
        Some(repeat) => {
            repeat.adopt(seat.id);
            runner.set_pace(repeat.pace(seat.id, shared));
            repeat.run(shared, seat, &mut runner)
        }
    };
    drop(published);
    (end, Some(runner.into_vcpu()))
}

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
            let first = match &self.repeat {
                None => Some((0..self.rounds.vcpus()).map(VcpuId::from_index).collect()),
                Some(repeat) => repeat.turn(self, brought, runner.recorder())?,
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
        if let Some(repeat) = &self.repeat {
            repeat.spin(self, seat.id, round);
        }
        Ok(self.rounds.wait(seat.id, round))
    }

    /// Begins a round, in which these vCPUs are let run first.
    fn open(&self, first: &[VcpuId], round: u64) {
        self.rounds.open();
        for id in first {
            self.rounds.let_run(*id, round);
        }
    }
}

fn prepare<B: BuildVcpu>(shared: &Shared<B>, seat: &VcpuSeat) -> Result<B::Vcpu, VcpuError> {
    if let Some(cpu) = seat.cpu {
        bind_to(cpu).map_err(|error| VcpuError::Setup {
            what: "cannot bind its thread to the host CPU asked for: sched_setaffinity",
            source: error.into(),
        })?;
    }
    shared.builder.build(seat.id)
}

fn bind_to(cpu: usize) -> nix::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)
}
