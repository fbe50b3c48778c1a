//! The CPU that a guest has: what CPUID says in ring 0 on every vCPU, its clocks, and the tables in
//! its memory.

mod support;

use minivmm::config::{ApicId, CpuFeature, Topology};
use minivmm::exit::VcpuId;
use support::{Finished, image, minivmm, require_kvm, run};

/// 64-bit mode. Each vCPU executes CPUID for R12 pairs of leaf and subleaf, which follow the code;
/// when all are done vCPU 0 writes what they have said, R13 bytes, to COM1, and powers off.
#[rustfmt::skip]
const CPUID: [u8; 0x72] = [
    0x41, 0xb8, 0x72, 0x10, 0x00, 0x00, // mov $0x1072,%r8d
    0x45, 0x89, 0xe1, // mov %r12d,%r9d
    0x44, 0x0f, 0xaf, 0xcf, // imul %edi,%r9d
    0x41, 0xc1, 0xe1, 0x04, // shl $0x4,%r9d
    0x41, 0x81, 0xc1, 0x00, 0x00, 0x10, 0x00, // add $0x100000,%r9d
    0x41, 0x8b, 0x00, // mov (%r8),%eax
    0x41, 0x8b, 0x48, 0x04, // mov 0x4(%r8),%ecx
    0x0f, 0xa2, // cpuid
    0x41, 0x89, 0x01, // mov %eax,(%r9)
    0x41, 0x89, 0x59, 0x04, // mov %ebx,0x4(%r9)
    0x41, 0x89, 0x49, 0x08, // mov %ecx,0x8(%r9)
    0x41, 0x89, 0x51, 0x0c, // mov %edx,0xc(%r9)
    0x49, 0x83, 0xc0, 0x08, // add $0x8,%r8
    0x49, 0x83, 0xc1, 0x10, // add $0x10,%r9
    0x41, 0xff, 0xcc, // dec %r12d
    0x75, 0xdb, // jne 1018
    0xf0, 0xff, 0x04, 0x25, 0x00, 0xf0, 0x00, 0x00, // lock incl 0xf000
    0x85, 0xff, // test %edi,%edi
    0x75, 0x26, // jne 106f
    0xf3, 0x90, // pause
    0x39, 0x34, 0x25, 0x00, 0xf0, 0x00, 0x00, // cmp %esi,0xf000
    0x75, 0xf5, // jne 1049
    0xbe, 0x00, 0x00, 0x10, 0x00, // mov $0x100000,%esi
    0x44, 0x89, 0xe9, // mov %r13d,%ecx
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov $0x3f8,%edx
    0xf3, 0x6e, // rep outsb %ds:(%rsi),(%dx)
    0xba, 0x04, 0x06, 0x00, 0x00, // mov $0x604,%edx
    0xb8, 0x00, 0x20, 0x00, 0x00, // mov $0x2000,%eax
    0x66, 0xef, // out %ax,(%dx)
    0xf4, // hlt
    0xeb, 0xfd, // jmp 106f
];

