//! Where a vCPU stops so that the half of a SYSCALL that KVM leaves can be carried out
//! (`src/assist/syscall.rs`): a hardware breakpoint of KVM_SET_GUEST_DEBUG, and the step past it.

use std::io;
use std::sync::atomic::Ordering;

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, kvm_guest_debug,
};
use kvm_ioctls::VcpuFd;

use super::{Assistance, host_error};
use crate::assist::{Completed, syscall};

/// DR7: breakpoint 0 is on, for the execution of an instruction; bit 10 is always 1.
const DR7_BREAKPOINT_0: u64 = 1 << 10 | 1;

impl Assistance {
    /// After an instruction was completed: KVM emulates ring 0 of this guest, and if the guest uses
    /// SYSCALL, all vCPUs are to stop at the handler of its page faults. They share that: a vCPU
    /// that is yet to be started comes out of KVM_RUN when it is, and not again before its first
    /// process.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    pub fn find_stop(&mut self, fd: &VcpuFd) -> io::Result<()> {
        if self.stop_at == 0
            && let Some(address) = syscall::stop_at(&mut self.of(fd))?
        {
            self.machine.stop_at.store(address, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Before KVM_RUN: the vCPU stops where it is to stop, or nowhere any more.
    ///
    /// # Errors
    ///
    /// The host refuses the breakpoint.
    pub fn place_stop(&mut self, fd: &VcpuFd) -> io::Result<()> {
        let address = self.machine.stop_at.load(Ordering::Relaxed);
        if address == self.stop_at {
            return Ok(());
        }
        self.stop_at = address;
        self.steps = false;
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
        if std::mem::take(&mut self.steps) {
            stop(fd, KVM_GUESTDBG_USE_HW_BP, self.stop_at)?;
            return Ok(None);
        }
        let completed = syscall::complete(&mut self.of(fd))?;
        if completed.is_none() {
            stop(fd, KVM_GUESTDBG_SINGLESTEP, 0)?;
            self.steps = true;
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
