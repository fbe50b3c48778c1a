//! The run loop of one vCPU: enter the guest, look at the exit, act on it, again. Runs on the
//! vCPU's own thread; generic over [`VcpuRun`], so that tests run it without KVM.

use log::{Level, log_enabled, trace};

use crate::devices::queue::{Closed, DeviceQueue};
use crate::devices::{DeviceSet, GuestEnd, PostPolicy, Reply};
use crate::exit::{Access, AddressSpace, Direction, VcpuId, VmExit};
use crate::trace::ring::{ExitRecord, Handler};
use crate::vcpu::state::VcpuControl;
use crate::vcpu::{VcpuEnd, VcpuError, VcpuRun};

/// The log target of the line that each exit gives at trace level.
const EXIT_TARGET: &str = "minivmm::exit";

/// KVM_SYSTEM_EVENT_SHUTDOWN and KVM_SYSTEM_EVENT_RESET.
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
const SYSTEM_EVENT_RESET: u32 = 2;

/// What the run loop of one vCPU works with.
#[derive(Debug)]
pub struct Runner<'a, V> {
    id: VcpuId,
    vcpu: V,
    control: &'a VcpuControl,
    queue: &'a DeviceQueue<DeviceSet>,
    posting: PostPolicy,
}

/// Why the loop ends, before the registers are added.
enum Stop {
    Halted,
    Guest(GuestEnd),
    Fault,
    Closed,
}

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl<'a, V: VcpuRun> Runner<'a, V> {
    /// A run loop for `vcpu`, which is vCPU `id`.
    pub fn new(
        id: VcpuId,
        vcpu: V,
        control: &'a VcpuControl,
        queue: &'a DeviceQueue<DeviceSet>,
        posting: PostPolicy,
    ) -> Self {
        Self { id, vcpu, control, queue, posting }
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
        while !self.control.stop_requested() {
            let exit = match self.vcpu.run() {
                Ok(exit) => exit,
                Err(error) => {
                    let registers = self.vcpu.registers();
                    return VcpuEnd::Failed { error: VcpuError::Run(error), registers };
                }
            };
            if let Err(stop) = self.handle(&exit) {
                return self.end(stop, exit);
            }
        }
        VcpuEnd::Stopped { registers: self.vcpu.registers() }
    }

    fn end(&mut self, stop: Stop, exit: VmExit) -> VcpuEnd {
        match stop {
            Stop::Halted => VcpuEnd::Halted,
            Stop::Guest(end) => VcpuEnd::Guest(end),
            Stop::Fault => VcpuEnd::Fault { exit, registers: self.vcpu.registers() },
            Stop::Closed => VcpuEnd::Stopped { registers: self.vcpu.registers() },
        }
    }

    /// Acts on one exit and records it: as pending while it is handled, so that a thread that
    /// gets stuck has its last exit on record, then with what came of it.
    fn handle(&mut self, exit: &VmExit) -> Result<(), Stop> {
        // What a read returns is not known yet.
        let data = if exit.is_read() { 0 } else { self.first_data(exit) };
        self.control.exits.begin(exit, data);
        let result = self.act(exit);
        let handler = *result.as_ref().unwrap_or(&Handler::RunLoop);
        let data = self.first_data(exit);
        self.control.exits.finish(exit, data, handler);
        if log_enabled!(target: EXIT_TARGET, Level::Trace) {
            let sequence = self.control.exits.count() - 1;
            let record = ExitRecord { sequence, exit: *exit, data, handler };
            trace!(target: EXIT_TARGET, "vcpu={} seq={sequence} {record}", self.id.0);
        }
        result.map(drop)
    }

    fn act(&mut self, exit: &VmExit) -> Result<Handler, Stop> {
        match *exit {
            VmExit::Pio(pio) => {
                let access = Access {
                    space: AddressSpace::Pio,
                    addr: u64::from(pio.port.0),
                    direction: pio.direction,
                    size: pio.size,
                    data: 0,
                };
                self.access_each(access)
            }
            VmExit::Mmio(mmio) => {
                let access = Access {
                    space: AddressSpace::Mmio,
                    addr: mmio.gpa.0,
                    direction: mmio.direction,
                    size: mmio.size,
                    data: 0,
                };
                self.access_each(access)
            }
            VmExit::Interrupted | VmExit::SetTpr => Ok(Handler::RunLoop),
            VmExit::Hlt => Err(Stop::Halted),
            VmExit::SystemEvent { kind: SYSTEM_EVENT_SHUTDOWN } => {
                Err(Stop::Guest(GuestEnd::PowerOff))
            }
            VmExit::SystemEvent { kind: SYSTEM_EVENT_RESET } => Err(Stop::Guest(GuestEnd::Reset)),
            VmExit::Shutdown
            | VmExit::FailEntry { .. }
            | VmExit::InternalError { .. }
            | VmExit::SystemEvent { .. }
            | VmExit::Unhandled { .. } => Err(Stop::Fault),
        }
    }

    /// Hands the elements of an exit to the devices one by one: a `rep outs` of n elements is
    /// n accesses, as it is on a bus. Reports how the last was handled.
    fn access_each(&mut self, access: Access) -> Result<Handler, Stop> {
        let mut handler = Handler::RunLoop;
        for element in self.vcpu.data().chunks_exact_mut(usize::from(access.size).max(1)) {
            handler = match access.direction {
                Direction::Write => {
                    let access = Access { data: from_bytes(element), ..access };
                    if self.posting.may_post(&access) {
                        self.queue.post(self.id, access)?;
                        Handler::Posted
                    } else {
                        call(self.queue, self.id, &access)?;
                        Handler::Served
                    }
                }
                Direction::Read => {
                    let value = call(self.queue, self.id, &access)?.to_le_bytes();
                    element.copy_from_slice(&value[..element.len()]);
                    Handler::Served
                }
            };
        }
        Ok(handler)
    }

    /// The first bytes of an exit's data, for the record.
    fn first_data(&mut self, exit: &VmExit) -> u64 {
        match exit {
            VmExit::Pio(_) | VmExit::Mmio(_) => from_bytes(self.vcpu.data()),
            _ => 0,
        }
    }
}

fn call(queue: &DeviceQueue<DeviceSet>, id: VcpuId, access: &Access) -> Result<u64, Stop> {
    match queue.call(id, access)? {
        Reply::Value(value) => Ok(value),
        Reply::End(end) => Err(Stop::Guest(end)),
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
