//! ACPI's MADT: the processors and interrupt controllers, and what of their wiring is not that of
//! an ISA bus (ACPI 6.5, section 5.2.12).

use super::{
    CONFORMS, IOAPIC, IOAPIC_ID, ISA, LEVEL_ACTIVE_HIGH, LOCAL_APIC, NMI_PIN, PIT_PIN, SCI_IRQ,
};
use crate::config::Topology;

/// The table's revision: that of ACPI 6.3 and 6.4. It must be 3 at least to have x2APICs.
pub(super) const REVISION: u8 = 5;

/// Types of entries (table 5.21).
mod kind {
    pub const LOCAL_APIC: u8 = 0;
    pub const IOAPIC: u8 = 1;
    pub const SOURCE_OVERRIDE: u8 = 2;
    pub const LOCAL_APIC_NMI: u8 = 4;
    pub const LOCAL_X2APIC: u8 = 9;
    pub const LOCAL_X2APIC_NMI: u8 = 0xa;
}

/// The machine also has two 8259s, which must be masked before the IOAPIC is used (table 5.20).
const PCAT_COMPAT: u32 = 1 << 0;
/// The processor is there and works (table 5.23).
const ENABLED: u32 = 1 << 0;

/// What follows the header: the local APICs' address, flags and the entries.
pub(super) fn body(topology: Topology) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    let mut has_x2apic = false;
    // A processor's UID, its number in the DSDT, is the index of its vCPU.
    for (vcpu, apic_id) in topology.apic_ids() {
        // An index is never above its id.
        if let (Ok(uid), Some(id)) = (u8::try_from(vcpu.0), apic_id.xapic()) {
            entry(&mut body, kind::LOCAL_APIC, &[&[uid, id], &ENABLED.to_le_bytes()]);
        } else {
            has_x2apic = true;
            let [uid, id] = [vcpu.0, apic_id.0].map(u32::to_le_bytes);
            entry(&mut body, kind::LOCAL_X2APIC, &[&[0; 2], &id, &ENABLED.to_le_bytes(), &uid]);
        }
    }
    let first_gsi = 0_u32.to_le_bytes();
    entry(&mut body, kind::IOAPIC, &[&[IOAPIC_ID, 0], &IOAPIC.to_le_bytes(), &first_gsi]);
    for (irq, gsi, flags) in [(0, PIT_PIN, CONFORMS), (SCI_IRQ, SCI_IRQ, LEVEL_ACTIVE_HIGH)] {
        let gsi = u32::from(gsi).to_le_bytes();
        entry(&mut body, kind::SOURCE_OVERRIDE, &[&[ISA, irq], &gsi, &flags.to_le_bytes()]);
    }
    let conforms = CONFORMS.to_le_bytes();
    // A UID of all ones is every processor.
    entry(&mut body, kind::LOCAL_APIC_NMI, &[&[u8::MAX], &conforms, &[NMI_PIN]]);
    if has_x2apic {
        let all = u32::MAX.to_le_bytes();
        entry(&mut body, kind::LOCAL_X2APIC_NMI, &[&conforms, &all, &[NMI_PIN, 0, 0, 0]]);
    }
    body
}

/// An entry: its type, its length and its fields.
fn entry(body: &mut Vec<u8>, kind: u8, fields: &[&[u8]]) {
    let at = body.len();
    body.extend_from_slice(&[kind, 2]);
    for field in fields {
        body.extend_from_slice(field);
        body[at + 1] += u8::try_from(field.len()).unwrap_or(0);
    }
}
