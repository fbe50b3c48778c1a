//! With which registers each vCPU starts: what all CPU modes have in common.
//!
//! | register | value |
//! |---|---|
//! | RAX, RBX | 2 |
//! | RCX | the size of RAM in pages of 4 KiB |
//! | RSI | the number of vCPUs |
//! | RDI | this vCPU's index |
//! | RSP | the top of this vCPU's own stack (in real mode SS:SP) |
//! | RIP | the entry point (in real mode CS:IP) |
//! | RFLAGS | 2; in ring 3 with IOPL 3, 0x3002 |
//! | all others | 0 |
//!
//! Registers that the user sets come last and on every vCPU: they replace these values, but
//! leave the segment registers alone. What the mode itself is made of, from segments to page
//! tables, is in `real.rs`, `protected.rs` and `long.rs`. An [`EntryPlan`] is made once on the
//! main thread; each vCPU thread may take its own state from it.

use std::ops::Range;

use thiserror::Error;

use super::paging::PagingError;
use super::stacks::{StackError, Stacks};
use super::state::EntryState;
use super::{long, protected, real};
use crate::config::{CpuMode, MemorySize, Register, VcpuCount, VmConfig};
use crate::exit::{Gpa, VcpuId};
use crate::memory::{RamLayout, TABLES};

/// Why vCPUs cannot start where and as they should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// There is nothing at the entry point.
    #[error("entry point {entry} is outside the {ram}")]
    OutsideRam {
        /// The entry point.
        entry: Gpa,
        /// The guest's RAM.
        ram: RamLayout,
    },
    /// The entry point is RAM, but not for a CPU in this mode.
    #[error("entry point {entry} is out of reach in {mode} mode, which ends at {limit:#x}")]
    OutOfReach {
        /// The entry point.
        entry: Gpa,
        /// The mode.
        mode: CpuMode,
        /// The first address out of reach.
        limit: u64,
    },
    /// The stacks do not fit beside the image.
    #[error(transparent)]
    Stacks(#[from] StackError),
}

/// What it takes to start any of the vCPUs.
#[derive(Clone, Debug)]
pub struct EntryPlan {
    mode: CpuMode,
    common: EntryState,
    stacks: Stacks,
    overrides: Vec<(Register, u64)>,
}

impl EntryPlan {
    /// The plan for a guest whose image takes the addresses `image`, in a machine with tables that
    /// describe it (`tables`) or without.
    ///
    /// # Errors
    ///
    /// If the entry point is no RAM that the mode reaches, or there is no room for the stacks.
    pub fn new(config: &VmConfig, image: &Range<u64>, tables: bool) -> Result<Self, EntryError> {
        let ram = RamLayout::new(config.memory);
        let entry = config.entry.unwrap_or(config.load_addr);
        let low_end = ram.low().end;
        let mode = config.mode;
        let (entry_limit, stack_limit) = match mode {
            CpuMode::Real => (real::LIMIT, low_end.min(real::LIMIT)),
            CpuMode::Protected => (protected::LIMIT, low_end),
            CpuMode::Long | CpuMode::User => (ram.high().end, low_end),
        };
        if !ram.contains(entry, 1) {
            return Err(EntryError::OutsideRam { entry, ram });
        }
        if entry.0 >= entry_limit {
            return Err(EntryError::OutOfReach { entry, mode, limit: entry_limit });
        }
        let stacks = if !tables {
            Stacks::new(config.vcpus, image, stack_limit)
        } else if stack_limit <= TABLES.end {
            Stacks::new(config.vcpus, image, stack_limit.min(TABLES.start))
        } else {
            // All from the image to the tables is one obstacle.
            let taken = image.start.min(TABLES.start)..image.end.max(TABLES.end);
            Stacks::new(config.vcpus, &taken, stack_limit)
        }?;
        let mut common = match mode {
            CpuMode::Real => real::state(entry),
            CpuMode::Protected => protected::state(entry),
            CpuMode::Long => long::state(entry, false),
            CpuMode::User => long::state(entry, true),
        };
        set_arguments(&mut common, config.vcpus, config.memory);
        Ok(Self { mode, common, stacks, overrides: config.regs.clone() })
    }

    /// The state of one vCPU; `id` must be below the number of vCPUs.
    pub fn state(&self, id: VcpuId) -> EntryState {
        let mut state = self.common;
        state.regs.rdi = id.0.into();
        let stack = self.stacks.of(id);
        match self.mode {
            CpuMode::Real => real::set_stack(&mut state, &stack),
            CpuMode::Protected | CpuMode::Long | CpuMode::User => state.regs.rsp = stack.end,
        }
        for (register, value) in &self.overrides {
            state.regs.set(*register, *value);
        }
        state
    }
}

/// The registers that tell the guest about its VM.
fn set_arguments(state: &mut EntryState, vcpus: VcpuCount, memory: MemorySize) {
    state.regs.rax = 2;
    state.regs.rbx = 2;
    state.regs.rcx = memory.pages();
    state.regs.rsi = vcpus.get().into();
}

/// The bytes of the boot area that the entry state of this mode refers to; none in real mode.
///
/// # Errors
///
/// If there is too much RAM for long mode to map without pages of 1 GiB (`gib_pages`).
pub(super) fn boot_area(
    mode: CpuMode,
    ram: RamLayout,
    gib_pages: bool,
) -> Result<Vec<u8>, PagingError> {
    match mode {
        CpuMode::Real => Ok(Vec::new()),
        CpuMode::Protected => Ok(protected::boot_area()),
        CpuMode::Long | CpuMode::User => long::boot_area(ram, gib_pages),
    }
}

#[cfg(test)]
mod tests;
