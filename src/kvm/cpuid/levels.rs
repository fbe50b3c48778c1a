//! CPUID's leaves about sockets, cores and threads, of Intel and of AMD.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::{find, is_amd, leaf, with_bits, with_flag};
use crate::config::{ApicId, Topology};

/// Leaf 1, EDX: the number of logical processors in EBX is valid.
pub(super) const HTT: u32 = 1 << 28;
/// Leaf 0x80000001, ECX, AMD: the logical processors are cores, not threads.
pub(super) const CMP_LEGACY: u32 = 1 << 1;

/// Puts what is the same on every vCPU into a table.
pub(super) fn put(entries: &mut Vec<kvm_cpuid_entry2>, topology: Topology) {
    let max_leaf = find(entries, leaf::VENDOR).map_or(0, |entry| entry.eax);
    let levels = Levels { topology, amd: is_amd(entries) };
    // Made anew, or left out: AMD's newest says what 0xb says, in more levels than there are here.
    let is_ours =
        |function| matches!(function, leaf::TOPOLOGY | leaf::TOPOLOGY_V2 | leaf::AMD_TOPOLOGY_V2);
    entries.retain(|entry| !is_ours(entry.function));
    for entry in entries.iter_mut() {
        levels.patch(entry);
    }
    for function in [leaf::TOPOLOGY, leaf::TOPOLOGY_V2] {
        if function <= max_leaf {
            entries.extend(levels.subleaves(function));
        }
    }
}

/// Puts a vCPU's ids into an entry that has some.
pub(super) fn put_id(entry: &mut kvm_cpuid_entry2, topology: Topology, apic_id: ApicId) {
    let ApicId(apic_id) = apic_id;
    match entry.function {
        leaf::FEATURES => entry.ebx = with_bits(entry.ebx, 24, 8, apic_id & 0xff),
        leaf::TOPOLOGY | leaf::TOPOLOGY_V2 => entry.edx = apic_id,
        leaf::AMD_TOPOLOGY => {
            let core = apic_id >> topology.thread_bits();
            entry.eax = apic_id;
            entry.ebx = with_bits(entry.ebx, 0, 8, core & 0xff);
            // One node a socket.
            entry.ecx = core >> topology.core_bits() & 0xff;
        }
        _ => {}
    }
}

struct Levels {
    topology: Topology,
    amd: bool,
}

impl Levels {
    /// The number of logical processors in a socket.
    fn in_socket(&self) -> u32 {
        self.topology.cores() * self.topology.threads()
    }

    /// The same with the ids that threads leave unused, of which Intel's counts speak: rounded up
    /// to a power of two, either gives as many bits as the ids have.
    fn ids_in_socket(&self) -> u32 {
        self.topology.cores() << self.topology.thread_bits()
    }

    /// The number of low bits of an APIC id that tell the logical processors of a socket apart.
    fn socket_shift(&self) -> u32 {
        self.topology.thread_bits() + self.topology.core_bits()
    }

    fn patch(&self, entry: &mut kvm_cpuid_entry2) {
        let has_others = self.in_socket() > 1;
        match entry.function {
            leaf::FEATURES => {
                let count = if self.amd { self.in_socket() } else { self.ids_in_socket() };
                entry.ebx = with_bits(entry.ebx, 16, 8, count);
                entry.edx = with_flag(entry.edx, HTT, has_others);
            }
            leaf::CACHES if is_cache(entry) => {
                entry.eax = with_bits(entry.eax, 14, 12, self.others_sharing(entry));
                entry.eax = with_bits(entry.eax, 26, 6, self.topology.cores() - 1);
            }
            leaf::AMD_CACHES if is_cache(entry) => {
                entry.eax = with_bits(entry.eax, 14, 12, self.others_sharing(entry));
            }
            leaf::EXT_FEATURES if self.amd => {
                entry.ecx = with_flag(entry.ecx, CMP_LEGACY, has_others);
            }
            leaf::SIZES if self.amd => {
                entry.ecx = with_bits(entry.ecx, 0, 8, self.in_socket() - 1);
                entry.ecx = with_bits(entry.ecx, 12, 4, self.socket_shift());
            }
            leaf::AMD_TOPOLOGY => {
                entry.ebx = with_bits(entry.ebx, 8, 8, self.topology.threads() - 1);
            }
            _ => {}
        }
    }

    /// With how many others a logical processor shares this cache: level 1 and 2 are its core's,
    /// those above are its socket's.
    fn others_sharing(&self, cache: &kvm_cpuid_entry2) -> u32 {
        let level = cache.eax >> 5 & 7;
        let sharing =
            if level < 3 { 1 << self.topology.thread_bits() } else { self.ids_in_socket() };
        sharing - 1
    }

    /// The subleaves of leaf 0xb or 0x1f: a level of threads, a level of cores and the end, each
    /// with its type, the id bits below the next level and the logical processors in it.
    fn subleaves(&self, function: u32) -> impl Iterator<Item = kvm_cpuid_entry2> {
        let threads = (1, self.topology.thread_bits(), self.topology.threads());
        let cores = (2, self.socket_shift(), self.in_socket());
        let levels = [threads, cores, (0, 0, 0)];
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

/// Whether a subleaf of leaf 4 or 0x8000001d describes a cache at all: its type is not 0.
fn is_cache(entry: &kvm_cpuid_entry2) -> bool {
    entry.eax & 0x1f != 0
}
