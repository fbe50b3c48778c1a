//! ACPI's DSDT: the processors and devices that no other table describes, and how to power the
//! machine off, as AML (ACPI 6.5, chapters 6, 7 and 19).

use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Name, Package, ResourceTemplate, ZERO};

use crate::config::Topology;

/// Integers have 64 bits since revision 2.
pub(super) const REVISION: u8 = 2;

/// A device on the ISA bus.
struct IsaDevice {
    name: &'static str,
    /// Its Plug and Play id.
    hid: &'static str,
    /// Its first ports, and how many.
    ports: &'static [(u16, u8)],
    /// Its interrupt, edge-triggered and active high.
    irq: Option<u8>,
}

/// What is there. The keyboard controller, which the FADT tells of, has no keyboard to be listed.
const DEVICES: [IsaDevice; 4] = [
    IsaDevice { name: "PIC_", hid: "PNP0000", ports: &[(0x20, 2), (0xa0, 2)], irq: None },
    IsaDevice { name: "PIT_", hid: "PNP0100", ports: &[(0x40, 4)], irq: Some(0) },
    IsaDevice { name: "RTC_", hid: "PNP0B00", ports: &[(0x70, 2)], irq: None },
    IsaDevice { name: "COM1", hid: "PNP0501", ports: &[(0x3f8, 8)], irq: Some(4) },
];

/// The definition block: `\_S5` and `\_SB`.
pub(super) fn body(topology: Topology) -> Vec<u8> {
    let mut body = Vec::new();
    // The sleep types for PM1a_CNT and PM1b_CNT, which `devices/power.rs` does not look at, and
    // two reserved elements (section 7.4.2.6).
    let soft_off = Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &soft_off).to_aml_bytes(&mut body);
    let mut system_bus = Vec::new();
    for (vcpu, _) in topology.apic_ids() {
        processor(vcpu.0, &mut system_bus);
    }
    for device in &DEVICES {
        isa_device(device, &mut system_bus);
    }
    body.extend(acpi_tables::aml::Scope::raw("\\_SB_".into(), system_bus));
    body
}

/// A processor (section 8.4), whose UID is that in the MADT. Their names have room for 4,096,
/// many more than the area has.
fn processor(uid: u32, out: &mut Vec<u8>) {
    let hid = Name::new("_HID".into(), &"ACPI0007");
    let unique = Name::new("_UID".into(), &uid);
    let name = format!("C{uid:03X}");
    Device::new(name.as_str().into(), vec![&hid, &unique]).to_aml_bytes(out);
}

fn isa_device(device: &IsaDevice, out: &mut Vec<u8>) {
    let ports: Vec<_> =
        device.ports.iter().map(|(first, len)| IO::new(*first, *first, 1, *len)).collect();
    let irq = device.irq.map(|irq| Interrupt::new(true, true, false, false, irq.into()));
    let mut resources: Vec<&dyn Aml> = ports.iter().map(|ports| ports as &dyn Aml).collect();
    resources.extend(irq.as_ref().map(|irq| irq as &dyn Aml));
    let hid = Name::new("_HID".into(), &EISAName::new(device.hid));
    let unique = Name::new("_UID".into(), &1_u8);
    let current = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    Device::new(device.name.into(), vec![&hid, &unique, &current]).to_aml_bytes(out);
}
