//! 32-bit protected mode: the state at entry, and the boot area it needs.
//!
//! All segments are flat, from 0 to 4 GiB, ring 0, and there is no paging. SSE works. There is
//! no IDT: the guest brings one before it takes an interrupt or an exception.

use super::gdt::{Gdt, Selectors, Width};
use super::state::{EntryState, Segment, bits};
use crate::exit::Gpa;

/// The first address that EIP cannot hold.
pub(super) const LIMIT: u64 = 1 << 32;

/// The state with which a vCPU starts at `entry`, which must be below [`LIMIT`].
pub(super) fn state(entry: Gpa, selectors: Selectors) -> EntryState {
    let gdt = Gdt::new(Width::Bits32, selectors);
    let (code, data) = gdt.code_and_data(false);
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
        cr0: bits::CR0_PE | bits::CR0_MP | bits::CR0_ET | bits::CR0_NE,
        cr4: bits::CR4_OSFXSR | bits::CR4_OSXMMEXCPT,
        ..EntryState::default()
    };
    state.regs.rip = entry.0;
    state.regs.rflags = bits::RFLAGS_FIXED;
    state
}

/// The same with every bit of the control registers off that boot protocols do not ask for: no SSE,
/// and nothing but protection and ET, which is on in every CPU that there is.
pub(super) fn bare_state(entry: Gpa, selectors: Selectors) -> EntryState {
    EntryState { cr0: bits::CR0_PE | bits::CR0_ET, cr4: 0, ..state(entry, selectors) }
}

/// The bytes of the boot area: a page with the GDT and the TSS.
pub(super) fn boot_area(selectors: Selectors) -> Vec<u8> {
    Gdt::new(Width::Bits32, selectors).area()
}
