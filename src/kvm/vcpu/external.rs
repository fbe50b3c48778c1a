//! External interrupts that a vCPU is given from outside the kernel: KVM_INTERRUPT (KVM API
//! document, section 4.16), when `kvm_run` says that the guest can take one, or at the exit that it
//! makes as soon as it can (section 5, `request_interrupt_window`).

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_dtable, kvm_interrupt, kvm_mp_state, kvm_segment};

use super::KvmVcpu;
use crate::exit::VmExit;
use crate::kvm::call::host_error;
use crate::kvm::irqchip;
use crate::vcpu::VcpuRun;

/// `_IOW(KVMIO, 0x86, struct kvm_interrupt)` of linux/kvm.h.
const KVM_INTERRUPT: libc::c_ulong = 0x4004_ae86;

/// CR0: protected mode, and a bit that is always on.
const CR0: u64 = 0x11;
/// RFLAGS: interrupts on, and a bit that is always on.
const RFLAGS: u64 = 0x202;
/// An address beyond the limit of the code segment that there is then.
const BEYOND: u64 = 0x1000;
/// How often the vCPU may fault without having taken an interrupt that waits.
const FAULTS_MAX: usize = 16;

impl KvmVcpu {
    /// Has KVM give the guest this interrupt as soon as it can take one.
    pub(super) fn queue_interrupt(&mut self, vector: u8) -> io::Result<()> {
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the descriptor is a vCPU's, the number is that of an ioctl which reads one
        // `kvm_interrupt`, and the pointer is to one.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_INTERRUPT, &raw const interrupt) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        self.interrupted = true;
        Ok(())
    }

    /// Has an interrupt vanish that was queued and that the guest has not taken. KVM has no call
    /// for that, so the vCPU takes it where this, and any instruction, is a triple fault. Leaves it
    /// in that state.
    pub(super) fn drop_interrupt(&mut self) -> io::Result<()> {
        self.run.request_window(false);
        if !std::mem::take(&mut self.interrupted) {
            return Ok(());
        }
        for _ in 0..FAULTS_MAX {
            self.set_trap()?;
            // An entry that ends at once brings what `kvm_run` says up to date.
            self.run.kick();
            if self.run()? == VmExit::Interrupted && self.run.is_ready_for_interrupt() {
                return Ok(());
            }
            match self.run()? {
                VmExit::Shutdown | VmExit::InternalError { .. } | VmExit::Interrupted => {}
                exit => return Err(io::Error::other(format!("{exit:?} instead of a fault"))),
            }
        }
        Err(io::Error::other("KVM keeps an interrupt that the guest has not taken"))
    }

    /// A state in which the 8259s' interrupts are on, no vector has a gate, and no code can be
    /// fetched.
    fn set_trap(&mut self) -> io::Result<()> {
        let fd = &self.fd;
        irqchip::connect_pics(fd).map_err(host_error)?;
        let mut sregs = fd.get_sregs().map_err(host_error)?;
        (sregs.cr0, sregs.cr4, sregs.efer) = (CR0, 0, 0);
        sregs.idt = kvm_dtable::default();
        sregs.cs = kvm_segment {
            selector: 8,
            type_: 0xb,
            present: 1,
            db: 1,
            s: 1,
            ..kvm_segment::default()
        };
        fd.set_sregs(&sregs).map_err(host_error)?;
        let mut regs = fd.get_regs().map_err(host_error)?;
        (regs.rip, regs.rflags) = (BEYOND, RFLAGS);
        fd.set_regs(&regs).map_err(host_error)?;
        fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).map_err(host_error)
    }
}
