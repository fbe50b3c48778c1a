//! What each vCPU's CPUID says: KVM's own table (KVM_GET_SUPPORTED_CPUID), less what `features.rs`
//! takes out, with the topology of this VM and the frequencies of its clocks in it.
//!
//! KVM reports the host's topology, or none; without this every vCPU would have the same APIC
//! id. What all vCPUs have in common is done once, in [`CpuidTemplate::new`]; a vCPU's own table is
//! a copy with its id put in, cheap enough for a thousand of them. Data in, data out: the ioctls
//! are in `vm.rs` and `vcpu_setup.rs`. The topology's leaves are in `cpuid/levels.rs`, the clocks'
//! in `cpuid/clocks.rs`.
//!
//! Fields that are too narrow for an APIC id or a number of vCPUs hold what the manuals say: an id
//! its lowest bits, a count its maximum. Leaves 0xb and 0x1f always have all of it. Where KVM
//! cannot intercept CPUID in ring 3 (PVM), ring 3 sees the host's own: a guest there goes by its
//! index in RDI.

mod clocks;
mod levels;

use std::num::NonZeroU32;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use thiserror::Error;

use super::features;
use crate::config::{ApicId, CpuChanges, CpuidBit, CpuidRegister, Topology};
use crate::exit::VcpuId;

/// Leaf numbers (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E; for the hypervisor's, KVM's
/// document of its CPUID bits, and for the last the interface that VMware proposed to all).
mod leaf {
    pub const VENDOR: u32 = 0;
    pub const FEATURES: u32 = 1;
    pub const CACHES: u32 = 4;
    pub const TOPOLOGY: u32 = 0xb;
    pub const TSC: u32 = 0x15;
    pub const FREQUENCIES: u32 = 0x16;
    pub const TOPOLOGY_V2: u32 = 0x1f;
    pub const HYPERVISOR: u32 = 0x4000_0000;
    pub const HYPERVISOR_CLOCKS: u32 = 0x4000_0010;
    pub const EXT_FEATURES: u32 = 0x8000_0001;
    pub const SIZES: u32 = 0x8000_0008;
    pub const AMD_CACHES: u32 = 0x8000_001d;
    pub const AMD_TOPOLOGY: u32 = 0x8000_001e;
    pub const AMD_TOPOLOGY_V2: u32 = 0x8000_0026;
}

/// Leaf 0x80000001, EDX: pages of 1 GiB.
const PAGE_1GB: CpuidBit =
    CpuidBit { leaf: leaf::EXT_FEATURES, subleaf: 0, register: CpuidRegister::Edx, bit: 26 };

/// The table has grown beyond what KVM_SET_CPUID2 takes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{count} CPUID entries are more than KVM takes")]
pub struct CpuidError {
    /// The number of entries.
    pub count: usize,
}

/// The CPUID table of every vCPU, but for what differs from one to the other.
#[derive(Debug)]
pub struct CpuidTemplate {
    topology: Topology,
    common: CpuId,
}

impl CpuidTemplate {
    /// Puts the topology of a VM into a table, and if it is given the frequency of its TSC, for a
    /// VM with local APICs, to which the same leaves give theirs.
    ///
    /// # Errors
    ///
    /// If the table has no room for the topology leaves.
    pub fn new(
        mut entries: Vec<kvm_cpuid_entry2>,
        topology: Topology,
        tsc_khz: Option<NonZeroU32>,
    ) -> Result<Self, CpuidError> {
        levels::put(&mut entries, topology);
        if let Some(tsc_khz) = tsc_khz {
            clocks::put(&mut entries, tsc_khz);
        }
        let common =
            CpuId::from_entries(&entries).map_err(|_| CpuidError { count: entries.len() })?;
        Ok(Self { topology, common })
    }

    /// The table of one vCPU.
    pub fn for_vcpu(&self, vcpu: VcpuId) -> CpuId {
        let mut table = self.common.clone();
        let apic_id = ApicId::of(self.topology, vcpu);
        for entry in table.as_mut_slice() {
            levels::put_id(entry, self.topology, apic_id);
        }
        table
    }
}

/// The width of a physical address (CPUID leaf 0x80000008, EAX bits 7 to 0).
pub fn physical_address_bits(supported: &[kvm_cpuid_entry2]) -> u32 {
    // Without the leaf it is 36 (Intel SDM vol. 3, section 5.1.4).
    find(supported, leaf::SIZES).map_or(36, |entry| entry.eax & 0xff)
}

/// Whether a CPU with these changes has pages of 1 GiB.
pub fn has_gib_pages(supported: &[kvm_cpuid_entry2], changes: &CpuChanges) -> bool {
    features::has(supported, PAGE_1GB) && !changes.removes(PAGE_1GB)
}

fn find(entries: &[kvm_cpuid_entry2], function: u32) -> Option<&kvm_cpuid_entry2> {
    entries.iter().find(|entry| entry.function == function)
}

/// Whether the CPU is AMD's or Hygon's, whose leaf 0x80000008 has the topology in what Intel
/// reserves.
fn is_amd(supported: &[kvm_cpuid_entry2]) -> bool {
    find(supported, leaf::VENDOR).is_some_and(|entry| {
        let vendor = [entry.ebx, entry.edx, entry.ecx].map(u32::to_le_bytes);
        [b"AuthenticAMD", b"HygonGenuine"].iter().any(|amd| vendor.as_flattened() == *amd)
    })
}

/// `register` with the field of `width` bits that begins at bit `shift` set to `value`, or to its
/// maximum if `value` is larger.
fn with_bits(register: u32, shift: u32, width: u32, value: u32) -> u32 {
    let max = (1 << width) - 1;
    register & !(max << shift) | value.min(max) << shift
}

fn with_flag(register: u32, flag: u32, on: bool) -> u32 {
    if on { register | flag } else { register & !flag }
}

#[cfg(test)]
mod tests;
