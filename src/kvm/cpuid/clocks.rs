//! CPUID's leaves about frequencies: of the TSC and of the local APICs' timers.

use std::num::NonZeroU32;

use kvm_bindings::kvm_cpuid_entry2;

use super::{find, is_amd, leaf};

/// What KVM's local APIC timers count, before they divide it: nanoseconds, unless userspace has
/// KVM count otherwise (KVM API document, KVM_CAP_X86_APIC_BUS_CYCLES_NS), which minivmm does not.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// Puts the frequencies into a table, those of Intel's own leaves only where the CPU has them.
pub(super) fn put(entries: &mut Vec<kvm_cpuid_entry2>, tsc_khz: NonZeroU32) {
    let tsc_khz = tsc_khz.get();
    if !is_amd(entries) {
        let max_leaf = find(entries, leaf::VENDOR).map_or(0, |entry| entry.eax);
        let common = gcd(tsc_khz, APIC_BUS_KHZ);
        // The TSC's ticks per tick of the crystal clock, as a fraction, and the crystal's
        // frequency in Hz. That clock is also what the local APICs' timers count, so it has to be
        // the bus (Intel SDM vol. 3, section 12.5.4).
        let tsc = [APIC_BUS_KHZ / common, tsc_khz / common, APIC_BUS_KHZ * 1000, 0];
        // In MHz: the base frequency, the highest, and the bus.
        let mhz = tsc_khz / 1000;
        let frequencies = [mhz, mhz, APIC_BUS_KHZ / 1000, 0];
        for (function, registers) in [(leaf::TSC, tsc), (leaf::FREQUENCIES, frequencies)] {
            if function <= max_leaf {
                set(entries, function, registers);
            }
        }
    }
    let hypervisor = entries.iter_mut().find(|entry| entry.function == leaf::HYPERVISOR);
    if let Some(hypervisor) = hypervisor {
        hypervisor.eax = hypervisor.eax.max(leaf::HYPERVISOR_CLOCKS);
        set(entries, leaf::HYPERVISOR_CLOCKS, [tsc_khz, APIC_BUS_KHZ, 0, 0]);
    }
}

/// Has the table say this in a leaf without subleaves.
fn set(entries: &mut Vec<kvm_cpuid_entry2>, function: u32, registers: [u32; 4]) {
    let [eax, ebx, ecx, edx] = registers;
    let entry = kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() };
    match entries.iter_mut().find(|entry| entry.function == function) {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
