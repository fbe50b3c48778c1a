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
use crate::vcpu::runner::Runner;
use crate::vcpu::state::{Gate, StartCommand, StartGate, VcpuControl};
use crate::vcpu::{BuildVcpu, VcpuEnd, VcpuError, VcpuRun};

/// What the threads of one VM share.
#[derive(Debug)]
pub struct Shared<B> {
    /// The way to the devices.
    pub queue: DeviceQueue<DeviceSet>,
    /// Which accesses may be posted.
    pub posting: PostPolicy,
    /// Where the vCPUs wait for the start.
    pub start: StartGate,
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
    let posting = shared.posting.clone();
    let tracing = seat.tracing.clone();
    let mut runner = Runner::new(seat.id, vcpu, &seat.control, &shared.queue, posting, tracing);
    // Declared after the vCPU and so dropped before it, on a panic too.
    let published = seat.control.publish(runner.vcpu().kicker());
    let ready = Instant::now();
    let arrival = shared.start.arrive();
    if arrival.opened {
        seat.events.send(Event::Started(ready));
    }
    let end = match arrival.command {
        StartCommand::Run => runner.run(),
        StartCommand::Abort => VcpuEnd::Stopped { registers: None },
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
