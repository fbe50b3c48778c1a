//! The tables with which firmware describes a PC: ACPI's (`acpi.rs`, `madt.rs`, `dsdt.rs`) and
//! the older MP table (`mp.rs`).
//!
//! Only a machine with interrupt controllers has them. What they describe is the machine that
//! `kvm/` and `devices/` make: the addresses and interrupts that several of them must agree on are
//! here. Each file makes the bytes of its tables, pure data for a given address; [`Tables`] puts
//! them together and into guest memory, on the main thread, before any vCPU exists.

mod acpi;
mod dsdt;
mod madt;
mod mp;
#[cfg(test)]
mod tests;

use std::ops::Range;

use thiserror::Error;

use crate::config::{ComPort, Topology};
use crate::exit::Gpa;
use crate::memory::{GuestMemory, MemoryError, RSDP, RamLayout, TABLES};

/// Where every local APIC is until the guest moves it (Intel SDM vol. 3, section 12.4.1).
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Where the IOAPIC is, on every PC (82093AA datasheet, section 3.0).
pub const IOAPIC: u32 = 0xfec0_0000;
/// The IOAPIC's id: what its register reads as after reset. It is no id of a processor: since the
/// Pentium 4, IOAPICs and local APICs need no common numbers.
pub const IOAPIC_ID: u8 = 0;
/// The interrupt of ACPI's events (SCI), level-triggered and active high.
pub const SCI_IRQ: u8 = 9;
/// The pin of the IOAPIC to which the PIT is wired; its ISA interrupt is 0.
pub const PIT_PIN: u8 = 2;

/// The bus of ISA interrupts: the only one.
const ISA: u8 = 0;
/// Polarity and trigger mode of an interrupt, in the form that MADT and MP table share (ACPI 6.5,
/// section 5.2.12.5; MP specification 1.4, table 4-10): as on its bus, or what the SCI is.
const CONFORMS: u16 = 0;
const LEVEL_ACTIVE_HIGH: u16 = 0b1101;
/// The local APICs' pin for NMIs, LINT1.
const NMI_PIN: u8 = 1;

/// Where guests look for the MP floating pointer: from here to 1 MiB (MP specification 1.4,
/// chapter 4). ACPI's tables end here.
const MP_POINTER: Gpa = Gpa(0xf_0000);

/// The most vCPUs for which there is room: each takes up to 16 bytes in the MADT and 30 in the
/// DSDT.
pub const MAX_VCPUS: u32 = 1280;

/// Why a guest cannot have the tables.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TablesError {
    /// Too little memory.
    #[error(
        "a machine with interrupt controllers has tables at {:#x}-{:#x} that describe it, and \
         they are outside the {ram}",
        TABLES.start,
        TABLES.end - 1
    )]
    NoRam {
        /// The guest's RAM.
        ram: RamLayout,
    },
    /// They would be too long.
    #[error("the ACPI tables have room for at most {MAX_VCPUS} vCPUs, and --vcpus is {vcpus}")]
    TooManyVcpus {
        /// What was asked for.
        vcpus: u32,
    },
}

/// All tables of one machine, which are not in memory yet.
#[derive(Debug)]
pub struct Tables {
    acpi: Vec<u8>,
    mp: Vec<u8>,
}

impl Tables {
    /// The tables of a machine with these vCPUs, with these serial ports besides COM1, and this
    /// RAM.
    ///
    /// # Errors
    ///
    /// If there is no RAM for them, or too little.
    pub fn new(topology: Topology, ports: &[ComPort], ram: RamLayout) -> Result<Self, TablesError> {
        if !ram.contains(Gpa(TABLES.start), TABLES.end - TABLES.start) {
            return Err(TablesError::NoRam { ram });
        }
        let vcpus = topology.vcpus();
        if vcpus > MAX_VCPUS {
            return Err(TablesError::TooManyVcpus { vcpus });
        }
        Ok(Self { acpi: acpi::tables(RSDP, topology, ports), mp: mp::table(MP_POINTER, topology) })
    }

    /// Writes them to guest memory; gives the addresses.
    ///
    /// # Errors
    ///
    /// If guest memory is not what it was to be.
    pub fn write(&self, memory: &GuestMemory) -> Result<[Range<u64>; 2], MemoryError> {
        let write = |at: Gpa, bytes: &[u8]| {
            memory.write_slice(at, bytes)?;
            Ok(at.0..at.0 + bytes.len() as u64)
        };
        Ok([write(RSDP, &self.acpi)?, write(MP_POINTER, &self.mp)?])
    }
}

/// An address in the area, which is far below 4 GiB, as the older tables have it.
fn low_32(address: u64) -> u32 {
    let [a, b, c, d, ..] = address.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A port, which is never above 0xffff.
fn low_16(port: u64) -> u16 {
    let [a, b, ..] = port.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// What makes the sum of `bytes` and itself 0, which is how firmware tables are checked.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