/// 64-bit mode. Writes to COM1: IA32_MTRR_DEF_TYPE and IA32_MISC_ENABLE, and twice the TSC with
/// kvmclock's page (KVM's document of its MSRs, MSR_KVM_SYSTEM_TIME_NEW).
#[rustfmt::skip]
const CLOCK: [u8; 0x6e] = [
    0xbf, 0x00, 0x00, 0x03, 0x00, // mov $0x30000,%edi
    0xb9, 0xff, 0x02, 0x00, 0x00, // mov $0x2ff,%ecx
    0xe8, 0x54, 0x00, 0x00, 0x00, // call 1063
    0xb9, 0xa0, 0x01, 0x00, 0x00, // mov $0x1a0,%ecx
    0xe8, 0x4a, 0x00, 0x00, 0x00, // call 1063
    0xb9, 0x01, 0x4d, 0x56, 0x4b, // mov $0x4b564d01,%ecx
    0xb8, 0x01, 0x00, 0x02, 0x00, // mov $0x20001,%eax
    0x31, 0xd2, // xor %edx,%edx
    0x0f, 0x30, // wrmsr
    0xbb, 0x02, 0x00, 0x00, 0x00, // mov $0x2,%ebx
    0x0f, 0x31, // rdtsc
    0x89, 0x07, // mov %eax,(%rdi)
    0x89, 0x57, 0x04, // mov %edx,0x4(%rdi)
    0x83, 0xc7, 0x08, // add $0x8,%edi
    0xbe, 0x00, 0x00, 0x02, 0x00, // mov $0x20000,%esi
    0xb9, 0x20, 0x00, 0x00, 0x00, // mov $0x20,%ecx
    0xf3, 0xa4, // rep movsb %ds:(%rsi),%es:(%rdi)
    0xff, 0xcb, // dec %ebx
    0x75, 0xe6, // jne 102c
    0xbe, 0x00, 0x00, 0x03, 0x00, // mov $0x30000,%esi
    0xb9, 0x60, 0x00, 0x00, 0x00, // mov $0x60,%ecx
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov $0x3f8,%edx
    0xf3, 0x6e, // rep outsb %ds:(%rsi),(%dx)
    0xba, 0x04, 0x06, 0x00, 0x00, // mov $0x604,%edx
    0xb8, 0x00, 0x20, 0x00, 0x00, // mov $0x2000,%eax
    0x66, 0xef, // out %ax,(%dx)
    0x0f, 0x32, // rdmsr
    0x89, 0x07, // mov %eax,(%rdi)
    0x89, 0x57, 0x04, // mov %edx,0x4(%rdi)
    0x83, 0xc7, 0x08, // add $0x8,%edi
    0xc3, // ret
];

/// 64-bit mode. Switches to x2APIC mode, wakes the vCPU whose APIC id is in R12 by INIT and SIPI,
/// and powers off when that has run.
#[rustfmt::skip]
const WAKE: [u8; 0x4e] = [
    0xb9, 0x1b, 0x00, 0x00, 0x00, // mov $0x1b,%ecx
    0x0f, 0x32, // rdmsr
    0x0d, 0x00, 0x0c, 0x00, 0x00, // or $0xc00,%eax
    0x0f, 0x30, // wrmsr
    0x48, 0xb8, 0xc6, 0x06, 0x00, 0xf0, 0x01, 0xf4, 0x00, 0x00, // movabs $0xf401f00006c6,%rax
    0x48, 0x89, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, // mov %rax,0x8000
    0xb9, 0x30, 0x08, 0x00, 0x00, // mov $0x830,%ecx
    0x44, 0x89, 0xe2, // mov %r12d,%edx
    0xb8, 0x00, 0x45, 0x00, 0x00, // mov $0x4500,%eax
    0x0f, 0x30, // wrmsr
    0xb8, 0x08, 0x46, 0x00, 0x00, // mov $0x4608,%eax
    0x0f, 0x30, // wrmsr
    0xf3, 0x90, // pause
    0x80, 0x3c, 0x25, 0x00, 0xf0, 0x00, 0x00, 0x01, // cmpb $0x1,0xf000
    0x75, 0xf4, // jne 1036
    0xba, 0x04, 0x06, 0x00, 0x00, // mov $0x604,%edx
    0xb8, 0x00, 0x20, 0x00, 0x00, // mov $0x2000,%eax
    0x66, 0xef, // out %ax,(%dx)
];

/// 64-bit mode: `rep outsb`, then power-off.
const DUMP: [u8; 14] = [0xf3, 0x6e, 0xba, 0x04, 0x06, 0, 0, 0xb8, 0x00, 0x20, 0, 0, 0x66, 0xef];

/// A leaf and a subleaf of CPUID.
type Leaf = (u32, u32);

