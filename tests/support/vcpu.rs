//! A VM of one vCPU, for tests that start no binary and call the library themselves.

use std::path::Path;

use minivmm::config::{CpuMode, GuestSource, IrqChip, VmConfig};
use minivmm::exit::VcpuId;
use minivmm::kvm::kick;
use minivmm::kvm::vcpu::KvmVcpu;
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::stress::config::StressConfig;
use minivmm::vcpu::BuildVcpu;

use super::image;

/// One that runs `code` and can be put back.
pub fn resettable(code: &[u8], mode: CpuMode, irqchip: Option<IrqChip>) -> (KvmVm, KvmVcpu) {
    kick::install_handler();
    let guest = image(code);
    let mut config = VmConfig::new(GuestSource::File(guest.path().to_owned()));
    config.mode = Some(mode);
    config.stress = Some(StressConfig::default());
    config.platform.irqchip = irqchip;
    let vm = KvmVm::new(Path::new(KVM_DEVICE), &config).unwrap();
    let vcpu = vm.build(VcpuId(0)).unwrap();
    (vm, vcpu)
}
