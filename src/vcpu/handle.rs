//! The life of a vCPU's thread: bind to a CPU, make the vCPU, wait at the turnstile, run,
//! report. It reports its end on every path, a panic included.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::events::Event;
use crate::panics;
use crate::vcpu::repeat::RoundEnd;
use crate::vcpu::runner::Runner;
use crate::vcpu::shared::{Shared, VcpuSeat};
use crate::vcpu::{BuildVcpu, VcpuEnd, VcpuError, VcpuRun, turn};

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
    runner.set_interrupts(shared.interrupts.clone());
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
            runner.set_pace(repeat.pace(seat.id, &shared.controls));
            turn::run_iterations(repeat, shared, seat, &mut runner)
        }
    };
    drop(published);
    (end, Some(runner.into_vcpu()))
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
