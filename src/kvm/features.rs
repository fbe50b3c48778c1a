//! Which features the CPU of a VM has: what the host's KVM supports, less what this VM has nothing
//! for, less what is left out unless it is asked for, and what the user takes away.
//!
//! Data in, data out. The names and places of features are in `config/cpu.rs`; whether the guest
//! really does not see what is taken away is for `cpuid_probe.rs` to find out.

use kvm_bindings::kvm_cpuid_entry2;
use thiserror::Error;

use crate::config::{CpuChanges, CpuFeature, CpuidBit, CpuidRegister};

/// Leaf 1, ECX: the local APIC's x2APIC mode and TSC-deadline timer. KVM can do them only in its
/// own local APIC (KVM API document, section 9.1).
const X2APIC: CpuidBit = bit(1, CpuidRegister::Ecx, 21);
const TSC_DEADLINE: CpuidBit = bit(1, CpuidRegister::Ecx, 24);

/// KVM's own features, EAX of this leaf (KVM's document of its CPUID bits).
const KVM_FEATURES: u32 = 0x4000_0001;

/// Those of KVM's that come by an interrupt, or end one: asynchronous page faults, in three parts,
/// and the end of interrupt without an exit.
const KVM_INTERRUPTS: [CpuidBit; 4] = [kvm(4), kvm(6), kvm(10), kvm(14)];

/// Those of KVM's that a guest uses by a hypercall: waking a vCPU that waits for a lock, sending
/// IPIs, yielding to another vCPU, and telling of pages and of migration.
///
/// They are left out unless asked for: where KVM works without hardware support (PVM) a VMCALL in
/// ring 0 never comes back, so that a guest that takes up the offer hangs. Elsewhere a guest does
/// without them as on a PC.
const KVM_HYPERCALLS: [CpuidBit; 5] = [kvm(7), kvm(11), kvm(13), kvm(16), kvm(17)];

const fn bit(leaf: u32, register: CpuidRegister, bit: u8) -> CpuidBit {
    CpuidBit { leaf, subleaf: 0, register, bit }
}

const fn kvm(number: u8) -> CpuidBit {
    bit(KVM_FEATURES, CpuidRegister::Eax, number)
}

/// A vCPU's local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalApic {
    /// It has none.
    None,
    /// It is in the kernel.
    Kernel {
        /// KVM_CAP_TSC_DEADLINE_TIMER; older kernels do not say it in their table.
        tsc_deadline: bool,
    },
}

/// Why a CPU cannot be as the user wants it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FeatureError {
    /// KVM does not support it.
    #[error("--cpu +{0}: the KVM of this host does not have that for its guests")]
    Unsupported(CpuFeature),
    /// It would be a feature of a local APIC, and there is none.
    #[error("--cpu +{0} takes a local APIC, which --irqchip none has not")]
    NeedsLocalApic(CpuFeature),
}

/// The table of a CPU with the features that it is to have.
///
/// # Errors
///
/// If one is to be added that it cannot have.
pub fn select(
    supported: &[kvm_cpuid_entry2],
    changes: &CpuChanges,
    local_apic: LocalApic,
) -> Result<Vec<kvm_cpuid_entry2>, FeatureError> {
    let mut entries = supported.to_vec();
    match local_apic {
        LocalApic::Kernel { tsc_deadline } => set(&mut entries, TSC_DEADLINE, tsc_deadline),
        LocalApic::None => {
            for bit in [X2APIC, TSC_DEADLINE].iter().chain(&KVM_INTERRUPTS) {
                set(&mut entries, *bit, false);
            }
        }
    }
    let is_in = |entries: &[_], feature: CpuFeature| feature.bits().any(|bit| has(entries, bit));
    if let Some(feature) = changes.added().find(|feature| !is_in(&entries, *feature)) {
        let is_apics = is_in(supported, feature) || feature.bits().any(|bit| bit == TSC_DEADLINE);
        return Err(match local_apic {
            LocalApic::None if is_apics => FeatureError::NeedsLocalApic(feature),
            _ => FeatureError::Unsupported(feature),
        });
    }
    let is_added = |bit| changes.added().any(|feature| feature.bits().any(|added| added == bit));
    for bit in KVM_HYPERCALLS {
        if !is_added(bit) {
            set(&mut entries, bit, false);
        }
    }
    for bit in changes.removed().flat_map(CpuFeature::bits) {
        set(&mut entries, bit, false);
    }
    Ok(entries)
}

/// Whether a table has this bit set.
pub fn has(entries: &[kvm_cpuid_entry2], bit: CpuidBit) -> bool {
    let entry = entries.iter().find(|entry| is_of(entry, bit));
    entry.is_some_and(|entry| match bit.register {
        CpuidRegister::Eax => entry.eax,
        CpuidRegister::Ebx => entry.ebx,
        CpuidRegister::Ecx => entry.ecx,
        CpuidRegister::Edx => entry.edx,
    } >> bit.bit & 1 != 0)
}

