//! What the vCPUs of a VM have in common as CPUs, and making one: its number in KVM, its CPUID, the
//! MSRs that firmware sets on a PC.
//!
//! What its registers are at entry is `boot/entry.rs`; what it is connected to, `irqchip.rs`. Made
//! on the main thread, once the VM is there; each vCPU's thread then makes its own vCPU.

use std::io;

use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_msr_entry};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use thiserror::Error;

use crate::boot::Platform;
use crate::config::{ApicId, CpuFeature, CpuMode, IrqChip, Topology, TopologyError, VmConfig};
use crate::exit::VcpuId;
use crate::kvm::call::{host_error, uninterrupted};
use crate::kvm::cpuid::{CpuidError, CpuidTemplate};
use crate::kvm::features::{self, FeatureError, LocalApic};
use crate::kvm::tsc_offset::TscOffsets;
use crate::kvm::{cpuid_probe, tsc, x2apic};
use crate::vcpu::VcpuError;

/// IA32_MISC_ENABLE with fast strings, and IA32_MTRR_DEF_TYPE with MTRRs on and all memory
/// write-back (Intel SDM vol. 4, table 2-2; vol. 3, section 12.11.2.1). The FPU and MXCSR are, as
/// KVM makes them, what FNINIT and a reset make them.
const FIRMWARE_MSRS: [(u32, u64); 2] = [(0x1a0, 1), (0x2ff, 1 << 11 | 6)];

/// Why there cannot be such a CPU.
#[derive(Debug, Error)]
pub enum CpuError {
    /// The arrangement is for another number of vCPUs.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The arrangement leaves so many APIC ids unused that KVM has not enough.
    #[error(
        "--topology {topology} takes APIC ids up to {max}, and those of this host's KVM end \
         below {limit}"
    )]
    ApicIds {
        /// The arrangement.
        topology: Topology,
        /// The highest id in it.
        max: u32,
        /// KVM_CAP_MAX_VCPU_ID.
        limit: usize,
    },
    /// Ids of more than 8 bits are not to be had.
    #[error("KVM_ENABLE_CAP of KVM_CAP_X2APIC_API, for APIC ids up to {max}: {source}")]
    X2Apic {
        /// The highest id.
        max: u32,
        /// Why.
        source: io::Error,
    },
    /// A feature that the CPU cannot have.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// CPUID would be too long.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
}

/// See the module's text.
#[derive(Debug)]
pub struct VcpuSetup {
    topology: Topology,
    cpuid: CpuidTemplate,
    /// Those of [`FIRMWARE_MSRS`], for a machine with interrupt controllers: nobody expects them of
    /// the bare vCPUs of one without.
    msrs: Option<Msrs>,
    tscs: TscOffsets,
}

impl VcpuSetup {
    /// The vCPUs of `vm`, made from what KVM supports. Without interrupt controllers this asks KVM
    /// nothing.
    ///
    /// # Errors
    ///
    /// KVM cannot have them as `config` wants them.
    pub fn new(
        kvm: &Kvm,
        vm: &VmFd,
        supported: &[kvm_cpuid_entry2],
        config: &VmConfig,
        platform: Platform,
    ) -> Result<Self, CpuError> {
        let topology = config.topology()?;
        check_apic_ids(topology, || kvm.get_max_vcpu_id())?;
        let has_apics = platform.irqchip != IrqChip::None;
        let local_apic = match has_apics {
            false => LocalApic::None,
            true => LocalApic::Kernel { tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer) },
        };
        let ApicId(max) = topology.max_apic_id();
        if has_apics && topology.max_apic_id().xapic().is_none() {
            x2apic::enable(vm)
                .map_err(|error| CpuError::X2Apic { max, source: host_error(error) })?;
        }
        let entries = features::select(supported, &config.platform.cpu, local_apic)?;
        let tsc_khz = has_apics.then(|| tsc::khz(vm)).flatten();
        let cpuid = CpuidTemplate::new(entries, topology, tsc_khz)?;
        if config.platform.cpu.removed().next().is_some() {
            tell_of_unhidden(kvm, &cpuid.for_vcpu(VcpuId(0)), config);
        }
        let msrs = has_apics.then(firmware_msrs).flatten();
        Ok(Self { topology, cpuid, msrs, tscs: TscOffsets::default() })
    }

    /// Makes a vCPU.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn create(&self, vm: &VmFd, id: VcpuId) -> Result<VcpuFd, VcpuError> {
        let setup = |what: &'static str| {
            move |error: kvm_ioctls::Error| VcpuError::Setup { what, source: host_error(error) }
        };
        // KVM makes its number of a vCPU the id of its local APIC.
        let ApicId(apic_id) = ApicId::of(self.topology, id);
        let fd = uninterrupted(|| vm.create_vcpu(u64::from(apic_id)))
            .map_err(setup("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&self.cpuid.for_vcpu(id)).map_err(setup("KVM_SET_CPUID2"))?;
        if let Some(msrs) = &self.msrs {
            let set = fd.set_msrs(msrs).map_err(setup("KVM_SET_MSRS"))?;
            if let Some(msr) = msrs.as_slice().get(set) {
                let index = msr.index;
                log::debug!(target: "minivmm::kvm", "{id}: KVM refuses MSR {index:#x}");
            }
        }
        // One vCPU agrees with itself.
        let log = log::log_enabled!(target: "minivmm::tsc", log::Level::Debug);
        if self.topology.vcpus() > 1 || log {
            self.tscs.check(&fd, id);
        }
        Ok(fd)
    }
}

