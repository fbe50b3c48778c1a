//! Guest memory: where it lies in the guest's physical address space, and the host memory
//! behind it.
//!
//! This is all of the guest-physical memory map: RAM, the 32-bit hole and the boot area in it.
//! What is written there is the business of `boot/`; telling KVM about the regions is that of
//! `kvm/vm.rs`, which must be done with them before a [`GuestMemory`] is dropped. Created on
//! the main thread; all threads may share it, and it is locked by nobody: the guest's vCPUs
//! write to it at any time, so the bytes are reached only by vm-memory's volatile copies.

pub mod first_image;

use std::fmt;
use std::fs::File;
use std::ops::Range;

use thiserror::Error;
use vm_memory::mmap::FromRangesError;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
};

use crate::config::MemorySize;
use crate::exit::Gpa;

/// The addresses without RAM below 4 GiB, where 32-bit code finds its devices, the local and
/// I/O APIC among them: 3 GiB to 4 GiB. RAM that does not fit below them goes on above.
pub const HOLE: Range<u64> = 0xc000_0000..0x1_0000_0000;

/// Where the boot area begins: memory outside the guest's RAM with what the entry state needs,
/// such as the GDT and page tables.
///
/// It is not in RAM so that a guest may use every byte of its RAM from the first instruction,
/// one page of RAM is enough in every mode, and no address that an image may be loaded at is
/// taken. It is in the 32-bit hole so that protected mode reaches it too.
pub const BOOT_AREA: Gpa = Gpa(0xf000_0000);

/// Where conventional memory ends on a PC whose BIOS has an extended BIOS data area (EBDA) of 1
/// KiB, which starts here. Nothing is in it, but guests expect that a PC has one.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;

/// Where extended memory begins. From [`CONVENTIONAL_END`] to here a PC has no memory for its
/// guest: the EBDA, video memory, ROMs.
pub const EXTENDED_START: u64 = 0x10_0000;

/// Where the tables that describe the machine lie, in what is the BIOS's part of a PC: those of
/// ACPI and the MP table.
pub const TABLES: Range<u64> = 0xe_0000..BIOS.start;

/// Where the BIOS is, for those images that call one: behind the tables, up to 1 MiB.
pub const BIOS: Range<u64> = 0xf_e000..EXTENDED_START;

/// Where the tables begin, with ACPI's root system description pointer.
pub const RSDP: Gpa = Gpa(TABLES.start);

/// Which guest-physical addresses are RAM, for one size of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamLayout {
    size: MemorySize,
}

impl RamLayout {
    /// The layout of so much memory.
    pub fn new(size: MemorySize) -> Self {
        Self { size }
    }

    /// The size of all RAM together.
    pub fn size(self) -> MemorySize {
        self.size
    }

    /// The RAM below the 32-bit hole; never empty.
    pub fn low(self) -> Range<u64> {
        0..self.size.bytes().min(HOLE.start)
    }

    /// The RAM above 4 GiB; empty when all of it fits below the hole.
    pub fn high(self) -> Range<u64> {
        HOLE.end..HOLE.end + (self.size.bytes() - self.low().end)
    }

    /// Whether `len` bytes at `gpa` all lie in the same stretch of RAM.
    pub fn contains(self, gpa: Gpa, len: u64) -> bool {
        let inside = |ram: Range<u64>| {
            ram.contains(&gpa.0) && gpa.0.checked_add(len).is_some_and(|end| end <= ram.end)
        };
        inside(self.low()) || inside(self.high())
    }
}

impl fmt::Display for RamLayout {
    /// The size and the addresses: `4 KiB of memory (0x0-0xfff)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of memory (0x0-{:#x}", self.size, self.low().end - 1)?;
        if !self.high().is_empty() {
            write!(f, " and {:#x}-{:#x}", self.high().start, self.high().end - 1)?;
        }
        f.write_str(")")
    }
}

/// Why guest memory could not be made or reached.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The host does not give us that much address space.
    #[error("cannot reserve {size} of guest memory")]
    Reserve {
        /// The size of RAM.
        size: MemorySize,
        /// What mmap(2) said.
        source: FromRangesError,
    },
    /// The address space of this process is smaller than the memory asked for.
    #[error("{size} of guest memory is more than this host can address")]
    TooLarge {
        /// The size of RAM.
        size: MemorySize,
    },
    /// An access to bytes that are not all guest memory.
    #[error("cannot access {len} bytes of guest memory at {gpa}")]
    Access {
        /// The first byte.
        gpa: Gpa,
        /// The length, in bytes.
        len: usize,
        /// What was wrong.
        source: GuestMemoryError,
    },
}

