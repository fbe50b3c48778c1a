//! Where a vCPU stops so that the half of a SYSCALL that KVM leaves can be carried out
//! (`src/assist/syscall.rs`): a hardware breakpoint of KVM_SET_GUEST_DEBUG at the guest's handler
//! of page faults, and the step past it.
//!
//! A guest may put another handler in the place of one, and KVM tells nothing of that. So from the
//! moment on at which there is a breakpoint, the handler is looked up again before each KVM_RUN.

use std::io;
use std::sync::atomic::Ordering;

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, kvm_guest_debug,
};
use kvm_ioctls::VcpuFd;

use super::Assistance;
use super::cpu::KvmCpu;
use crate::assist::{Completed, syscall};
use crate::kvm::call::host_error;

/// DR7: breakpoint 0 is on, for the execution of an instruction; bit 10 is always 1.
const DR7_BREAKPOINT_0: u64 = 1 << 10 | 1;

/// Where a vCPU stops. Addresses are linear, and 0 is none.
#[derive(Debug, Default)]
pub(super) struct SyscallStop {
    /// The address that KVM has.
    placed: u64,
    /// It makes a step past there.
    steps: bool,
    /// The address that KVM should have, if that was found out since the last KVM_RUN.
    wanted: Option<u64>,
}

impl KvmCpu<'_> {
    /// After an instruction was completed: KVM emulates ring 0 of this guest, and if the guest uses
    /// SYSCALL, all vCPUs are to stop at their handlers of page faults from now on.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    pub fn find_stop(&mut self) -> io::Result<()> {
        let last = self.assistance.machine.stop_at.load(Ordering::Relaxed);
        if last != 0 || syscall::is_used(self)? {
            self.assistance.stop.wanted = Some(self.look(last)?);
        }
        Ok(())
    }

    /// The vCPU's own handler of page faults, or as long as it has none, the `last` that was found
    /// on any vCPU: one that is yet to be started comes out of KVM_RUN when it is, and perhaps not
    /// again before its first process.
    fn look(&mut self, last: u64) -> io::Result<u64> {
        let Some(own) = syscall::handler(self)? else { return Ok(last) };
        if own != last {
            // If that is no longer the last, another vCPU was faster, and its handler is as good.
            let shared = &self.assistance.machine.stop_at;
            let _ = shared.compare_exchange(last, own, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(own)
    }
}

impl Assistance {
    /// Before KVM_RUN: the vCPU stops where it is to stop, or nowhere any more. As long as no vCPU
    /// was to stop anywhere, this asks KVM nothing.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    pub fn place_stop(&mut self, fd: &VcpuFd) -> io::Result<()> {
        let last = self.machine.stop_at.load(Ordering::Relaxed);
        let wanted = self.stop.wanted.take();
        if last == 0 && self.stop.placed == 0 {
            return Ok(());
        }
        let address = match (last, wanted) {
            // The VM was put back to how it was before its first run.
            (0, _) => 0,
            (_, Some(address)) => address,
            (last, None) => self.of(fd).look(last)?,
        };
        if address == self.stop.placed {
            return Ok(());
        }
        self.stop.placed = address;
        self.stop.steps = false;
        match address {
            0 => fd.set_guest_debug(&kvm_guest_debug::default()).map_err(host_error),
            address => stop(fd, KVM_GUESTDBG_USE_HW_BP, address),
        }
    }

    /// After KVM_EXIT_DEBUG: completes the SYSCALL for which the vCPU has stopped. If it has for
    /// another reason, it makes the one step past the breakpoint, which RF does not cover, and then
    /// has it back.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    pub fn stopped(&mut self, fd: &VcpuFd) -> io::Result<Option<Completed>> {
        // It has just come through its gate: that need not be looked at again.
        self.stop.wanted = Some(self.stop.placed);
        if std::mem::take(&mut self.stop.steps) {
            stop(fd, KVM_GUESTDBG_USE_HW_BP, self.stop.placed)?;
            return Ok(None);
        }
        let completed = syscall::complete(&mut self.of(fd))?;
        if completed.is_none() {
            stop(fd, KVM_GUESTDBG_SINGLESTEP, 0)?;
            self.stop.steps = true;
        }
        Ok(completed)
    }
}

/// Has KVM stop the vCPU: at an address, or after each instruction.
fn stop(fd: &VcpuFd, how: u32, address: u64) -> io::Result<()> {
    let mut debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE | how, ..Default::default() };
    debug.arch.debugreg[0] = address;
    debug.arch.debugreg[7] = DR7_BREAKPOINT_0;
    fd.set_guest_debug(&debug).map_err(host_error)
}
