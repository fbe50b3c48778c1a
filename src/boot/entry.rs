//! With which registers each vCPU starts: what all image formats and CPU modes have in common.
//!
//! A flat image and an ELF executable start in a mode of ours, in which each vCPU has arguments:
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
//! All other formats have a boot protocol that says what the one vCPU starts with that it knows of.
//! Where all start by themselves they have the same state, and nothing tells them apart but their
//! APIC ids.
//!
//! Registers that the user sets come last and on every vCPU: they replace these values, but
//! leave the segment registers alone. What the mode itself is made of, from segments to page
//! tables, is in `real.rs`, `protected.rs` and `long.rs`, and what a boot protocol asks for in its
//! format's file. An [`EntryPlan`] is made once on the main thread; each vCPU thread may take its
//! own state from it.

use std::ops::Range;

use thiserror::Error;

use super::gdt::Selectors;
use super::paging::PagingError;
use super::stacks::{StackError, Stacks};
use super::state::EntryState;
use super::{long, protected, real};
use crate::config::{CpuMode, MemorySize, Register, VcpuCount, VmConfig};
use crate::exit::{Gpa, VcpuId};
use crate::memory::RamLayout;

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

/// How an image starts.
#[derive(Debug)]
pub(super) enum Start {
    /// In a mode of ours, with arguments and a stack for each vCPU.
    Own {
        mode: CpuMode,
        entry: Gpa,
        /// Where no stack may be, in the order of addresses.
        taken: Vec<Range<u64>>,
    },
    /// As a boot protocol says.
    Protocol {
        /// The mode that `state` is in.
        mode: CpuMode,
        state: Box<EntryState>,
        /// Those that `state` has.
        selectors: Selectors,
    },
}

impl Start {
    /// The mode in which vCPUs start.
    pub(super) fn mode(&self) -> CpuMode {
        match self {
            Self::Own { mode, .. } | Self::Protocol { mode, .. } => *mode,
        }
    }

    /// The bytes of the boot area that the entry state refers to; none in real mode.
    ///
    /// # Errors
    ///
    /// If there is too much RAM for long mode to map without pages of 1 GiB (`gib_pages`).
    pub(super) fn boot_area(
        &self,
        ram: RamLayout,
        gib_pages: bool,
    ) -> Result<Vec<u8>, PagingError> {
        let selectors = match self {
            Self::Own { .. } => Selectors::Own,
            Self::Protocol { selectors, .. } => *selectors,
        };
        match self.mode() {
            CpuMode::Real => Ok(Vec::new()),
            CpuMode::Protected => Ok(protected::boot_area(selectors)),
            CpuMode::Long | CpuMode::User => long::boot_area(ram, gib_pages, selectors),
        }
    }
}

/// What it takes to start any of the vCPUs.
#[derive(Clone, Debug)]
pub struct EntryPlan {
    common: EntryState,
    /// What each vCPU has of its own, if it has: an index, and a stack for this mode.
    own: Option<(CpuMode, Stacks)>,
    overrides: Vec<(Register, u64)>,
}

impl EntryPlan {
    /// The plan for a guest that starts like this.
    ///
    /// # Errors
    ///
    /// If the entry point is no RAM that the mode reaches, or there is no room for the stacks.
    pub(super) fn new(config: &VmConfig, start: &Start) -> Result<Self, EntryError> {
        let overrides = config.regs.clone();
        let (mode, entry, taken) = match start {
            Start::Own { mode, entry, taken } => (*mode, *entry, taken),
            Start::Protocol { state, .. } => {
                return Ok(Self { common: **state, own: None, overrides });
            }
        };
        let ram = RamLayout::new(config.memory);
        let low_end = ram.low().end;
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
        let stacks = Stacks::new(config.vcpus, taken.iter().cloned(), stack_limit)?;
        let mut common = match mode {
            CpuMode::Real => real::state(entry),
            CpuMode::Protected => protected::state(entry, Selectors::Own),
            CpuMode::Long => long::state(entry, false, Selectors::Own),
            CpuMode::User => long::state(entry, true, Selectors::Own),
        };
        set_arguments(&mut common, config.vcpus, config.memory);
        Ok(Self { common, own: Some((mode, stacks)), overrides })
    }

    /// Where vCPUs start: a linear address, also in real mode.
    pub fn entry_point(&self) -> u64 {
        self.common.cs.base + self.common.regs.rip
    }

    /// The state of one vCPU; `id` must be below the number of vCPUs.
    pub fn state(&self, id: VcpuId) -> EntryState {
        let mut state = self.common;
        if let Some((mode, stacks)) = &self.own {
            state.regs.rdi = id.0.into();
            let stack = stacks.of(id);
            match mode {
                CpuMode::Real => real::set_stack(&mut state, &stack),
                CpuMode::Protected | CpuMode::Long | CpuMode::User => state.regs.rsp = stack.end,
            }
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

#[cfg(test)]
mod tests;