/// A stretch of guest-physical memory, as KVM_SET_USER_MEMORY_REGION takes it (KVM API 4.35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The first guest-physical address; a multiple of the page size.
    pub gpa: Gpa,
    /// The length in bytes; a multiple of the page size.
    pub len: u64,
    /// The address in this process of the memory behind it, valid as long as the
    /// [`GuestMemory`] lives.
    pub host_addr: u64,
}

/// The memory of a guest: RAM, and the boot area if the CPU mode needs one.
///
/// It is private, anonymous and unreserved memory: a page costs the host something once it is
/// touched and not before, so a guest may have more than the host.
#[derive(Debug)]
pub struct GuestMemory {
    layout: RamLayout,
    regions: GuestMemoryMmap,
}

impl GuestMemory {
    /// Makes zeroed RAM of this size and, unless `boot_area` is empty, a boot area with these
    /// bytes at [`BOOT_AREA`].
    ///
    /// # Errors
    ///
    /// If the host does not have the address space.
    pub fn new(size: MemorySize, boot_area: &[u8]) -> Result<Self, MemoryError> {
        let layout = RamLayout::new(size);
        let boot = BOOT_AREA.0..BOOT_AREA.0 + (boot_area.len() as u64);
        let mut ranges = Vec::with_capacity(3);
        for range in [layout.low(), boot, layout.high()] {
            let len = (range.end - range.start).next_multiple_of(MemorySize::PAGE);
            let len = usize::try_from(len).map_err(|_| MemoryError::TooLarge { size })?;
            if len > 0 {
                ranges.push((GuestAddress(range.start), len));
            }
        }
        let regions = GuestMemoryMmap::from_ranges(&ranges)
            .map_err(|source| MemoryError::Reserve { size, source })?;
        let memory = Self { layout, regions };
        if !boot_area.is_empty() {
            memory.write_slice(BOOT_AREA, boot_area)?;
        }
        Ok(memory)
    }

    /// Which addresses are RAM.
    pub fn layout(&self) -> RamLayout {
        self.layout
    }

    /// All regions, the boot area included, in the order of their addresses.
    pub fn regions(&self) -> impl Iterator<Item = MemoryRegion> {
        self.regions.iter().map(|region| MemoryRegion {
            gpa: Gpa(region.start_addr().0),
            len: region.len(),
            // KVM takes the address as a number; this is where the pointer becomes one.
            host_addr: region.as_ptr().expose_provenance() as u64,
        })
    }

    /// Copies `bytes` to `gpa`.
    ///
    /// # Errors
    ///
    /// If not all of it is guest memory; what is, is then written.
    pub fn write_slice(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), MemoryError> {
        self.regions.write_slice(bytes, GuestAddress(gpa.0)).map_err(|source| MemoryError::Access {
            gpa,
            len: bytes.len(),
            source,
        })
    }

    /// Fills `bytes` with what is at `gpa`.
    ///
    /// # Errors
    ///
    /// If not all of it is guest memory.
    pub fn read_slice(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), MemoryError> {
        self.regions.read_slice(bytes, GuestAddress(gpa.0)).map_err(|source| MemoryError::Access {
            gpa,
            len: bytes.len(),
            source,
        })
    }

    /// Reads the next `len` bytes of `file` straight into the guest memory at `gpa`.
    ///
    /// # Errors
    ///
    /// If the bytes do not all lie in one region, or the file cannot be read or ends early;
    /// what was read by then stays.
    pub fn read_file(&self, gpa: Gpa, file: &mut File, len: usize) -> Result<(), MemoryError> {
        let access = |source| MemoryError::Access { gpa, len, source };
        // The region, not the whole memory: only the region's method goes on after a short
        // read(2), and Linux reads at most 2 GiB at a time.
        let (region, addr) = self
            .regions
            .to_region_addr(GuestAddress(gpa.0))
            .ok_or_else(|| access(GuestMemoryError::InvalidGuestAddress(GuestAddress(gpa.0))))?;
        region.read_exact_volatile_from(addr, file, len).map_err(access)
    }
}

#[cfg(test)]
mod tests;
