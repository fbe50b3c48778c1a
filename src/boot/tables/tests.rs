//! The tables as a guest reads them: found by their signatures in guest memory, checked by their
//! sums, and taken apart by a small parser that shares nothing with what made them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{ApicId, MemorySize};
use crate::devices::acpi_pm;

/// Guest memory from 0xe0000 to 1 MiB.
struct Bios(Vec<u8>);

impl Bios {
    fn of(topology: &str) -> Self {
        Self::with_ports(topology, &[])
    }

    fn with_ports(topology: &str, ports: &[ComPort]) -> Self {
        let memory = GuestMemory::new(MemorySize::from_bytes(1 << 20).unwrap(), &[]).unwrap();
        let tables = Tables::new(topology.parse().unwrap(), ports, memory.layout()).unwrap();
        let written = tables.write(&memory).unwrap();
        let mut bytes = vec![0; 0x2_0000];
        memory.read_slice(Gpa(0xe_0000), &mut bytes).unwrap();
        // Nothing is outside of what was said to be written, and the two do not overlap.
        assert!(written[0].end <= written[1].start);
        for (address, byte) in (0xe_0000..).zip(&bytes) {
            let inside = written.iter().any(|range| range.contains(&address));
            assert!(inside || *byte == 0, "{address:#x}");
        }
        Self(bytes)
    }

    fn at(&self, address: u64, len: usize) -> &[u8] {
        let offset = usize::try_from(address - 0xe_0000).unwrap();
        &self.0[offset..offset + len]
    }

    /// The first address of `signature` at a multiple of 16.
    fn find(&self, signature: &[u8]) -> u64 {
        let mut found = (0xe_0000..0x10_0000).step_by(16);
        found.find(|at| self.at(*at, signature.len()) == signature).unwrap()
    }

    /// A table whose length is in its header.
    fn table(&self, address: u64, signature: &[u8; 4]) -> &[u8] {
        let table = self.at(address, usize::try_from(number(self.at(address + 4, 4))).unwrap());
        assert_eq!(&table[..4], signature);
        table
    }

    /// The addresses that the RSDT has, and those that the XSDT has.
    fn roots(&self) -> [Vec<u64>; 2] {
        let rsdp = self.at(self.find(b"RSD PTR "), 36);
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        assert_eq!((rsdp[15], number(&rsdp[20..24])), (2, 36));
        let entries = |at, signature, width: usize| {
            let table = self.table(number(at), signature);
            assert_eq!(sum(table), 0);
            table[36..].chunks(width).map(number).collect()
        };
        [entries(&rsdp[16..20], b"RSDT", 4), entries(&rsdp[24..32], b"XSDT", 8)]
    }

    /// A table by its signature, by way of the XSDT.
    fn acpi(&self, signature: &[u8; 4]) -> &[u8] {
        let [rsdt, xsdt] = self.roots();
        assert_eq!(rsdt, xsdt);
        let at = xsdt.into_iter().find(|at| self.at(*at, 4) == signature).unwrap();
        let table = self.table(at, signature);
        assert_eq!(sum(table), 0);
        assert_eq!(&table[10..16], b"MINIVM");
        table
    }

    /// The entries of the MADT: type and body.
    fn madt(&self) -> Vec<(u8, Vec<u8>)> {
        let mut left = &self.acpi(b"APIC")[44..];
        let mut entries = Vec::new();
        while let [kind, len, ..] = *left {
            entries.push((kind, left[2..usize::from(len)].to_vec()));
            left = &left[usize::from(len)..];
        }
        entries
    }

