//! 64-bit mode, in ring 0 or ring 3: the state at entry, and the boot area it needs.
//!
//! Page tables map all of RAM and the first 4 GiB to the same addresses. SSE works. There is no
//! IDT: the guest brings one before it takes an interrupt or an exception. In ring 3 the I/O
//! privilege level is 3, so the guest may use every port (see `gdt.rs`).

use super::gdt::{self, Gdt, Selectors, Width};
use super::paging::{self, PagingError};
use super::state::{EntryState, Segment, bits};
use crate::exit::Gpa;
use crate::memory::{BOOT_AREA, RamLayout};

/// Where the page tables begin, with the PML4.
const PAGE_TABLES: u64 = BOOT_AREA.0 + gdt::LEN as u64;

// Above the boot area are the I/O and the local APIC.
const _: () = assert!(PAGE_TABLES + paging::MAX_LEN <= 0xfec0_0000);

/// The state with which a vCPU starts at `entry`, in ring 3 if `user`.
pub(super) fn state(entry: Gpa, user: bool, selectors: Selectors) -> EntryState {
    let gdt = Gdt::new(Width::Bits64, selectors);
    let (code, data) = gdt.code_and_data(user);
    let paging = bits::CR0_WP | bits::CR0_PG;
    let mut state = EntryState {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: gdt.tss(),
        ldtr: Segment::default(),
        gdtr: gdt.register(),
        cr0: bits::CR0_PE | bits::CR0_MP | bits::CR0_ET | bits::CR0_NE | paging,
        cr3: PAGE_TABLES,
        cr4: bits::CR4_PAE | bits::CR4_OSFXSR | bits::CR4_OSXMMEXCPT,
        efer: bits::EFER_LME | bits::EFER_LMA,
        ..EntryState::default()
    };
    state.regs.rip = entry.0;
    state.regs.rflags = bits::RFLAGS_FIXED | if user { bits::RFLAGS_IOPL_3 } else { 0 };
    state
}

/// The bytes of the boot area: the GDT and the TSS, then the page tables.
///
/// # Errors
///
/// If there is too much RAM to map without pages of 1 GiB (`gib_pages`).
pub(super) fn boot_area(
    ram: RamLayout,
    gib_pages: bool,
    selectors: Selectors,
) -> Result<Vec<u8>, PagingError> {
    let mut area = Gdt::new(Width::Bits64, selectors).area();
    area.extend(paging::identity_map(ram, gib_pages, PAGE_TABLES)?);
    Ok(area)
}
