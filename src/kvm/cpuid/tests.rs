//! The topology leaves of an Intel-like and an AMD-like table, for numbers of vCPUs that fit
//! their fields and numbers that do not.

use std::collections::HashSet;

use kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
use proptest::prelude::*;

use super::levels::{CMP_LEGACY, HTT};
use super::*;
use crate::config::{ApicId, VcpuCount};

const COUNTS: [u32; 6] = [1, 2, 3, 64, 255, 1024];

/// A leaf that is all ones wherever the patch must not leave the host's values.
fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = registers;
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
}

fn vendor(name: &[u8; 12], max_leaf: u32) -> kvm_cpuid_entry2 {
    let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
    entry(0, 0, [max_leaf, word(0), word(8), word(4)])
}

/// Caches of level 1, 2 and 3, and the end.
fn caches(function: u32) -> [kvm_cpuid_entry2; 4] {
    [(0, 0xffff_fc21), (1, 0xffff_fc43), (2, 0xffff_fc63), (3, 0)]
        .map(|(index, eax)| entry(function, index, [eax, 7, 8, 9]))
}

fn intel() -> Vec<kvm_cpuid_entry2> {
    let mut table =
        vec![vendor(b"GenuineIntel", 0x20), entry(1, 0, [1, u32::MAX, u32::MAX, u32::MAX])];
    table.extend(caches(4));
    table.push(entry(0xb, 0, [u32::MAX; 4]));
    table.push(entry(0x1f, 0, [u32::MAX; 4]));
    table.push(entry(0x8000_0001, 0, [0, 0, 0, 1 << 26]));
    table.push(entry(0x8000_0008, 0, [0x3030, 0, 0, 0]));
    table
}

fn amd() -> Vec<kvm_cpuid_entry2> {
    let mut table =
        vec![vendor(b"AuthenticAMD", 0x10), entry(1, 0, [1, u32::MAX, u32::MAX, u32::MAX])];
    table.push(entry(0x8000_0001, 0, [0, 0, u32::MAX, 0]));
    table.push(entry(0x8000_0008, 0, [0x3030, 5, u32::MAX, 6]));
    table.extend(caches(0x8000_001d));
    table.push(entry(0x8000_001e, 0, [u32::MAX; 4]));
    table
}

fn flat(vcpus: u32) -> Topology {
    Topology::flat(VcpuCount::new(vcpus).unwrap())
}

fn template(supported: &[kvm_cpuid_entry2], topology: Topology) -> CpuidTemplate {
    CpuidTemplate::new(supported.to_vec(), topology, None).unwrap()
}

fn table(supported: &[kvm_cpuid_entry2], vcpus: u32, id: u32) -> Vec<kvm_cpuid_entry2> {
    template(supported, flat(vcpus)).for_vcpu(VcpuId(id)).as_slice().to_vec()
}

fn leaf(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
    let found: Vec<_> =
        table.iter().filter(|entry| (entry.function, entry.index) == (function, index)).collect();
    assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
    [found[0].eax, found[0].ebx, found[0].ecx, found[0].edx]
}

#[test]
fn leaf_1_has_the_id_the_number_and_htt() {
    // The number saturates, the id wraps; below them, the host's CLFLUSH size and brand index.
    let last = [0x0001_ffff, 0x0102_ffff, 0x0203_ffff, 0x3f40_ffff, 0xfeff_ffff, 0xffff_ffff];
    for (vcpus, ebx) in COUNTS.into_iter().zip(last) {
        let htt = if vcpus > 1 { HTT } else { 0 };
        let expected = [1, ebx, u32::MAX, !HTT | htt];
        assert_eq!(leaf(&table(&intel(), vcpus, vcpus - 1), 1, 0), expected, "{vcpus} vCPUs");
        assert_eq!(leaf(&table(&amd(), vcpus, vcpus - 1), 1, 0), expected, "{vcpus} vCPUs");
    }
    assert_eq!(leaf(&table(&intel(), 1024, 0x102), 1, 0)[1], 0x02ff_ffff, "the id's low 8 bits");
}

