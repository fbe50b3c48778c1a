//! The run loop of one vCPU: enter the guest, look at the exit, act on it (`runner/act.rs`), record
//! it, again. Runs on the vCPU's own thread; generic over [`VcpuRun`], so that tests run it without
//! KVM.

mod act;

use std::io;

use log::{Level, log_enabled, trace};

use crate::devices::queue::{Closed, DeviceQueue};
use crate::devices::watch::Watch;
use crate::devices::{DeviceSet, GuestEnd, PostPolicy};
use crate::exit::{VcpuId, VmExit};
use crate::stress::iteration::Iteration;
use crate::stress::ports::{Reported, StressPorts};
use crate::trace::record::{Event, ExitEvent, Handling, Record, Source, saturate};
use crate::trace::recorder::Recorder;
use crate::trace::tracer::VcpuTracing;
use crate::vcpu::intr::SplitInterrupts;
use crate::vcpu::pace::{Next, Pace};
use crate::vcpu::rounds::BOOT_VCPU;
use crate::vcpu::state::VcpuControl;
use crate::vcpu::{VcpuEnd, VcpuError, VcpuRun};

/// The log target of the line that each exit gives at trace level.
const EXIT_TARGET: &str = "minivmm::exit";

/// What the run loop of one vCPU works with.
#[derive(Debug)]
pub struct Runner<'a, V> {
    id: VcpuId,
    vcpu: V,
    control: &'a VcpuControl,
    queue: &'a DeviceQueue<DeviceSet>,
    posting: PostPolicy,
    tracing: VcpuTracing,
    recorder: Option<Box<Recorder>>,
    ports: StressPorts,
    pace: Option<Pace<'a>>,
    /// The interrupt controllers that are not in the kernel.
    interrupts: Option<SplitInterrupts>,
    /// The number of the next exit.
    sequence: u64,
}