    /// The header of the MP configuration table, and the entries, type first.
    fn mp(&self) -> (&[u8], Vec<Vec<u8>>) {
        let pointer = self.at(self.find(b"_MP_"), 16);
        assert_eq!((pointer[8], pointer[9], sum(pointer)), (1, 4, 0));
        assert_eq!(&pointer[11..], [0; 5]);
        let at = number(&pointer[4..8]);
        let table = self.at(at, usize::try_from(number(self.at(at + 4, 2))).unwrap());
        assert_eq!((&table[..4], table[6], sum(table)), (&b"PCMP"[..], 4, 0));
        let (header, mut left) = table.split_at(44);
        let mut entries = Vec::new();
        while !left.is_empty() {
            let (entry, rest) = left.split_at(if left[0] == 0 { 20 } else { 8 });
            entries.push(entry.to_vec());
            left = rest;
        }
        assert_eq!(number(&header[34..36]), entries.len() as u64);
        (header, entries)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[test]
fn the_root_is_where_guests_look_and_has_two_tables() {
    let bios = Bios::of("1:2:1");
    assert_eq!(bios.find(b"RSD PTR "), 0xe_0000);
    assert_eq!(bios.find(b"_MP_"), 0xf_0000);
    assert_eq!(bios.roots().map(|entries| entries.len()), [2, 2]);
}

#[test]
fn the_fadt_has_the_fixed_hardware() {
    let bios = Bios::of("1:1:1");
    let fadt = bios.acpi(b"FACP");
    let field = |at: usize, len: usize| number(&fadt[at..at + len]);
    assert_eq!(u32::from(SCI_IRQ), acpi_pm::SCI);
    assert_eq!((fadt.len(), fadt[8], fadt[131]), (276, 6, 5), "ACPI 6.5's");
    // SCI, SMI_CMD and what would be written there.
    assert_eq!([field(46, 2), field(48, 4), field(52, 4)], [9, 0, 0]);
    // PM1a_EVT, PM1b_EVT, PM1a_CNT, PM1b_CNT, PM2_CNT, PM_TMR, GPE0, GPE1, and the lengths.
    let blocks = [56, 60, 64, 68, 72, 76, 80, 84].map(|at| field(at, 4));
    assert_eq!(blocks, [0x600, 0, 0x604, 0, 0, 0x608, 0, 0]);
    assert_eq!(fadt[88..95], [4, 2, 0, 4, 0, 0, 0]);
    assert!(field(96, 2) > 100 && field(98, 2) > 1000, "no C2, no C3");
    assert_eq!((field(108, 1), field(109, 2)), (0x32, 0b111), "century, boot flags");
    // WBINVD, PROC_C1, PWR_BUTTON, SLP_BUTTON, FIX_RTC, TMR_VAL_EXT, RESET_REG_SUP, HEADLESS.
    let flags = [0, 2, 4, 5, 6, 8, 10, 12].map(|bit| 1 << bit).iter().sum::<u64>();
    assert_eq!(field(112, 4), flags);
    // Each is an address space, width, offset, access size and address.
    let register = |at: usize| (fadt[at..at + 4].to_vec(), field(at + 4, 8));
    assert_eq!(register(116), (vec![1, 8, 0, 1], 0xcf9));
    assert_eq!(fadt[128], 6);
    assert_eq!(register(148), (vec![1, 32, 0, 2], 0x600));
    assert_eq!(register(172), (vec![1, 16, 0, 2], 0x604));
    assert_eq!(register(208), (vec![1, 32, 0, 3], 0x608));
    for absent in [160, 184, 196, 220, 232, 244, 256] {
        assert_eq!(register(absent), (vec![0; 4], 0), "{absent}");
    }
    let facs = field(36, 4);
    assert!(facs.is_multiple_of(64) && field(132, 8) == 0, "one of two pointers");
    let facs = bios.table(facs, b"FACS");
    assert_eq!((facs.len(), facs[32]), (64, 1));
    assert!(facs[8..32].iter().all(|byte| *byte == 0));
    assert_eq!(field(40, 4), field(140, 8), "the same DSDT");
}

/// Reads the AML of `\_SB`: names of devices, with their names and raw values.
fn devices(bios: &Bios) -> BTreeMap<String, Vec<u8>> {
    let dsdt = bios.table(number(&bios.acpi(b"FACP")[40..44]), b"DSDT");
    assert_eq!((sum(dsdt), dsdt[8]), (0, 2));
    // Name (_S5, Package (4) {0, 0, 0, 0})
    let (soft_off, scope) = dsdt[36..].split_at(12);
    assert_eq!(soft_off, b"\x08_S5_\x12\x06\x04\0\0\0\0");
    // Scope (\_SB)
    assert_eq!(scope[0], 0x10);
    let (mut left, rest) = package(&scope[1..]);
    assert!(rest.is_empty());
    left = left.strip_prefix(b"\\_SB_").unwrap();
    let mut devices = BTreeMap::new();
    while let Some(device) = left.strip_prefix(b"\x5b\x82") {
        let (body, rest) = package(device);
        let name = String::from_utf8(body[..4].to_vec()).unwrap();
        assert!(devices.insert(name, body[4..].to_vec()).is_none());
        left = rest;
    }
    assert!(left.is_empty());
    devices
}

/// Cuts what a package length (ACPI 6.5, section 20.2.4) counts off from the rest.
fn package(bytes: &[u8]) -> (&[u8], &[u8]) {
    let more = usize::from(bytes[0] >> 6);
    let len = match more {
        0 => u64::from(bytes[0] & 0x3f),
        _ => u64::from(bytes[0] & 0xf) | number(&bytes[1..=more]) << 4,
    };
    let (package, rest) = bytes.split_at(usize::try_from(len).unwrap());
    (&package[1 + more..], rest)
}

#[test]
fn the_dsdt_has_com1_and_other_devices_of_a_pc() {
    let devices = devices(&Bios::of("1:1:1"));
    assert_eq!(
        devices.keys().collect::<Vec<_>>(),
        ["C000", "COM1", "KBD_", "PIC_", "PIT_", "RTC_"]
    );
    let com1 = &devices["COM1"];
    // Name (_HID, EisaId ("PNP0501")), Name (_UID, 1), Name (_CRS, Buffer
    let com1 = com1.strip_prefix(b"\x08_HID\x0c\x41\xd0\x05\x01\x08_UID\x01\x08_CRS\x11").unwrap();
    let (buffer, rest) = package(com1);
    assert!(rest.is_empty());
    // The buffer's length, IO (Decode16, 0x3f8, 0x3f8, 1, 8), and Interrupt (ResourceConsumer,
    // Edge, ActiveHigh, Exclusive) {4}, the end.
    let resources =
        b"\x0a\x13\x47\x01\xf8\x03\xf8\x03\x01\x08\x89\x06\x00\x03\x01\x04\x00\x00\x00\x79\x00";
    assert_eq!(buffer, resources);
    let has = |device: &str, bytes: &[u8]| {
        devices[device].windows(bytes.len()).any(|window| window == bytes)
    };
    assert!(has("PIC_", b"\x47\x01\x20\x00\x20\x00\x01\x02\x47\x01\xa0\x00\xa0\x00\x01\x02"));
    assert!(has("PIT_", b"\x47\x01\x40\x00\x40\x00\x01\x04\x89\x06\x00\x03\x01\x02\0\0\0"));
    assert!(has("RTC_", b"\x0c\x41\xd0\x0b\x00"));
    assert!(has("RTC_", b"\x47\x01\x70\x00\x70\x00\x01\x02\x89\x06\x00\x03\x01\x08\0\0\0"));
    assert!(has("KBD_", b"\x0c\x41\xd0\x03\x03"));
    assert!(has("KBD_", b"\x47\x01\x60\x00\x60\x00\x01\x01\x47\x01\x64\x00\x64\x00\x01\x01"));
    assert!(has("KBD_", b"\x89\x06\x00\x03\x01\x01\0\0\0"));
}

#[test]
fn serial_ports_are_listed_if_they_are_there() {
    use ComPort::{Com2, Com3, Com4};
    let with = |ports: &[ComPort]| devices(&Bios::with_ports("1:1:1", ports));
    let devices = with(&[Com2, Com4]);
    let com: Vec<_> = devices.keys().filter(|name| name.starts_with("COM")).collect();
    assert_eq!(com, ["COM1", "COM2", "COM4"]);
    const EXCLUSIVE: u8 = 3;
    const SHARED: u8 = 0xb;
    let has = |devices: &BTreeMap<_, Vec<u8>>, device: &str, uid, base: u16, irq: [u8; 2]| {
        let [irq, flags] = irq;
        let [low, high] = base.to_le_bytes();
        let [id, crs] = [
            &[0x08, b'_', b'U', b'I', b'D', 0x0a, uid][..],
            &[0x47, 1, low, high, low, high, 1, 8, 0x89, 6, 0, flags, 1, irq, 0, 0, 0],
        ];
        [id, crs].iter().all(|part| devices[device].windows(part.len()).any(|at| at == *part))
    };
    assert!(has(&devices, "COM2", 2, 0x2f8, [3, SHARED]));
    assert!(has(&devices, "COM4", 4, 0x2e8, [3, SHARED]));
    let devices = with(&[Com2, Com3]);
    assert!(has(&devices, "COM2", 2, 0x2f8, [3, EXCLUSIVE]));
    assert!(has(&devices, "COM3", 3, 0x3e8, [4, SHARED]));
}

/// What the MADT and the DSDT say of the processors: UID and APIC id of each.
fn processors(bios: &Bios) -> Vec<(u64, u64)> {
    let uids: Vec<u64> = devices(bios)
        .into_iter()
        .filter(|(name, _)| name.starts_with('C') && name != "COM1")
        .map(|(name, body)| {
            let uid = body.strip_prefix(b"\x08_HID\x0dACPI0007\0\x08_UID").unwrap();
            let uid = match *uid {
                [uid @ (0 | 1)] | [0x0a, uid] => uid.into(),
                [0x0b, ..] => number(&uid[1..]),
                _ => panic!("{uid:x?}"),
            };
            assert_eq!(name, format!("C{uid:03X}"));
            uid
        })
        .collect();
    let in_madt: Vec<_> = bios
        .madt()
        .iter()
        .filter_map(|(kind, body)| match kind {
            0 => {
                assert_eq!((body.len(), number(&body[2..])), (6, 1));
                Some((u64::from(body[0]), u64::from(body[1])))
            }
            9 => {
                assert_eq!((body.len(), number(&body[..2]), number(&body[6..10])), (14, 0, 1));
                Some((number(&body[10..]), number(&body[2..6])))
            }
            _ => None,
        })
        .collect();
    assert_eq!(in_madt.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), uids);
    in_madt
}

#[test]
fn the_madt_has_the_interrupt_controllers() {
    let bios = Bios::of("1:2:1");
    let madt = bios.acpi(b"APIC");
    assert_eq!((number(&madt[36..40]), number(&madt[40..44]), madt[8]), (0xfee0_0000, 1, 5));
    let others: Vec<_> = bios.madt().into_iter().filter(|(kind, _)| *kind != 0).collect();
    let expected: [(u8, &[u8]); 4] = [
        (1, b"\0\0\0\0\xc0\xfe\0\0\0\0"),
        (2, b"\0\0\x02\0\0\0\0\0"),
        (2, b"\0\x09\x09\0\0\0\x0d\0"),
        (4, b"\xff\0\0\x01"),
    ];
    assert_eq!(others, expected.map(|(kind, body)| (kind, body.to_vec())));
}

#[test]
fn from_id_255_on_processors_have_an_x2apic() {
    let count = |topology, wanted: u8| {
        let madt = Bios::of(topology).madt();
        madt.iter().filter(|(kind, _)| *kind == wanted).count()
    };
    assert_eq!((count("1:255:1", 0), count("1:255:1", 9), count("1:255:1", 0xa)), (255, 0, 0));
    assert_eq!((count("1:256:1", 0), count("1:256:1", 9), count("1:256:1", 0xa)), (255, 1, 1));
    assert_eq!((count("1:1:1280", 0), count("1:1:1280", 9)), (255, 1025));
    // With gaps the ids end sooner: 65 sockets of 3 cores take 4 ids each.
    assert_eq!((count("65:3:1", 0), count("65:3:1", 9)), (192, 3));
}

#[test]
fn the_mp_table_has_the_wiring_of_an_isa_pc() {
    let bios = Bios::of("2:3:1");
    let (header, entries) = bios.mp();
    assert_eq!(&header[8..28], b"MINIVMM MINIVMM PC  ");
    assert_eq!(number(&header[28..34]), 0);
    assert_eq!((number(&header[36..40]), number(&header[40..])), (0xfee0_0000, 0));
    let of_kind = |kind: u8| entries.iter().filter(move |entry| entry[0] == kind);
    let processors: Vec<_> = of_kind(0).map(|entry| (entry[1], entry[3])).collect();
    assert_eq!(processors, [(0, 3), (1, 1), (2, 1), (4, 1), (5, 1), (6, 1)]);
    for entry in of_kind(0) {
        assert_eq!((entry[2], &entry[4..12]), (0x14, &[0, 6, 0, 0, 0x81, 3, 0, 0][..]));
        assert_eq!(entry[12..], [0; 8]);
    }
    assert_eq!(of_kind(1).collect::<Vec<_>>(), [b"\x01\0ISA   "]);
    assert_eq!(of_kind(2).collect::<Vec<_>>(), [b"\x02\0\x11\x01\0\0\xc0\xfe"]);
    let pins: Vec<_> = of_kind(3)
        .map(|entry| {
            assert_eq!((entry[1], entry[4], entry[6]), (0, 0, 0), "INT, ISA, the IOAPIC");
            (entry[5], entry[7], number(&entry[2..4]))
        })
        .collect();
    let expected: Vec<_> = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
        .map(|irq| (irq, if irq == 0 { 2 } else { irq }, if irq == 9 { 0xd } else { 0 }))
        .to_vec();
    assert_eq!(pins, expected);
    let local: Vec<_> = of_kind(4).collect();
    assert_eq!(local, [b"\x04\x03\0\0\0\0\0\0", b"\x04\x01\0\0\0\0\xff\x01"]);
}

#[test]
fn tables_need_memory_and_have_room_for_some_vcpus() {
    let layout = |bytes| RamLayout::new(MemorySize::from_bytes(bytes).unwrap());
    let error = |topology: &str, bytes| {
        Tables::new(topology.parse().unwrap(), &[], layout(bytes)).unwrap_err().to_string()
    };
    assert_eq!(
        error("1:1:1", 0xf_d000),
        "a machine with interrupt controllers has tables at 0xe0000-0xfdfff that describe it, and \
         they are outside the 1012 KiB of memory (0x0-0xfcfff)"
    );
    assert_eq!(
        error("1:1281:1", 1 << 20),
        "the ACPI tables have room for at most 1280 vCPUs, and --vcpus is 1281"
    );
}

proptest! {
    #[test]
    fn every_processor_has_its_apic_id_in_both_tables(
        sockets in 1..6_u32, cores in 1..40_u32, threads in 1..5_u32,
    ) {
        let text = format!("{sockets}:{cores}:{threads}");
        let topology: Topology = text.parse().unwrap();
        let bios = Bios::of(&text);
        let expected: Vec<_> = topology
            .apic_ids()
            .map(|(vcpu, ApicId(id))| (u64::from(vcpu.0), u64::from(id)))
            .collect();
        prop_assert_eq!(processors(&bios), &expected[..]);
        let (_, entries) = bios.mp();
        let in_mp: Vec<_> =
            entries.iter().filter(|entry| entry[0] == 0).map(|entry| u64::from(entry[1])).collect();
        let small: Vec<_> = expected.iter().map(|(_, id)| *id).filter(|id| *id < 255).collect();
        prop_assert_eq!(in_mp, small);
    }
}
