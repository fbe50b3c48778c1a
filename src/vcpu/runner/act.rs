//! What the run loop does about each exit. It knows every kind of exit; what an access does is the
//! devices' business, and what an instruction does that of `assist/`.

use std::io;
use std::thread;

use log::warn;

use super::{Runner, Stop, from_bytes};
use crate::assist::Completed;
use crate::devices::post_code::{POST_PORT, PostCode};
use crate::devices::queue::DeviceQueue;
use crate::devices::{DeviceSet, GuestEnd, Reply};
use crate::exit::{Access, AddressSpace, Direction, InsnBytes, PioAddr, PioExit, VcpuId, VmExit};
use crate::stress::ports::{Effect, StressPorts};
use crate::trace::record::{Event, Handling, MarkerName};
use crate::trace::recorder::Recorder;
use crate::vcpu::VcpuRun;

/// The ports by which a guest steers its own trace (docs/guest-abi.md). They are the run loop's
/// and no device's, since what they do is about this vCPU's exits, in their order.
const TRACE_CONTROL: PioAddr = PioAddr(0x5e0);
const TRACE_MARKER: PioAddr = PioAddr(0x5e1);

/// KVM_SYSTEM_EVENT_SHUTDOWN and KVM_SYSTEM_EVENT_RESET.
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
const SYSTEM_EVENT_RESET: u32 = 2;

/// KVM_INTERNAL_ERROR_EMULATION.
const EMULATION_FAILED: u32 = 1;

impl<V: VcpuRun> Runner<'_, V> {
    /// Acts on one exit; returns how it was handled.
    pub(super) fn act(&mut self, exit: &VmExit) -> Result<Handling, Stop> {
        match *exit {
            VmExit::Pio(pio @ PioExit { port: TRACE_CONTROL | TRACE_MARKER, size: 1, .. }) => {
                self.access_trace_port(pio);
                Ok(Handling::RunLoop)
            }
            VmExit::Pio(pio) if StressPorts::answers(pio) => self.access_stress_port(pio),
            VmExit::Pio(pio) => {
                let access = Access {
                    space: AddressSpace::Pio,
                    addr: u64::from(pio.port.0),
                    direction: pio.direction,
                    size: pio.size,
                    data: 0,
                };
                let handling = self.access_each(access)?;
                if access.addr == POST_PORT && access.direction == Direction::Write {
                    self.mark_post_codes(access.size);
                }
                Ok(handling)
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
            VmExit::IoapicEoi { vector } => {
                if let Some(interrupts) = &self.interrupts {
                    interrupts.irqchip.end(vector);
                }
                Ok(Handling::RunLoop)
            }
            VmExit::Interrupted | VmExit::IrqWindowOpen | VmExit::SetTpr => Ok(Handling::RunLoop),
            VmExit::Debug => {
                let completed = self.vcpu.complete_syscall();
                self.completed(completed, Ok(Handling::RunLoop))
            }
            VmExit::InternalError { suberror: EMULATION_FAILED, insn: Some(insn) } => {
                self.complete_insn(&insn)
            }
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

    /// Completes an instruction that the host cannot emulate, if it is one that is known.
    fn complete_insn(&mut self, insn: &InsnBytes) -> Result<Handling, Stop> {
        let completed = self.vcpu.complete(insn);
        self.completed(completed, Err(Stop::Fault))
    }

    /// Notes what was completed; if nothing was, the exit has come to `otherwise`.
    fn completed(
        &mut self,
        completed: io::Result<Option<Completed>>,
        otherwise: Result<Handling, Stop>,
    ) -> Result<Handling, Stop> {
        match completed {
            Ok(Some(completed)) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.completed(completed.name());
                }
                Ok(Handling::RunLoop)
            }
            Ok(None) => otherwise,
            Err(error) => {
                let id = self.id;
                warn!(target: "minivmm::assist", "{id}: cannot complete an instruction: {error}");
                Err(Stop::Fault)
            }
        }
    }

    /// Hands the elements of an exit to the devices one by one: a `rep outs` of n elements is
    /// n accesses, as it is on a bus. Reports how the last was handled.
    fn access_each(&mut self, access: Access) -> Result<Handling, Stop> {
        let Self { id, vcpu, queue, posting, recorder, .. } = self;
        let mut handling = Handling::RunLoop;
        for element in vcpu.data().chunks_exact_mut(usize::from(access.size).max(1)) {
            if access.direction == Direction::Write {
                let access = Access { data: from_bytes(element), ..access };
                if posting.may_post(&access) {
                    queue.post(*id, access, recorder)?;
                    handling = Handling::Posted { enqueue: 0 };
                } else {
                    call(queue, *id, &access, recorder)?;
                    handling = Handling::Served { wait: 0, service: 0 };
                }
            } else {
                let value = call(queue, *id, &access, recorder)?.to_le_bytes();
                element.copy_from_slice(&value[..element.len()]);
                handling = Handling::Served { wait: 0, service: 0 };
            }
        }
        Ok(handling)
    }

    /// The trace's own ports. Without a trace the control port reads 0, and what is written is ignored.
    fn access_trace_port(&mut self, pio: PioExit) {
        let Self { vcpu, recorder, .. } = self;
        for byte in vcpu.data() {
            match (pio.direction, &mut *recorder) {
                (Direction::Read, _) if pio.port == TRACE_MARKER => *byte = 0xff,
                (Direction::Read, recorder) => {
                    *byte = recorder.as_ref().map_or(0, |recorder| recorder.status());
                }
                (Direction::Write, Some(recorder)) if pio.port == TRACE_CONTROL => {
                    recorder.control(*byte);
                }
                (Direction::Write, Some(recorder)) => recorder.marker(*byte),
                (Direction::Write, None) => {}
            }
        }
    }

    /// Each POST code is also a marker in the trace, in its place among this vCPU's exits.
    fn mark_post_codes(&mut self, size: u8) {
        let Self { vcpu, recorder: Some(recorder), .. } = self else { return };
        for element in vcpu.data().chunks_exact(usize::from(size).max(1)) {
            let name = PostCode(element[0]).to_string();
            recorder.note(Event::Marker(MarkerName::new(name.as_bytes())));
        }
    }

    fn access_stress_port(&mut self, pio: PioExit) -> Result<Handling, Stop> {
        match self.ports.access(pio, self.vcpu.data()) {
            Effect::None => Ok(Handling::RunLoop),
            Effect::Yield => {
                // With more vCPUs than host CPUs the one it waits for may be ready to run, and
                // would otherwise get the CPU only at the end of this one's time slice.
                thread::yield_now();
                Ok(Handling::RunLoop)
            }
            Effect::Done => Err(Stop::Halted),
            Effect::Assertion(text) => Err(Stop::Assertion(text)),
        }
    }
}

fn call(
    queue: &DeviceQueue<DeviceSet>,
    id: VcpuId,
    access: &Access,
    recorder: &mut Option<Box<Recorder>>,
) -> Result<u64, Stop> {
    match queue.call(id, access, recorder)? {
        Reply::Value(value) => Ok(value),
        Reply::End(end) => Err(Stop::Guest(end)),
    }
}
