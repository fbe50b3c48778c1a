//! What each vCPU's CPUID says: KVM's own table (KVM_GET_SUPPORTED_CPUID) with the topology of
//! this VM in it, which is one package of as many cores as there are vCPUs, one thread each.
//!
//! KVM reports the host's topology, or none; without this every vCPU would have the same APIC
//! id. What KVM supports only with an in-kernel local APIC, which this VM has not, is left out.
//! What all vCPUs have in common is done once, in [`CpuidTemplate::new`]; a vCPU's own table is a
//! copy with its id put in, cheap enough for a thousand of them. Data in, data out: the ioctls
//! are in `vm.rs` and `vcpu.rs`.
//!
//! A vCPU's index is its APIC id. Fields that are too narrow for it or for the number of vCPUs
//! hold what the manuals say: an id its lowest bits, a count its maximum. Leaves 0xb and 0x1f
//! always have all of it. Where KVM cannot intercept CPUID in ring 3 (PVM), ring 3 sees the
//! host's own: a guest there goes by its index in RDI.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use thiserror::Error;

use crate::config::VcpuCount;
use crate::exit::VcpuId;

/// Leaf numbers (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
mod leaf {
    pub const VENDOR: u32 = 0;
    pub const FEATURES: u32 = 1;
    pub const CACHES: u32 = 4;
    pub const TOPOLOGY: u32 = 0xb;
    pub const TOPOLOGY_V2: u32 = 0x1f;
    pub const EXT_FEATURES: u32 = 0x8000_0001;
    pub const SIZES: u32 = 0x8000_0008;
    pub const AMD_CACHES: u32 = 0x8000_001d;
    pub const AMD_TOPOLOGY: u32 = 0x8000_001e;
}

/// Leaf 1, ECX: the local APIC's x2APIC mode and TSC-deadline timer. KVM reports both, and can
/// do them only in its own local APIC (KVM API document, section 9.1).
const LOCAL_APIC_FEATURES: u32 = 1 << 21 | 1 << 24;
/// Leaf 1, EDX: the number of logical processors in EBX is valid.
const HTT: u32 = 1 << 28;
/// Leaf 0x80000001, ECX, AMD: the logical processors are cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 0x80000001, EDX: pages of 1 GiB.
const PAGE_1GB: u32 = 1 << 26;

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
    common: CpuId,
}

impl CpuidTemplate {
    /// Puts the topology of `vcpus` vCPUs into the table that KVM supports.
    ///
    /// # Errors
    ///
    /// If the table has no room for the topology leaves.
    pub fn new(supported: &[kvm_cpuid_entry2], vcpus: VcpuCount) -> Result<Self, CpuidError> {
        let topology = Topology { cores: vcpus.get(), amd: is_amd(supported) };
        let is_topology = |function| matches!(function, leaf::TOPOLOGY | leaf::TOPOLOGY_V2);
        let mut entries: Vec<_> =
            supported.iter().filter(|entry| !is_topology(entry.function)).copied().collect();
        for entry in &mut entries {
            topology.patch(entry);
        }
        let max_leaf = find(supported, leaf::VENDOR).map_or(0, |entry| entry.eax);
        for function in [leaf::TOPOLOGY, leaf::TOPOLOGY_V2] {
            if function <= max_leaf {
                entries.extend(topology.levels(function));
            }
        }
        let common =
            CpuId::from_entries(&entries).map_err(|_| CpuidError { count: entries.len() })?;
        Ok(Self { common })
    }

    /// The table of one vCPU.
    pub fn for_vcpu(&self, id: VcpuId) -> CpuId {
        let apic_id = id.0;
        let mut table = self.common.clone();
        for entry in table.as_mut_slice() {
            match entry.function {
                leaf::FEATURES => entry.ebx = with_bits(entry.ebx, 24, 8, apic_id & 0xff),
                leaf::TOPOLOGY | leaf::TOPOLOGY_V2 => entry.edx = apic_id,
                leaf::AMD_TOPOLOGY => {
                    entry.eax = apic_id;
                    entry.ebx = with_bits(entry.ebx, 0, 8, apic_id & 0xff);
                }
                _ => {}
            }
        }
        table
    }
}

/// The width of a physical address (CPUID leaf 0x80000008, EAX bits 7 to 0).
pub fn physical_address_bits(supported: &[kvm_cpuid_entry2]) -> u32 {
    // Without the leaf it is 36 (Intel SDM vol. 3, section 5.1.4).
    find(supported, leaf::SIZES).map_or(36, |entry| entry.eax & 0xff)
}

/// Whether the CPU has pages of 1 GiB.
pub fn has_gib_pages(supported: &[kvm_cpuid_entry2]) -> bool {
    find(supported, leaf::EXT_FEATURES).is_some_and(|entry| entry.edx & PAGE_1GB != 0)
}

/// One package of cores of one thread.
#[derive(Clone, Copy)]
struct Topology {
    cores: u32,
    amd: bool,
}

impl Topology {
    /// The number of low bits of an APIC id that tell the cores apart.
    fn core_bits(self) -> u32 {
        self.cores.next_power_of_two().ilog2()
    }

    /// Puts what is the same on every vCPU into an entry that has some of it.
    fn patch(self, entry: &mut kvm_cpuid_entry2) {
        let others = self.cores - 1;
        match entry.function {
            leaf::FEATURES => {
                entry.ebx = with_bits(entry.ebx, 16, 8, self.cores);
                entry.ecx = with_flag(entry.ecx, LOCAL_APIC_FEATURES, false);
                entry.edx = with_flag(entry.edx, HTT, others > 0);
            }
            leaf::CACHES if is_cache(entry) => {
                entry.eax = with_bits(entry.eax, 14, 12, self.others_sharing(entry));
                entry.eax = with_bits(entry.eax, 26, 6, others);
            }
            leaf::AMD_CACHES if is_cache(entry) => {
                entry.eax = with_bits(entry.eax, 14, 12, self.others_sharing(entry));
            }
            leaf::EXT_FEATURES if self.amd => {
                entry.ecx = with_flag(entry.ecx, CMP_LEGACY, others > 0);
            }
            leaf::SIZES if self.amd => {
                entry.ecx = with_bits(entry.ecx, 0, 8, others);
                entry.ecx = with_bits(entry.ecx, 12, 4, self.core_bits());
            }
            leaf::AMD_TOPOLOGY => {
                // One thread a core, and all in node 0, the only one.
                entry.ebx = with_bits(entry.ebx, 8, 8, 0);
                entry.ecx = 0;
            }
            _ => {}
        }
    }

    /// How many cores a core shares this cache with: level 1 and 2 are its own, those above are
    /// everybody's.
    fn others_sharing(self, cache: &kvm_cpuid_entry2) -> u32 {
        let level = cache.eax >> 5 & 7;
        if level < 3 { 0 } else { self.cores - 1 }
    }

    /// The subleaves of leaf 0xb or 0x1f: a level of threads, a level of cores and the end, each
    /// with its type, the id bits below the next level and the logical processors in it.
    fn levels(self, function: u32) -> impl Iterator<Item = kvm_cpuid_entry2> {
        let levels = [(1, 0, 1), (2, self.core_bits(), self.cores), (0, 0, 0)];
        (0..).zip(levels).map(move |(index, (level_type, shift, processors))| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: processors,
            ecx: level_type << 8 | index,
            ..kvm_cpuid_entry2::default()
        })
    }
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

/// Whether a subleaf of leaf 4 or 0x8000001d describes a cache at all: its type is not 0.
fn is_cache(entry: &kvm_cpuid_entry2) -> bool {
    entry.eax & 0x1f != 0
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
