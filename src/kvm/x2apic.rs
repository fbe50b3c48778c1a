//! Local APICs with ids of 32 bits, for VMs with more vCPUs than 8 bits can name.

use kvm_bindings::{
    KVM_CAP_X2APIC_API, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS,
    kvm_enable_cap,
};
use kvm_ioctls::VmFd;

/// Has KVM take and give ids of 32 bits, and take 255 for the id of one vCPU and not for everybody
/// (KVM API document, KVM_CAP_X2APIC_API). To be done before there are vCPUs.
///
/// # Errors
///
/// KVM has not had it before Linux 4.9.
pub fn enable(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    let mut cap = kvm_enable_cap { cap: KVM_CAP_X2APIC_API, ..Default::default() };
    cap.args[0] = flags.into();
    vm.enable_cap(&cap)
}
