//! 16-bit real mode: the state at entry.
//!
//! Every segment is set, for KVM starts a vCPU as a CPU comes out of reset: with CS at
//! 0xffff0000 and the caches off (Intel SDM vol. 3, table 11-1).

use std::ops::Range;

use super::state::{EntryState, Segment, TableRegister, bits};
use crate::exit::Gpa;

/// The first address that no CS:IP that we set reaches; the limit for stacks, too.
pub(super) const LIMIT: u64 = 1 << 20;

/// What no segment of real mode can exceed: its offsets have 16 bits.
const SEGMENT_LIMIT: u16 = 0xffff;

/// Present, accessed, writable data.
const DATA: u16 = 0x93;
/// Present, accessed, readable code.
const CODE: u16 = 0x9b;
/// A present, busy TSS. Real mode uses none, but VMX enters no guest without one.
const TSS: u16 = 0x8b;

/// The state with which a vCPU starts at `entry`, which must be below [`LIMIT`]: with CS 0 and
/// IP the address where 16 bits hold it, and above that with CS the address shifted right by 4
/// and IP the lowest 4 bits. DS, ES, FS and GS are 0.
pub(super) fn state(entry: Gpa) -> EntryState {
    let in_segment_0 = entry.0 <= u64::from(SEGMENT_LIMIT);
    let cs_base = if in_segment_0 { 0 } else { entry.0 & !0xf };
    let data = segment(0, DATA);
    // The tables as they are after reset: at 0, as long as can be.
    let table = TableRegister { base: 0, limit: SEGMENT_LIMIT };
    let mut state = EntryState {
        cs: segment(cs_base, CODE),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(0, TSS),
        ldtr: Segment::default(),
        gdtr: table,
        idtr: table,
        cr0: bits::CR0_ET,
        ..EntryState::default()
    };
    state.regs.rip = entry.0 - cs_base;
    state.regs.rflags = bits::RFLAGS_FIXED;
    state
}

/// The state with which a vCPU starts at `offset` in the segment at `base`, with all other segments
/// `data_base` and the stack below `stack` there; all three bases are multiples of 16 below
/// [`LIMIT`].
pub(super) fn far_state(base: u64, offset: u16, data_base: u64, stack: u16) -> EntryState {
    let data = segment(data_base, DATA);
    let mut state = EntryState {
        cs: segment(base, CODE),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        ..state(Gpa(0))
    };
    state.regs.rip = offset.into();
    state.regs.rsp = stack.into();
    state
}

/// Sets SS:SP to the top of a stack of less than 64 KiB whose ends are multiples of 16 and
/// below [`LIMIT`]: SS is the bottom, SP the size.
pub(super) fn set_stack(state: &mut EntryState, stack: &Range<u64>) {
    state.ss = segment(stack.start, DATA);
    state.regs.rsp = stack.end - stack.start;
}

/// The segment at `base`, a multiple of 16 below [`LIMIT`].
fn segment(base: u64, attributes: u16) -> Segment {
    #[expect(clippy::cast_possible_truncation, reason = "below 1 MiB, so 16 bits are left")]
    let selector = (base >> 4) as u16;
    Segment { selector, base, limit: SEGMENT_LIMIT.into(), attributes }
}