/// Why the loop ends, before the registers are added.
enum Stop {
    Halted,
    Guest(GuestEnd),
    Fault,
    Assertion(String),
    Closed,
}

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl<'a, V: VcpuRun> Runner<'a, V> {
    /// A run loop for `vcpu`, which is vCPU `id`. To be called on the vCPU's thread.
    pub fn new(
        id: VcpuId,
        vcpu: V,
        control: &'a VcpuControl,
        queue: &'a DeviceQueue<DeviceSet>,
        posting: PostPolicy,
        tracing: VcpuTracing,
    ) -> Self {
        let recorder = tracing.recorder();
        let ports = StressPorts::new(id);
        Self {
            id,
            vcpu,
            control,
            queue,
            posting,
            tracing,
            recorder,
            ports,
            pace: None,
            interrupts: None,
            sequence: 0,
        }
    }

    /// Has `pace` asked before each entry and after each exit.
    pub fn set_pace(&mut self, pace: Option<Pace<'a>>) {
        self.pace = pace;
    }

    /// Has it serve these interrupt controllers, and their INTR if its vCPU is the boot vCPU. To be
    /// called on the vCPU's thread.
    pub fn set_interrupts(&mut self, interrupts: Option<SplitInterrupts>) {
        if let Some(interrupts) = &interrupts
            && self.id == BOOT_VCPU
        {
            interrupts.intr.adopt();
        }
        self.interrupts = interrupts;
    }

    /// An iteration begins.
    pub fn begin(&mut self, iteration: Iteration) {
        self.ports.begin(iteration);
        if let Some(recorder) = &mut self.recorder {
            recorder.begin_iteration();
        }
        if let Some(pace) = &mut self.pace {
            pace.begin(iteration);
        }
    }

    /// How many exits there have been.
    pub fn exits(&self) -> u64 {
        self.sequence
    }

    /// The outcomes that the guest has reported in this iteration.
    pub fn take_reported(&mut self) -> Reported {
        self.ports.take_reported()
    }

    /// How often the vCPU was disturbed in this iteration.
    pub fn perturbations(&self) -> u64 {
        self.pace.as_ref().map_or(0, Pace::perturbations)
    }

    /// What it records with.
    pub fn recorder(&mut self) -> &mut Option<Box<Recorder>> {
        &mut self.recorder
    }

    /// The vCPU.
    pub fn vcpu(&mut self) -> &mut V {
        &mut self.vcpu
    }

    /// The vCPU, after its last run.
    pub fn into_vcpu(self) -> V {
        self.vcpu
    }

    /// Runs the vCPU until it ends or is stopped.
    pub fn run(&mut self) -> VcpuEnd {
        self.note(Event::Start);
        let end = self.run_to_end();
        self.note(if matches!(end, VcpuEnd::Halted) { Event::Halt } else { Event::Stop });
        if let Some(recorder) = &mut self.recorder
            && recorder.keeps_stats()
        {
            recorder.note_kernel_stats(self.vcpu.kernel_stats());
        }
        end
    }

    fn run_to_end(&mut self) -> VcpuEnd {
        while !self.control.stop_requested() {
            match self.before_entry() {
                Ok(true) => {}
                Ok(false) => break,
                Err(Closed) => return self.end(Stop::Closed, VmExit::Interrupted),
            }
            let entered = self.recorder.now();
            let exit = match self.enter() {
                Ok(exit) => exit,
                Err(error) => {
                    let registers = self.vcpu.registers();
                    return VcpuEnd::Failed { error: VcpuError::Run(error), registers };
                }
            };
            if let Err(stop) = self.handle(&exit, entered) {
                return self.end(stop, exit);
            }
            if let Some(pace) = &self.pace {
                pace.after_exit();
            }
        }
        VcpuEnd::Stopped { registers: self.vcpu.registers() }
    }

    /// Whether to enter the guest.
    fn before_entry(&mut self) -> Result<bool, Closed> {
        let Some(pace) = &mut self.pace else { return Ok(true) };
        match pace.before_entry(self.id) {
            Next::Enter => Ok(true),
            Next::Help => self.queue.settle(&mut self.recorder, |_| Ok(true)),
            Next::Stop => Ok(false),
        }
    }

    /// Enters the guest with what the interrupt controllers have for it; or tells them of an end that
    /// they have asked for.
    fn enter(&mut self) -> io::Result<VmExit> {
        self.take_interrupt()?;
        if let Some(interrupts) = &self.interrupts
            && interrupts.ends[self.id.index()].take()
            && let Some(exit) = self.vcpu.run_halted()?
        {
            return Ok(exit);
        }
        self.vcpu.run()
    }

    /// Has the guest take the interrupt that INTR asks for, now if it can, or else as soon as it
    /// can. Right before the entry: the invariant is in `intr.rs`.
    fn take_interrupt(&mut self) -> io::Result<()> {
        let Some(SplitInterrupts { irqchip, intr, .. }) =
            self.interrupts.as_ref().filter(|_| self.id == BOOT_VCPU)
        else {
            return Ok(());
        };
        if intr.is_high()
            && self.vcpu.can_be_interrupted()
            && let Some(vector) = irqchip.acknowledge()
        {
            self.vcpu.interrupt(vector)?;
        }
        self.vcpu.request_window(intr.is_high());
        Ok(())
    }

    fn note(&mut self, event: Event) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(event);
        }
    }

    fn end(&mut self, stop: Stop, exit: VmExit) -> VcpuEnd {
        match stop {
            Stop::Halted => VcpuEnd::Halted,
            Stop::Guest(end) => VcpuEnd::Guest(end),
            Stop::Fault => VcpuEnd::Fault { exit, registers: self.vcpu.registers() },
            Stop::Assertion(text) => VcpuEnd::Assertion { text, registers: self.vcpu.registers() },
            Stop::Closed => VcpuEnd::Stopped { registers: self.vcpu.registers() },
        }
    }

    /// Acts on one exit and records it: as pending while it is handled, so that a thread that
    /// gets stuck has its last exit on record, then with what came of it.
    fn handle(&mut self, exit: &VmExit, entered: u64) -> Result<(), Stop> {
        let time = self.tracing.stamp();
        let pending = self.pending(exit, time.saturating_sub(entered));
        let record = |event| Record { time, source: Source::Vcpu(self.id), event };
        if self.tracing.flight() {
            self.control.exits.begin(&record(Event::Exit(pending)));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(self.sequence, time);
        }
        let result = self.act(exit);
        let handling = self.timed(handling_of(&result, exit), time);
        let event = ExitEvent { data: self.first_data(exit), handling, ..pending };
        let record = Record { time, source: Source::Vcpu(self.id), event: Event::Exit(event) };
        if self.tracing.flight() {
            self.control.exits.finish(&record);
        }
        if log_enabled!(target: EXIT_TARGET, Level::Trace) {
            trace!(target: EXIT_TARGET, "vcpu={} seq={} {event}", self.id.0, self.sequence);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.exit(&record);
        }
        self.sequence += 1;
        result.map(drop)
    }

    /// The event of an exit that is about to be handled.
    fn pending(&mut self, exit: &VmExit, guest: u64) -> ExitEvent {
        // Without a recorder nobody has looked at the clock before the entry.
        let guest = if self.recorder.is_some() { guest } else { 0 };
        let rip = if self.tracing.wants_rip() { self.vcpu.rip() } else { None };
        // What a read returns is not known yet.
        let data = if exit.is_read() { 0 } else { self.first_data(exit) };
        let handling = Handling::Pending;
        ExitEvent { sequence: self.sequence, exit: *exit, data, rip, guest, handling }
    }

    /// `handling` with the times of its parts, if anybody wants to know.
    fn timed(&self, handling: Handling, exited: u64) -> Handling {
        let Some(recorder) = &self.recorder else { return handling };
        match handling {
            Handling::Pending | Handling::RunLoop => handling,
            Handling::Posted { .. } => {
                let enqueue = recorder.now().saturating_sub(exited);
                Handling::Posted { enqueue: saturate(enqueue) }
            }
            Handling::Served { .. } => {
                let (served, service) = recorder.service();
                let wait = served.saturating_sub(exited).saturating_sub(service);
                Handling::Served { wait: saturate(wait), service: saturate(service) }
            }
        }
    }

    /// The first bytes of an exit's data, for the record.
    fn first_data(&mut self, exit: &VmExit) -> u64 {
        match exit {
            VmExit::Pio(_) | VmExit::Mmio(_) => from_bytes(self.vcpu.data()),
            _ => 0,
        }
    }
}

/// How an exit was handled, one that ends the loop included.
fn handling_of(result: &Result<Handling, Stop>, exit: &VmExit) -> Handling {
    match (result, exit) {
        (Ok(handling), _) => *handling,
        // The access itself was served, and that was the end.
        (Err(Stop::Guest(_)), VmExit::Pio(_) | VmExit::Mmio(_)) => {
            Handling::Served { wait: 0, service: 0 }
        }
        // The VM stopped first.
        (Err(Stop::Closed), _) => Handling::Pending,
        (Err(_), _) => Handling::RunLoop,
    }
}

/// The first 8 of `bytes`, little-endian.
fn from_bytes(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    let len = bytes.len().min(8);
    value[..len].copy_from_slice(&bytes[..len]);
    u64::from_le_bytes(value)
}

#[cfg(all(test, not(loom)))]
mod tests;
