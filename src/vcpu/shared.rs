//! What the threads of one VM share, and what each vCPU's thread is given.

use std::sync::Arc;

use crate::devices::queue::DeviceQueue;
use crate::devices::{DeviceSet, PostPolicy};
use crate::events::EventSender;
use crate::exit::VcpuId;
use crate::trace::tracer::VcpuTracing;
use crate::vcpu::intr::SplitInterrupts;
use crate::vcpu::repeat::{Repeat, RoundEnd};
use crate::vcpu::rounds::Rounds;
use crate::vcpu::state::{Gate, VcpuControl};

/// What the threads of one VM share.
#[derive(Debug)]
pub struct Shared<B> {
    /// The way to the devices.
    pub queue: DeviceQueue<DeviceSet>,
    /// Which accesses may be posted.
    pub posting: PostPolicy,
    /// What other threads may ask of each vCPU, by index.
    pub controls: Vec<Arc<VcpuControl>>,
    /// The interrupt controllers that are not in the kernel.
    pub interrupts: Option<SplitInterrupts>,
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
