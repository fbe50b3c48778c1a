//! ACPI's DSDT: the processors and devices that no other table describes, and how to power the
//! machine off, as AML (ACPI 6.5, chapters 6, 7 and 19).

use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Name, Package, ResourceTemplate, ZERO};

use super::{PIT_PIN, low_16};
use crate::config::{ComPort, Topology};
use crate::devices::i8042::KEYBOARD_IRQ;
use crate::devices::rtc::RTC_IRQ;
use crate::devices::{COM1_BASE, COM1_IRQ, com_place};

/// Integers have 64 bits since revision 2.
pub(super) const REVISION: u8 = 2;

/// A serial port's Plug and Play id, and its registers.
const UART: &str = "PNP0501";
const UART_LEN: u8 = 8;

/// A device on the ISA bus, the only one of its kind.
struct IsaDevice {
    name: &'static str,
    /// Its Plug and Play id.
    hid: &'static str,
    /// Its first ports, and how many.
    ports: &'static [(u16, u8)],
    /// Its interrupt (GSI), edge-triggered and active high.
    irq: Option<u32>,
}

/// What is always there besides the serial ports.
const DEVICES: [IsaDevice; 4] = [
    IsaDevice { name: "PIC_", hid: "PNP0000", ports: &[(0x20, 2), (0xa0, 2)], irq: None },
    IsaDevice { name: "PIT_", hid: "PNP0100", ports: &[(0x40, 4)], irq: Some(PIT_PIN as u32) },
    IsaDevice { name: "RTC_", hid: "PNP0B00", ports: &[(0x70, 2)], irq: Some(RTC_IRQ) },
    IsaDevice {
        name: "KBD_",
        hid: "PNP0303",
        ports: &[(0x60, 1), (0x64, 1)],
        irq: Some(KEYBOARD_IRQ),
    },
];

/// The definition block: `\_S5` and `\_SB`, with COM1 and these serial ports.
pub(super) fn body(topology: Topology, ports: &[ComPort]) -> Vec<u8> {
    let mut body = Vec::new();
    // The sleep types for PM1a_CNT and PM1b_CNT, which `devices/acpi_pm.rs` does not look at, and
    // two reserved elements (section 7.4.2.6).
    let soft_off = Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &soft_off).to_aml_bytes(&mut body);
    let mut system_bus = Vec::new();
    for (vcpu, _) in topology.apic_ids() {
        processor(vcpu.0, &mut system_bus);
    }
    for IsaDevice { name, hid, ports, irq } in &DEVICES {
        let irq = irq.map(|gsi| interrupt(gsi, false));
        isa_device((name, hid, 1), ports, irq, &mut system_bus);
    }
    let places: Vec<_> = ports.iter().map(|port| com_place(*port)).collect();
    let irqs = || places.iter().map(|(_, irq)| *irq).chain([COM1_IRQ]);
    let is_shared = |irq| irqs().filter(|other| *other == irq).count() > 1;
    let mut serial_port = |name, uid, (base, irq)| {
        let interrupt = interrupt(irq, is_shared(irq));
        let ports = [(low_16(base), UART_LEN)];
        isa_device((name, UART, uid), &ports, Some(interrupt), &mut system_bus);
    };
    serial_port("COM1", 1, (COM1_BASE, COM1_IRQ));
    for (port, place) in ports.iter().zip(&places) {
        let (name, uid) = match port {
            ComPort::Com2 => ("COM2", 2),
            ComPort::Com3 => ("COM3", 3),
            ComPort::Com4 => ("COM4", 4),
        };
        serial_port(name, uid, *place);
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

/// An interrupt line of the ISA bus.
fn interrupt(gsi: u32, shared: bool) -> Interrupt {
    Interrupt::new(true, true, false, shared, gsi)
}

/// A device by its name, its Plug and Play id and its number, with its ports and interrupt.
fn isa_device(
    (name, hid, uid): (&str, &str, u8),
    ports: &[(u16, u8)],
    irq: Option<Interrupt>,
    out: &mut Vec<u8>,
) {
    let ports: Vec<_> = ports.iter().map(|(first, len)| IO::new(*first, *first, 1, *len)).collect();
    let mut resources: Vec<&dyn Aml> = ports.iter().map(|ports| ports as &dyn Aml).collect();
    resources.extend(irq.as_ref().map(|irq| irq as &dyn Aml));
    let hid = Name::new("_HID".into(), &EISAName::new(hid));
    let unique = Name::new("_UID".into(), &uid);
    let current = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    Device::new(name.into(), vec![&hid, &unique, &current]).to_aml_bytes(out);
}
