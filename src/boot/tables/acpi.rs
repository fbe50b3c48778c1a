//! ACPI's tables, but for what is in the MADT and the DSDT: the pointers to them (RSDP, RSDT and
//! XSDT), the fixed hardware (FADT) and the FACS (ACPI 6.5, chapter 5).
//!
//! The crate `acpi_tables` knows the FADT and the header of a table; the RSDP is made here, for
//! that of the crate has no place for an RSDT, which guests of ACPI 1.0's age look for.

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;

use super::{SCI_IRQ, checksum, dsdt, low_32, madt};
use crate::config::{ComPort, Topology};
use crate::devices::acpi_pm::{PM_TIMER, PM1A_CNT, PM1A_EVT};
use crate::exit::Gpa;

const OEM_ID: [u8; 6] = *b"MINIVM";
const OEM_TABLE_ID: [u8; 8] = *b"MINIVMM ";
const OEM_REVISION: u32 = 1;
/// The length of a table's header (section 5.2.6).
const HEADER_LEN: u32 = 36;

/// The length of the RSDP since revision 2, and of the part before it (section 5.2.5.3).
const RSDP_LEN: usize = 36;
const RSDP_V1_LEN: usize = 20;
/// The FACS is at a multiple of this (section 5.2.10); the others are where it suits.
const FACS_ALIGN: usize = 64;
const ALIGN: usize = 16;

/// The lengths of PM1a's blocks (section 4.8.3) and of the timer, in bytes.
const PM1_EVT_LEN: u8 = 4;
const PM1_CNT_LEN: u8 = 2;
const PM_TMR_LEN: u8 = 4;
/// The reset control register, and the value that resets (section 4.8.3.6).
const RESET_REG: u16 = 0xcf9;
const RESET_VALUE: u8 = 6;
/// Latencies that say that there is no C2 and no C3 (table 5.9).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;
/// The RTC's register of the century.
const RTC_CENTURY: u8 = 0x32;
/// IAPC_BOOT_ARCH: there are devices on the ISA bus and a keyboard controller, and there is no VGA
/// (table 5.11).
const LEGACY_DEVICES: u16 = 1 << 0;
const KEYBOARD_CONTROLLER: u16 = 1 << 1;
const NO_VGA: u16 = 1 << 2;
/// What the hypervisor is called (section 5.2.9), eight characters.
const HYPERVISOR: [u8; 8] = *b"minivmm\0";

/// All ACPI tables, to be at `rsdp`, with the RSDP first.
pub(super) fn tables(rsdp: Gpa, topology: Topology, ports: &[ComPort]) -> Vec<u8> {
    let mut area = Area { start: rsdp.0, bytes: vec![0; RSDP_LEN] };
    let facs = area.put(FACS_ALIGN, &bytes_of(&FACS::new()));
    let dsdt = area.put(ALIGN, &table(*b"DSDT", dsdt::REVISION, &dsdt::body(topology, ports)));
    let fadt = area.put(ALIGN, &bytes_of(&fadt(facs, dsdt).finalize()));
    let madt = area.put(ALIGN, &table(*b"APIC", madt::REVISION, &madt::body(topology)));
    let entries = [fadt, madt];
    let short: Vec<u8> = entries.iter().flat_map(|entry| low_32(*entry).to_le_bytes()).collect();
    let rsdt = area.put(ALIGN, &table(*b"RSDT", 1, &short));
    let long: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let xsdt = area.put(ALIGN, &table(*b"XSDT", 1, &long));
    area.bytes[..RSDP_LEN].copy_from_slice(&root_pointer(rsdt, xsdt));
    area.bytes
}

/// Tables side by side.
struct Area {
    start: u64,
    bytes: Vec<u8>,
}

impl Area {
    /// Puts a table behind the others, at a multiple of `align`; gives its address.
    fn put(&mut self, align: usize, table: &[u8]) -> u64 {
        let offset = self.bytes.len().next_multiple_of(align);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        self.start + offset as u64
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// A table: the header, with length and checksum, and what follows it.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut sdt = Sdt::new(signature, HEADER_LEN, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

/// The root system description pointer (section 5.2.5.3).
fn root_pointer(rsdt: u64, xsdt: u64) -> [u8; RSDP_LEN] {
    const REVISION: u8 = 2;
    let mut rsdp = [0; RSDP_LEN];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(&OEM_ID);
    rsdp[15] = REVISION;
    rsdp[16..20].copy_from_slice(&low_32(rsdt).to_le_bytes());
    rsdp[20..24].copy_from_slice(&low_32(RSDP_LEN as u64).to_le_bytes());
    rsdp[24..32].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp[..RSDP_V1_LEN]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

/// The fixed hardware (section 5.2.9). There is no SMI command port, so ACPI is always on.
fn fadt(facs: u64, dsdt: u64) -> FADTBuilder {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        // WBINVD works as in the manual.
        .flag(Flags::Wbinvd)
        // Every vCPU has C1: HLT.
        .flag(Flags::ProcC1)
        // There are no such buttons among the fixed hardware.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        // Nor does the RTC's alarm wake the machine.
        .flag(Flags::FixRtc)
        // The PM timer has 32 bits.
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.firmware_ctrl = low_32(facs).into();
    fadt.dsdt = low_32(dsdt).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = u16::from(SCI_IRQ).into();
    fadt.pm1a_evt_blk = u32::from(PM1A_EVT).into();
    fadt.pm1a_cnt_blk = u32::from(PM1A_CNT).into();
    fadt.pm_tmr_blk = u32::from(PM_TIMER).into();
    fadt.pm1_evt_len = PM1_EVT_LEN;
    fadt.pm1_cnt_len = PM1_CNT_LEN;
    fadt.pm_tmr_len = PM_TMR_LEN;
    fadt.x_pm1a_evt_blk = port(PM1A_EVT, PM1_EVT_LEN, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = port(PM1A_CNT, PM1_CNT_LEN, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = port(PM_TIMER, PM_TMR_LEN, AccessSize::DwordAccess);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | KEYBOARD_CONTROLLER | NO_VGA).into();
    fadt.reset_reg = port(RESET_REG, 1, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(HYPERVISOR).into();
    fadt
}

/// The address of registers at an I/O port, of so many bytes.
fn port(port: u16, len: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, len * 8, 0, access, port.into())
}