#[test]
fn leaf_4_shares_the_third_level_and_counts_the_cores() {
    let others = [(0, 0), (1, 1), (2, 2), (63, 63), (254, 63), (1023, 63)];
    for (vcpus, (sharing, cores)) in COUNTS.into_iter().zip(others) {
        let table = table(&intel(), vcpus, 0);
        let cores = cores << 26;
        assert_eq!(leaf(&table, 4, 0), [cores | 0x3c21 & 0x3fff, 7, 8, 9], "{vcpus} vCPUs");
        assert_eq!(leaf(&table, 4, 1), [cores | 0x3c43, 7, 8, 9], "{vcpus} vCPUs");
        assert_eq!(leaf(&table, 4, 2), [cores | sharing << 14 | 0x3c63, 7, 8, 9]);
        assert_eq!(leaf(&table, 4, 3), [0, 7, 8, 9], "the end stays the end");
    }
}

#[test]
fn leaf_0xb_and_0x1f_have_a_thread_and_a_core_level() {
    let shifts = [0, 1, 2, 6, 8, 10];
    for (vcpus, shift) in COUNTS.into_iter().zip(shifts) {
        let id = vcpus - 1;
        let table = table(&intel(), vcpus, id);
        for function in [0xb, 0x1f] {
            assert_eq!(leaf(&table, function, 0), [0, 1, 0x100, id], "{vcpus} vCPUs");
            assert_eq!(leaf(&table, function, 1), [shift, vcpus, 0x201, id], "{vcpus} vCPUs");
            assert_eq!(leaf(&table, function, 2), [0, 0, 2, id], "{vcpus} vCPUs");
        }
        let levels = table.iter().filter(|entry| matches!(entry.function, 0xb | 0x1f));
        assert!(levels.clone().all(|entry| entry.flags == KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
        assert_eq!(levels.count(), 6, "nothing of the host's is left");
    }
}

#[test]
fn a_topology_leaf_above_the_highest_leaf_is_left_out() {
    let functions = |table: Vec<kvm_cpuid_entry2>| -> HashSet<u32> {
        table.iter().map(|entry| entry.function).collect()
    };
    let amd = functions(table(&amd(), 2, 0));
    assert!(amd.contains(&0xb) && !amd.contains(&0x1f), "the highest is 0x10");
    let old = [vendor(b"GenuineIntel", 0xa)];
    assert_eq!(functions(table(&old, 2, 0)), HashSet::from([0]));
    assert_eq!(functions(table(&[], 2, 0)), HashSet::new(), "not even a highest leaf");
}

#[test]
fn leaf_0x80000008_counts_amds_cores_and_keeps_intels_zeros() {
    let fields = [(0, 0), (1, 1), (2, 2), (63, 6), (254, 8), (255, 10)];
    for (vcpus, (others, shift)) in COUNTS.into_iter().zip(fields) {
        let ecx = 0xffff_0f00 | shift << 12 | others;
        let amd = table(&amd(), vcpus, 0);
        assert_eq!(leaf(&amd, 0x8000_0008, 0), [0x3030, 5, ecx, 6], "{vcpus} vCPUs");
        let cmp_legacy = if vcpus > 1 { u32::MAX } else { !CMP_LEGACY };
        assert_eq!(leaf(&amd, 0x8000_0001, 0), [0, 0, cmp_legacy, 0], "{vcpus} vCPUs");
        let intel = table(&intel(), vcpus, 0);
        assert_eq!(leaf(&intel, 0x8000_0008, 0), [0x3030, 0, 0, 0], "{vcpus} vCPUs");
        assert_eq!(leaf(&intel, 0x8000_0001, 0), [0, 0, 0, 1 << 26], "{vcpus} vCPUs");
    }
    assert_eq!(leaf(&table(&amd(), 65_535, 0), 0x8000_0008, 0)[2], 0xffff_ffff, "saturated");
}

#[test]
fn leaf_0x8000001d_shares_the_third_level() {
    for vcpus in COUNTS {
        let table = table(&amd(), vcpus, 0);
        assert_eq!(leaf(&table, 0x8000_001d, 1)[0], 0xfc00_3c43, "{vcpus} vCPUs");
        assert_eq!(leaf(&table, 0x8000_001d, 2)[0], 0xfc00_3c63 | (vcpus - 1) << 14);
        assert_eq!(leaf(&table, 0x8000_001d, 3)[0], 0, "the end stays the end");
    }
}

#[test]
fn leaf_0x8000001e_has_the_ids_and_one_node() {
    for vcpus in COUNTS {
        let id = vcpus - 1;
        let expected = [id, 0xffff_0000 | id & 0xff, 0, u32::MAX];
        assert_eq!(leaf(&table(&amd(), vcpus, id), 0x8000_001e, 0), expected, "{vcpus} vCPUs");
    }
}

#[test]
fn gib_pages_are_a_bit_of_leaf_0x80000001() {
    let has_gib_pages =
        |table: &[kvm_cpuid_entry2], changes: &str| has_gib_pages(table, &changes.parse().unwrap());
    assert!(has_gib_pages(&intel(), "-avx"));
    assert!(!has_gib_pages(&intel(), "-pdpe1gb"));
    assert!(!has_gib_pages(&amd(), "-avx"));
    assert!(!has_gib_pages(&[], "-avx"));
}

#[test]
fn a_table_that_is_too_long_is_an_error() {
    let mut supported = vec![vendor(b"GenuineIntel", 0x20)];
    supported.extend((0..250).map(|index| entry(0xd, index, [0; 4])));
    let error = CpuidTemplate::new(supported, flat(1), None).unwrap_err();
    assert_eq!(error.to_string(), "257 CPUID entries are more than KVM takes");
}

/// What Linux makes of leaf 1 and 4, or of AMD's 0x80000008, where it does not go by 0xb: how many
/// of an id's bits tell threads apart, and how many a socket's logical processors.
fn legacy_shifts(table: &[kvm_cpuid_entry2], amd: bool) -> (u32, u32) {
    let bits_for = |count: u32| count.next_power_of_two().ilog2();
    let siblings = leaf(table, 1, 0)[1] >> 16 & 0xff;
    if amd {
        let threads = (leaf(table, 0x8000_001e, 0)[1] >> 8 & 0xff) + 1;
        return (bits_for(threads), leaf(table, 0x8000_0008, 0)[2] >> 12 & 0xf);
    }
    let cores = (leaf(table, 4, 0)[0] >> 26) + 1;
    (bits_for(siblings / cores), bits_for(siblings))
}

#[test]
fn amd_has_ids_of_cores_and_nodes() {
    // Two sockets of three cores of two threads: ids have a bit for the thread, two for the core.
    let template = template(&amd(), "2:3:2".parse().unwrap());
    for (vcpu, (apic_id, core, node)) in
        [(0, (0, 0, 0)), (1, (1, 0, 0)), (5, (5, 2, 0)), (6, (8, 4, 1)), (11, (13, 6, 1))]
    {
        let table = template.for_vcpu(VcpuId(vcpu));
        let expected = [apic_id, 0xffff_0100 | core, node, u32::MAX];
        assert_eq!(leaf(table.as_slice(), 0x8000_001e, 0), expected, "vCPU {vcpu}");
        assert_eq!(leaf(table.as_slice(), 1, 0)[1], apic_id << 24 | 0x06_ffff);
        assert_eq!(leaf(table.as_slice(), 0x8000_0008, 0)[2], 0xffff_3f05);
        assert_eq!(leaf(table.as_slice(), 0x8000_001d, 1)[0] >> 14 & 0xfff, 1, "a core's");
        assert_eq!(leaf(table.as_slice(), 0x8000_001d, 2)[0] >> 14 & 0xfff, 5, "a socket's");
    }
}

#[test]
fn amds_newest_topology_leaf_is_left_out() {
    let mut supported = amd();
    supported.push(entry(0x8000_0026, 0, [1; 4]));
    let table = table(&supported, 2, 0);
    assert!(table.iter().all(|entry| entry.function != 0x8000_0026));
}

#[test]
fn the_clocks_have_their_leaves() {
    let khz = |khz| NonZeroU32::new(khz);
    let mut supported = intel();
    supported.push(entry(0x15, 0, [0; 4]));
    supported.push(entry(0x4000_0000, 0, [0x4000_0001, 7, 8, 9]));
    let with = |supported: &[kvm_cpuid_entry2], khz| {
        let template = CpuidTemplate::new(supported.to_vec(), flat(1), khz).unwrap();
        template.for_vcpu(VcpuId(0)).as_slice().to_vec()
    };
    let table = with(&supported, khz(2_100_000));
    // 1 GHz times 21 by 10.
    assert_eq!(leaf(&table, 0x15, 0), [10, 21, 1_000_000_000, 0]);
    assert_eq!(leaf(&table, 0x16, 0), [2100, 2100, 1000, 0], "a leaf that was not there");
    assert_eq!(leaf(&table, 0x4000_0000, 0), [0x4000_0010, 7, 8, 9]);
    assert_eq!(leaf(&table, 0x4000_0010, 0), [2_100_000, 1_000_000, 0, 0]);
    let odd = with(&supported, khz(2_596_134));
    assert_eq!(leaf(&odd, 0x15, 0), [500_000, 1_298_067, 1_000_000_000, 0]);

    let unknown = with(&supported, None);
    assert_eq!(leaf(&unknown, 0x15, 0), [0; 4]);
    assert_eq!(leaf(&unknown, 0x4000_0000, 0), [0x4000_0001, 7, 8, 9]);
    assert!(unknown.iter().all(|entry| !matches!(entry.function, 0x16 | 0x4000_0010)));
    let amd = with(&amd(), khz(2_100_000));
    assert!(amd.iter().all(|entry| !matches!(entry.function, 0x15 | 0x16 | 0x4000_0010)));
}

proptest! {
    #[test]
    fn every_leaf_has_the_same_topology(
        sockets in 1..9_u32, cores in 1..30_u32, threads in 1..5_u32, at in any::<u32>(),
    ) {
        let topology: Topology = format!("{sockets}:{cores}:{threads}").parse().unwrap();
        let vcpu = VcpuId(at % topology.vcpus());
        let ApicId(id) = ApicId::of(topology, vcpu);
        let bits = (topology.thread_bits(), topology.thread_bits() + topology.core_bits());
        for amd in [false, true] {
            let table = template(&if amd { self::amd() } else { intel() }, topology);
            let table = table.for_vcpu(vcpu);
            let table = table.as_slice();
            let levels = [0, 1].map(|index| leaf(table, 0xb, index));
            prop_assert_eq!([levels[0][0], levels[1][0]], [bits.0, bits.1]);
            prop_assert_eq!([levels[0][1], levels[1][1]], [threads, cores * threads]);
            prop_assert!(levels.iter().all(|level| level[3] == id));
            prop_assert_eq!(leaf(table, 1, 0)[1] >> 24, id & 0xff);
            prop_assert_eq!(leaf(table, 1, 0)[3] & HTT != 0, cores * threads > 1);
            let (thread_bits, socket_bits) = legacy_shifts(table, amd);
            prop_assert_eq!((thread_bits, socket_bits), bits);
            // Logical processors that share a cache have these bits of their ids in common.
            let caches = if amd { 0x8000_001d } else { 4 };
            for (index, expected) in [(0, bits.0), (1, bits.0), (2, bits.1)] {
                let sharing = (leaf(table, caches, index)[0] >> 14 & 0xfff) + 1;
                prop_assert_eq!(sharing.next_power_of_two().ilog2(), expected);
            }
        }
    }

    #[test]
    fn every_vcpu_has_an_id_of_its_own_within_the_core_bits(vcpus in 1..1500_u32) {
        let template = template(&intel(), flat(vcpus));
        let mut ids = HashSet::new();
        for id in 0..vcpus {
            let table = template.for_vcpu(VcpuId(id));
            let [shift, processors, _, x2apic_id] = leaf(table.as_slice(), 0x1f, 1);
            prop_assert_eq!(processors, vcpus);
            prop_assert_eq!(x2apic_id >> shift, 0, "all in package 0");
            prop_assert!(vcpus > 1 << shift >> 1, "and no bit too many");
            prop_assert!(ids.insert(x2apic_id), "{} twice", x2apic_id);
        }
    }
}
