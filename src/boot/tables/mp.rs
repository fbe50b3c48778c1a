//! The MP table: what guests read that are older than ACPI, or smaller (Intel MultiProcessor
//! Specification 1.4, chapter 4). It has those processors whose APIC id it has room for.

use super::{
    CONFORMS, IOAPIC, IOAPIC_ID, ISA, LEVEL_ACTIVE_HIGH, LOCAL_APIC, NMI_PIN, PIT_PIN, SCI_IRQ,
    checksum, low_32,
};
use crate::config::Topology;
use crate::exit::Gpa;

/// Version 1.4 of the specification.
const SPEC_REVISION: u8 = 4;
const POINTER_LEN: usize = 16;
const HEADER_LEN: usize = 44;

/// Types of entries (table 4-3).
mod kind {
    pub const PROCESSOR: u8 = 0;
    pub const BUS: u8 = 1;
    pub const IOAPIC: u8 = 2;
    pub const IO_INTERRUPT: u8 = 3;
    pub const LOCAL_INTERRUPT: u8 = 4;
}

/// The version registers of KVM's local APICs, and of the IOAPIC, be it KVM's or ours.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
/// A processor's flags: it is usable, and it is the one that boots (table 4-4).
const ENABLED: u8 = 1 << 0;
const BOOT: u8 = 1 << 1;
/// A processor's signature and features, which CPUID says exactly: of family 6, with an FPU, a
/// machine check exception, CMPXCHG8B and a local APIC (table 4-6).
const SIGNATURE: u32 = 6 << 8;
const FEATURES: u32 = 1 << 0 | 1 << 7 | 1 << 8 | 1 << 9;
/// The IOAPIC is usable (table 4-9).
const IOAPIC_ENABLED: u8 = 1;
/// Types of interrupts (table 4-11).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
const ISA_IRQS: u8 = 16;
/// The interrupt by which the second 8259 is behind the first; nothing else is at it.
const CASCADE: u8 = 2;
/// A local APIC id that is every one's.
const ALL: u8 = 0xff;

/// The floating pointer, to be at `at`, and the configuration table behind it.
pub(super) fn table(at: Gpa, topology: Topology) -> Vec<u8> {
    let mut bytes = floating_pointer(at.0 + POINTER_LEN as u64).to_vec();
    bytes.extend(configuration(topology));
    bytes
}

/// Section 4.1. The feature bytes are all 0: there is a configuration table, and no IMCR, so the
/// machine starts in virtual wire mode.
fn floating_pointer(table: u64) -> [u8; POINTER_LEN] {
    let mut pointer = [0; POINTER_LEN];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&low_32(table).to_le_bytes());
    // In units of 16 bytes.
    pointer[8] = 1;
    pointer[9] = SPEC_REVISION;
    pointer[10] = checksum(&pointer);
    pointer
}

/// Sections 4.2 and 4.3.
fn configuration(topology: Topology) -> Vec<u8> {
    let mut entries = Entries::default();
    for (vcpu, apic_id) in topology.apic_ids() {
        if let Some(id) = apic_id.xapic() {
            let flags = if vcpu.0 == 0 { ENABLED | BOOT } else { ENABLED };
            let [signature, features] = [SIGNATURE, FEATURES].map(u32::to_le_bytes);
            let fields = [&[id, LOCAL_APIC_VERSION, flags][..], &signature, &features, &[0; 8]];
            entries.add(kind::PROCESSOR, &fields);
        }
    }
    entries.add(kind::BUS, &[&[ISA], b"ISA   "]);
    let ioapic = [IOAPIC_ID, IOAPIC_VERSION, IOAPIC_ENABLED];
    entries.add(kind::IOAPIC, &[&ioapic, &IOAPIC.to_le_bytes()]);
    for irq in (0..ISA_IRQS).filter(|irq| *irq != CASCADE) {
        let flags = if irq == SCI_IRQ { LEVEL_ACTIVE_HIGH } else { CONFORMS };
        let pin = if irq == 0 { PIT_PIN } else { irq };
        entries.interrupt(kind::IO_INTERRUPT, INT, flags, irq, [IOAPIC_ID, pin]);
    }
    // The 8259s are wired to the boot vCPU alone, whose id is always 0.
    entries.interrupt(kind::LOCAL_INTERRUPT, EXT_INT, CONFORMS, 0, [0, 0]);
    entries.interrupt(kind::LOCAL_INTERRUPT, NMI, CONFORMS, 0, [ALL, NMI_PIN]);
    entries.into_table()
}

#[derive(Default)]
struct Entries {
    count: u16,
    bytes: Vec<u8>,
}

impl Entries {
    fn add(&mut self, kind: u8, fields: &[&[u8]]) {
        self.count += 1;
        self.bytes.push(kind);
        self.bytes.extend(fields.iter().copied().flatten());
    }

    /// What comes from `irq` of the bus goes to a pin of an APIC (sections 4.3.4 and 4.3.5).
    fn interrupt(&mut self, kind: u8, interrupt: u8, flags: u16, irq: u8, to: [u8; 2]) {
        self.add(kind, &[&[interrupt], &flags.to_le_bytes(), &[ISA, irq], &to]);
    }

    /// The entries with the header of the table in front.
    fn into_table(self) -> Vec<u8> {
        let len = HEADER_LEN + self.bytes.len();
        let mut table = Vec::with_capacity(len);
        table.extend_from_slice(b"PCMP");
        // At most 255 processors of 20 bytes and a few entries more.
        table.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
        table.extend_from_slice(&[SPEC_REVISION, 0]);
        table.extend_from_slice(b"MINIVMM ");
        table.extend_from_slice(b"MINIVMM PC  ");
        // There is no table of the maker's.
        table.extend_from_slice(&[0; 6]);
        table.extend_from_slice(&self.count.to_le_bytes());
        table.extend_from_slice(&LOCAL_APIC.to_le_bytes());
        // No extended entries.
        table.extend_from_slice(&[0; 4]);
        table.extend_from_slice(&self.bytes);
        table[7] = checksum(&table);
        table
    }
}
