//! All that KVM knows of a vCPU, taken before its first run and put back between two iterations:
//! registers, FPU and vector state, control and debug registers, pending events and MSRs (KVM API
//! document, the KVM_GET_ and KVM_SET_ pairs of each). The time stamp counter is left alone: time
//! goes on.

use std::io;

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::kvm::call::host_error;

/// IA32_TIME_STAMP_COUNTER and IA32_TSC_DEADLINE.
const CLOCKS: [u32; 2] = [0x10, 0x6e0];

/// Paging is on (Intel SDM vol. 3, section 2.5).
const CR0_PG: u64 = 1 << 31;

/// The MSRs that there are, from KVM_GET_MSR_INDEX_LIST.
#[derive(Clone, Debug)]
pub struct MsrList(Vec<u32>);

impl MsrList {
    /// Asks KVM.
    ///
    /// # Errors
    ///
    /// What the ioctl says.
    pub fn of(kvm: &Kvm) -> io::Result<Self> {
        let list = kvm.get_msr_index_list().map_err(host_error)?;
        let msrs = list.as_slice().iter().copied().filter(|index| !CLOCKS.contains(index));
        Ok(Self(msrs.collect()))
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct FirstState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: Option<kvm_xcrs>,
    debug_regs: kvm_debugregs,
    events: kvm_vcpu_events,
    msrs: Msrs,
}

impl FirstState {
    /// The state that a vCPU has now.
    ///
    /// # Errors
    ///
    /// What the first ioctl to fail says.
    pub fn of(vcpu: &VcpuFd, list: &MsrList) -> io::Result<Self> {
        Ok(Self {
            regs: vcpu.get_regs().map_err(host_error)?,
            sregs: vcpu.get_sregs().map_err(host_error)?,
            xsave: Box::new(vcpu.get_xsave().map_err(host_error)?),
            // A CPU without XSAVE has none.
            xcrs: vcpu.get_xcrs().ok(),
            debug_regs: vcpu.get_debug_regs().map_err(host_error)?,
            events: vcpu.get_vcpu_events().map_err(host_error)?,
            msrs: settable_msrs(vcpu, list)?,
        })
    }

    /// Whether the vCPU, as it is now, translates addresses otherwise than this.
    ///
    /// # Errors
    ///
    /// What the ioctl says.
    pub fn has_other_paging(&self, vcpu: &VcpuFd) -> io::Result<bool> {
        let now = vcpu.get_sregs().map_err(host_error)?;
        let paging = |sregs: &kvm_sregs| {
            (sregs.cr0 & CR0_PG != 0).then_some((sregs.cr3, sregs.cr4, sregs.efer))
        };
        Ok(paging(&now) != paging(&self.sregs))
    }

    /// Puts it back. The vCPU must have finished its last exit ([`super::vcpu`]).
    ///
    /// # Errors
    ///
    /// What the first ioctl to fail says.
    pub fn put_back(&self, vcpu: &VcpuFd) -> io::Result<()> {
        // XCR0 says what XSAVE's area holds, CR4 and EFER what registers may.
        vcpu.set_sregs(&self.sregs).map_err(host_error)?;
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs).map_err(host_error)?;
        }
        // SAFETY: the area came from this vCPU, and its size is that of KVM_GET_XSAVE for all
        // features that were not asked for with arch_prctl(2), which we do not do.
        unsafe { vcpu.set_xsave(&self.xsave) }.map_err(host_error)?;
        vcpu.set_debug_regs(&self.debug_regs).map_err(host_error)?;
        let set = vcpu.set_msrs(&self.msrs).map_err(host_error)?;
        if let Some(msr) = self.msrs.as_slice().get(set) {
            return Err(io::Error::other(format!("KVM_SET_MSRS refuses MSR {:#x}", msr.index)));
        }
        vcpu.set_regs(&self.regs).map_err(host_error)?;
        // Last: the others may queue or clear events.
        vcpu.set_vcpu_events(&self.events).map_err(host_error)
    }
}

/// Those of the MSRs that can be read, and written with what was read: KVM lists some that are
/// fixed or that this vCPU's CPUID lacks, and stops at the first that it refuses.
fn settable_msrs(vcpu: &VcpuFd, list: &MsrList) -> io::Result<Msrs> {
    let mut settable = Vec::new();
    for index in &list.0 {
        let mut one = Msrs::from_entries(&[kvm_msr_entry { index: *index, ..Default::default() }])
            .map_err(io::Error::other)?;
        if matches!(vcpu.get_msrs(&mut one), Ok(1)) && matches!(vcpu.set_msrs(&one), Ok(1)) {
            settable.extend_from_slice(one.as_slice());
        }
    }
    Msrs::from_entries(&settable).map_err(io::Error::other)
}