/// Sets or clears a bit, if there is a leaf to have it.
fn set(entries: &mut [kvm_cpuid_entry2], bit: CpuidBit, on: bool) {
    let Some(entry) = entries.iter_mut().find(|entry| is_of(entry, bit)) else { return };
    let register = match bit.register {
        CpuidRegister::Eax => &mut entry.eax,
        CpuidRegister::Ebx => &mut entry.ebx,
        CpuidRegister::Ecx => &mut entry.ecx,
        CpuidRegister::Edx => &mut entry.edx,
    };
    let mask = 1 << bit.bit;
    *register = if on { *register | mask } else { *register & !mask };
}

fn is_of(entry: &kvm_cpuid_entry2, bit: CpuidBit) -> bool {
    (entry.function, entry.index) == (bit.leaf, bit.subleaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: LocalApic = LocalApic::Kernel { tsc_deadline: true };

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
    }

    /// Everything but a TSC-deadline timer and `movbe`.
    fn supported() -> Vec<kvm_cpuid_entry2> {
        vec![
            entry(1, 0, [u32::MAX, u32::MAX, !(1 << 24 | 1 << 22), u32::MAX]),
            entry(7, 0, [u32::MAX; 4]),
            entry(7, 1, [u32::MAX; 4]),
            entry(KVM_FEATURES, 0, [u32::MAX; 4]),
        ]
    }

    fn selected(changes: &str, local_apic: LocalApic) -> Vec<[u32; 4]> {
        let changes =
            if changes.is_empty() { CpuChanges::default() } else { changes.parse().unwrap() };
        let entries = select(&supported(), &changes, local_apic).unwrap();
        entries.iter().map(|entry| [entry.eax, entry.ebx, entry.ecx, entry.edx]).collect()
    }

    fn all_but(bits: &[u32]) -> u32 {
        bits.iter().fold(u32::MAX, |register, bit| register & !(1 << bit))
    }

    #[test]
    fn what_needs_a_local_apic_is_there_only_with_one() {
        let none = selected("", LocalApic::None);
        assert_eq!(none[0], [u32::MAX, u32::MAX, all_but(&[21, 22, 24]), u32::MAX]);
        assert_eq!(none[3][0], all_but(&[4, 6, 7, 10, 11, 13, 14, 16, 17]));
        assert_eq!(none[1..3], [[u32::MAX; 4]; 2]);
        let kernel = selected("", KERNEL);
        assert_eq!(kernel[0][2], all_but(&[22]), "with the timer that KVM says elsewhere");
        assert_eq!(kernel[3], [all_but(&[7, 11, 13, 16, 17]), u32::MAX, u32::MAX, u32::MAX]);
        let without = selected("", LocalApic::Kernel { tsc_deadline: false });
        assert_eq!(without[0][2], all_but(&[22, 24]));
    }

    #[test]
    fn hypercalls_can_be_asked_for() {
        let kernel = selected("+kvm-pv-ipi,+kvm-pv-unhalt", KERNEL);
        assert_eq!(kernel[3][0], all_but(&[13, 16, 17]));
        assert_eq!(selected("+popcnt", KERNEL), selected("", KERNEL), "it is there anyway");
    }

    #[test]
    fn what_is_removed_is_gone_from_its_own_leaf() {
        let entries = selected("-popcnt,-avx_vnni,-kvmclock,-svm", KERNEL);
        assert_eq!(entries[0][2], all_but(&[22, 23]));
        assert_eq!((entries[1][0], entries[2][0]), (u32::MAX, all_but(&[4])), "the subleaf's");
        assert_eq!(entries[3][0], all_but(&[3, 7, 11, 13, 16, 17]));
    }

    #[test]
    fn what_cannot_be_added_is_an_error() {
        let error = |changes: &str, local_apic| {
            select(&supported(), &changes.parse().unwrap(), local_apic).unwrap_err().to_string()
        };
        for (feature, apic) in [("movbe", KERNEL), ("movbe", LocalApic::None), ("svm", KERNEL)] {
            let text = format!("--cpu +{feature}: the KVM of this host does not have that");
            assert!(error(&format!("+{feature}"), apic).starts_with(&text), "{feature}");
        }
        for feature in ["x2apic", "tsc_deadline_timer", "kvm-pv-eoi"] {
            assert_eq!(
                error(&format!("-popcnt,+{feature}"), LocalApic::None),
                format!("--cpu +{feature} takes a local APIC, which --irqchip none has not")
            );
        }
    }
}