/// Makes sure that KVM has the APIC ids, which may be more than there are vCPUs.
fn check_apic_ids(topology: Topology, limit: impl FnOnce() -> usize) -> Result<(), CpuError> {
    let ApicId(max) = topology.max_apic_id();
    if max < topology.vcpus() {
        return Ok(());
    }
    let limit = limit();
    if usize::try_from(max).is_ok_and(|max| max < limit) {
        return Ok(());
    }
    Err(CpuError::ApicIds { topology, max, limit })
}

fn firmware_msrs() -> Option<Msrs> {
    let msrs = FIRMWARE_MSRS.map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    // There is room for more than two.
    Msrs::from_entries(&msrs).ok()
}

/// Says which of the features that were to be taken away a guest sees nevertheless.
fn tell_of_unhidden(kvm: &Kvm, table: &CpuId, config: &VmConfig) {
    let removed = || config.platform.cpu.removed();
    let bits: Vec<_> = removed().flat_map(CpuFeature::bits).collect();
    for (mode, ring) in [(CpuMode::Long, 0), (CpuMode::User, 3)] {
        let seen = match cpuid_probe::seen(kvm, table, &bits, mode) {
            Ok(seen) => seen,
            Err(error) => {
                log::warn!(
                    target: "minivmm::kvm",
                    "--cpu: whether ring {ring} sees what is taken away cannot be found out: \
                     {error}"
                );
                continue;
            }
        };
        let unhidden: Vec<_> = removed()
            .filter(|feature| feature.bits().any(|bit| seen.contains(&bit)))
            .map(CpuFeature::name)
            .collect();
        if !unhidden.is_empty() {
            log::warn!(
                target: "minivmm::kvm",
                "--cpu: this host cannot hide {} from a guest's ring {ring}, which sees the \
                 host's own CPUID",
                unhidden.join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apic_ids_with_gaps_are_checked_against_kvms_limit() {
        let check = |topology: &str, limit| check_apic_ids(topology.parse().unwrap(), || limit);
        // Without a gap the number of vCPUs has been checked, and KVM is not asked.
        assert!(check("1:1024:1", 0).is_ok());
        assert!(check("4:2:1", 0).is_ok());
        assert!(check("2:3:1", 7).is_ok());
        assert_eq!(
            check("2:3:1", 6).unwrap_err().to_string(),
            "--topology 2:3:1 takes APIC ids up to 6, and those of this host's KVM end below 6"
        );
    }

    #[test]
    fn memory_is_write_back_and_strings_are_fast() {
        let msrs = firmware_msrs().unwrap();
        let pairs: Vec<_> = msrs.as_slice().iter().map(|msr| (msr.index, msr.data)).collect();
        assert_eq!(pairs, [(0x1a0, 1), (0x2ff, 0x806)]);
    }
}
