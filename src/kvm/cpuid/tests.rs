//! The topology leaves of an Intel-like and an AMD-like table, for numbers of vCPUs that fit
//! their fields and numbers that do not.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

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
    table.push(entry(0x8000_0001, 0, [0, 0, 0, PAGE_1GB]));
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

fn count(vcpus: u32) -> VcpuCount {
    VcpuCount::new(vcpus).unwrap()
}

fn table(supported: &[kvm_cpuid_entry2], vcpus: u32, id: u32) -> Vec<kvm_cpuid_entry2> {
    let template = CpuidTemplate::new(supported, count(vcpus)).unwrap();
    template.for_vcpu(VcpuId(id)).as_slice().to_vec()
}

fn leaf(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
    let found: Vec<_> =
        table.iter().filter(|entry| (entry.function, entry.index) == (function, index)).collect();
    assert_eq!(found.len(), 1, "leaf {function:#x}.{index}");
    [found[0].eax, found[0].ebx, found[0].ecx, found[0].edx]
}

#[test]
fn leaf_1_has_the_id_the_number_and_htt_and_no_local_apic_features() {
    // The number saturates, the id wraps; below them, the host's CLFLUSH size and brand index.
    let last = [0x0001_ffff, 0x0102_ffff, 0x0203_ffff, 0x3f40_ffff, 0xfeff_ffff, 0xffff_ffff];
    for (vcpus, ebx) in COUNTS.into_iter().zip(last) {
        let htt = if vcpus > 1 { HTT } else { 0 };
        let expected = [1, ebx, 0xfedf_ffff, !HTT | htt];
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
        assert_eq!(leaf(&intel, 0x8000_0001, 0), [0, 0, 0, PAGE_1GB], "{vcpus} vCPUs");
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
    assert!(has_gib_pages(&intel()));
    assert!(!has_gib_pages(&amd()));
    assert!(!has_gib_pages(&[]));
}

#[test]
fn a_table_that_is_too_long_is_an_error() {
    let mut supported = vec![vendor(b"GenuineIntel", 0x20)];
    supported.extend((0..250).map(|index| entry(0xd, index, [0; 4])));
    let error = CpuidTemplate::new(&supported, count(1)).unwrap_err();
    assert_eq!(error.to_string(), "257 CPUID entries are more than KVM takes");
}

proptest! {
    #[test]
    fn every_vcpu_has_an_id_of_its_own_within_the_core_bits(vcpus in 1..1500_u32) {
        let template = CpuidTemplate::new(&intel(), count(vcpus)).unwrap();
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