/// What CPUID says for each leaf, on each vCPU.
fn cpuid(options: &str, vcpus: u32, leaves: &[Leaf]) -> (Vec<Vec<[u32; 4]>>, Finished) {
    let pairs = leaves.iter().flat_map(|(leaf, subleaf)| [*leaf, *subleaf]);
    let code: Vec<u8> = CPUID.into_iter().chain(pairs.flat_map(u32::to_le_bytes)).collect();
    let image = image(&code);
    let len = leaves.len() * 16;
    let total = len * usize::try_from(vcpus).unwrap();
    let registers = format!("--reg r12={} --reg r13={total}", leaves.len());
    let path = image.path().display();
    let line = format!("--mode long --vcpus {vcpus} {registers} {options} {path}");
    let finished = run(minivmm(&line));
    assert_eq!((finished.code, finished.stdout.len()), (0, total), "{}", finished.stderr);
    let registers = |bytes: &[u8]| {
        let mut words = bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        std::array::from_fn(|_| words.next().unwrap())
    };
    let of_vcpu = |bytes: &[u8]| bytes.chunks(16).map(registers).collect();
    (finished.stdout.chunks(len).map(of_vcpu).collect(), finished)
}

#[test]
fn every_vcpu_has_its_place_in_the_topology() {
    if !require_kvm() {
        return;
    }
    let leaves = [(0, 0), (1, 0), (0xb, 0), (0xb, 1)];
    for (text, irqchip) in [("1:3:1", "none"), ("2:3:2", "none"), ("2:3:1", "kernel")] {
        let topology: Topology = text.parse().unwrap();
        let options = format!("--topology {text} --irqchip {irqchip}");
        let (vcpus, _) = cpuid(&options, topology.vcpus(), &leaves);
        for (index, leaves) in (0..).zip(vcpus) {
            let ApicId(id) = ApicId::of(topology, VcpuId(index));
            assert_eq!(leaves[1][1] >> 24, id, "{text}, vCPU {index}");
            if leaves[0][0] < 0xb {
                continue;
            }
            let level = |leaf: [u32; 4]| (leaf[0], leaf[1] & 0xffff, leaf[2] >> 8 & 0xff, leaf[3]);
            let threads = (topology.thread_bits(), topology.threads(), 1, id);
            let bits = topology.thread_bits() + topology.core_bits();
            let cores = (bits, topology.cores() * topology.threads(), 2, id);
            assert_eq!([level(leaves[2]), level(leaves[3])], [threads, cores], "{text}");
        }
    }
}

/// Leaf 0x40000001 is KVM's, if a signature says so.
const KVM: [Leaf; 3] = [(0x4000_0000, 0), (0x4000_0001, 0), (0x4000_0010, 0)];
const SIGNATURE: [u32; 3] = [0x4b4d_564b, 0x564b_4d56, 0x4d];

#[test]
fn a_local_apic_brings_its_features_and_hypercalls_are_left_out() {
    if !require_kvm() {
        return;
    }
    let [signature, features, clocks] = KVM;
    let leaves = [(1, 0), signature, features, clocks];
    let of_machine = |irqchip: &str| cpuid(&format!("--irqchip {irqchip}"), 1, &leaves).0.remove(0);
    let (none, kernel) = (of_machine("none"), of_machine("kernel"));
    let x2apic = |leaf: [u32; 4]| leaf[2] >> 21 & 1;
    assert_eq!((x2apic(none[0]), x2apic(kernel[0])), (0, 1));
    assert_eq!(none[1][1..], SIGNATURE);
    assert_eq!(kernel[1][1..], SIGNATURE);
    let hypercalls = 1 << 7 | 1 << 11 | 1 << 13 | 1 << 16 | 1 << 17;
    assert_eq!((none[2][0] & hypercalls, kernel[2][0] & hypercalls), (0, 0));
    let interrupts = 1 << 4 | 1 << 6 | 1 << 10 | 1 << 14;
    assert_eq!(none[2][0] & interrupts, 0);
    let kvmclock = 1 << 3;
    assert_eq!((none[2][0] & kvmclock, kernel[2][0] & kvmclock), (kvmclock, kvmclock));
    assert_eq!((kernel[1][0], kernel[3][1]), (0x4000_0010, 1_000_000));
}

#[test]
fn a_feature_that_is_taken_away_is_gone_or_said_not_to_be() {
    if !require_kvm() {
        return;
    }
    let plain = cpuid("", 1, &[(1, 0)]).0[0][0][2];
    for name in ["cx16", "popcnt", "sse4_2"] {
        let bit = name.parse::<CpuFeature>().unwrap().bits().next().unwrap().bit;
        if plain >> bit & 1 == 0 {
            continue;
        }
        let (seen, finished) = cpuid(&format!("--cpu -{name}"), 1, &[(1, 0)]);
        let said = format!("cannot hide {name} from a guest's ring 0");
        let is_seen = seen[0][0][2] >> bit & 1 != 0;
        assert_eq!(finished.stderr.contains(&said), is_seen, "{name}: {}", finished.stderr);
    }
}

