//! A look at what KVM has to tell about a vCPU that sleeps in a HLT. KVM tells the end of an
//! interrupt (KVM_EXIT_IOAPIC_EOI) on its way into the guest, and a vCPU that sleeps does not go
//! that way. So this makes it runnable, and enters with a signal pending, for which KVM turns back
//! right before the guest (KVM API document, section 4.21, KVM_SET_SIGNAL_MASK): `immediate_exit`
//! would have it turn back before it looks at what there is to tell. Between two iterations the same
//! has KVM tell what is of the one that is over.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_vcpu_events,
};
use kvm_ioctls::VcpuFd;

use super::KvmVcpu;
use crate::exit::VmExit;
use crate::kvm::call::host_error;
use crate::kvm::kick::PendingSignal;
use crate::vcpu::VcpuRun;

/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)` of linux/kvm.h.
const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;
/// The kernel's signal set: a bit for each of 64 signals.
const SIGNAL_SET_LEN: u32 = 8;

/// The most exits that a look is taken to find: KVM keeps one of a kind.
const EXITS_MAX: usize = 16;

/// `struct kvm_signal_mask` with its set.
#[repr(C)]
struct SignalMask {
    len: u32,
    set: [u8; SIGNAL_SET_LEN as usize],
}

impl KvmVcpu {
    /// What [`VcpuRun::run_halted`] says.
    pub(super) fn look_while_halted(&mut self) -> io::Result<Option<VmExit>> {
        if state_of(&self.fd)? != KVM_MP_STATE_HALTED {
            return Ok(None);
        }
        // Without the signal the guest would run. It is asked again.
        let Ok(pending) = PendingSignal::send() else { return Ok(None) };
        let before = regs_of(&self.fd)?;
        let exit = self.run_with(&pending)?;
        // It sleeps on, unless KVM found an interrupt, an INIT or SIPI for it meanwhile.
        if state_of(&self.fd)? == KVM_MP_STATE_RUNNABLE
            && regs_of(&self.fd)? == before
            && !takes_event(&self.fd)?
        {
            set_state(&self.fd, KVM_MP_STATE_HALTED)?;
        }
        Ok(Some(exit))
    }

    /// Has KVM tell all that it has to tell about the vCPU, for nobody. Leaves it runnable.
    pub(super) fn forget_untold(&mut self) -> io::Result<()> {
        self.run.request_window(false);
        let pending = PendingSignal::send()?;
        for _ in 0..EXITS_MAX {
            if self.run_with(&pending)? == VmExit::Interrupted {
                return Ok(());
            }
        }
        Err(io::Error::other("KVM does not come to the end of what it has to tell"))
    }

    /// Makes the vCPU runnable and enters with the signal, which turns back before the guest.
    fn run_with(&mut self, _pending: &PendingSignal) -> io::Result<VmExit> {
        set_state(&self.fd, KVM_MP_STATE_RUNNABLE)?;
        // The thread's own next look sees whatever the kick was for.
        self.run.take_back_kick();
        // No signal is blocked in KVM_RUN: whichever is pending has it turn back.
        let mask = SignalMask { len: SIGNAL_SET_LEN, set: Default::default() };
        set_signal_mask(&self.fd, Some(&mask))?;
        let exit = self.run();
        set_signal_mask(&self.fd, None)?;
        exit
    }
}

/// From now on KVM_RUN has this set of signals blocked; or those of the thread.
fn set_signal_mask(fd: &VcpuFd, mask: Option<&SignalMask>) -> io::Result<()> {
    let mask = mask.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the descriptor is a vCPU's, the number is that of an ioctl which reads a length and a
    // set of that length, and the pointer is to both, or null, which the ioctl allows.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_SIGNAL_MASK, mask) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn state_of(fd: &VcpuFd) -> io::Result<u32> {
    fd.get_mp_state().map(|state| state.mp_state).map_err(host_error)
}

fn set_state(fd: &VcpuFd, mp_state: u32) -> io::Result<()> {
    fd.set_mp_state(kvm_mp_state { mp_state }).map_err(host_error)
}

fn regs_of(fd: &VcpuFd) -> io::Result<kvm_regs> {
    fd.get_regs().map_err(host_error)
}

/// Whether the guest takes an event at its next entry. Where the CPU keeps a pending NMI by itself
/// KVM would not see that it has to wake the vCPU for it.
fn takes_event(fd: &VcpuFd) -> io::Result<bool> {
    let kvm_vcpu_events { exception, interrupt, nmi, .. } =
        fd.get_vcpu_events().map_err(host_error)?;
    let injected = exception.injected | interrupt.injected | nmi.injected;
    Ok(injected != 0 || (nmi.pending != 0 && nmi.masked == 0))
}