#[test]
fn a_feature_that_kvm_has_not_is_refused() {
    if !require_kvm() {
        return;
    }
    // No CPU has both this one of the Xeon Phi's and that one of AMD's first FMA.
    for name in ["avx512er", "fma4"] {
        let finished = run(minivmm(&format!("--cpu +{name} --demo hello")));
        if finished.code != 0 {
            finished.assert_code(4).assert_says(&format!("--cpu +{name}: the KVM of this host"));
            return;
        }
    }
    panic!("both are there");
}

#[test]
fn kvmclock_and_memory_types_work() {
    if !require_kvm() {
        return;
    }
    let image = image(&CLOCK);
    for irqchip in ["none", "kernel"] {
        let path = image.path().display();
        let finished = run(minivmm(&format!("-q --mode long --irqchip {irqchip} {path}")));
        let (code, bytes) = (finished.code, &finished.stdout);
        assert_eq!((code, bytes.len()), (0, 96), "{}", finished.stderr);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        if irqchip == "kernel" {
            assert_eq!((word(0) & 0xcff, word(8) & 1), (0x806, 1), "write-back, fast strings");
        }
        let readings = [16, 56].map(|at| {
            let version = word(at + 8) & 0xffff_ffff;
            assert!(version != 0 && version.is_multiple_of(2), "KVM has filled in the page");
            let scale = word(at + 32);
            let multiplier = scale & 0xffff_ffff;
            let [_, _, _, _, shift, ..] = scale.to_le_bytes();
            let ticks = u128::from(word(at) - word(at + 16));
            let ticks = match shift.cast_signed() {
                shift @ 0.. => ticks << shift,
                shift => ticks >> shift.unsigned_abs(),
            };
            u128::from(word(at + 24)) + ((ticks * u128::from(multiplier)) >> 32)
        });
        assert!(readings[0] < readings[1], "{readings:?}");
    }
}

#[test]
fn tables_are_in_memory_where_guests_look() {
    if !require_kvm() {
        return;
    }
    let image = image(&DUMP);
    for (at, irqchip, signature) in [
        (0xe_0000, "kernel", b"RSD PTR "),
        (0xf_0000, "kernel", b"_MP_\x10\0\x0f\0"),
        (0xe_0000, "none", &[0; 8]),
        (0xf_0000, "none", &[0; 8]),
    ] {
        let path = image.path().display();
        let registers = format!("--reg rsi={at} --reg rcx=8 --reg rdx=0x3f8");
        let line = format!("--mode long --irqchip {irqchip} {registers} {path}");
        run(minivmm(&line)).assert_code(0).assert_prints(signature);
    }
}

#[test]
fn a_vcpu_whose_id_has_more_than_8_bits_can_be_woken() {
    if !require_kvm() {
        return;
    }
    let image = image(&WAKE);
    // With gaps: 34 sockets of 5 cores, which take 8 ids each. The last vCPU is at 33 * 8 + 4.
    for (vcpus, topology, id) in [(4, "1:4:1", 3), (6, "2:3:1", 6), (170, "34:5:1", 268)] {
        let options = format!("--vcpus {vcpus} --topology {topology} --reg r12={id}");
        let path = image.path().display();
        let line = format!("-q --mode long --irqchip kernel --start bsp {options} {path}");
        run(minivmm(&line)).assert_code(0);
    }
}

#[test]
fn the_tscs_of_vcpus_are_compared_in_the_log() {
    if !require_kvm() {
        return;
    }
    let finished = run(minivmm("-vv --vcpus 2 --demo smp-hello")).assert_code(0);
    for vcpu in ["vCPU 0", "vCPU 1"] {
        let text = format!("{vcpu}: its TSC is ");
        assert!(finished.stderr.contains(&text), "{}", finished.stderr);
    }
}
