//! Flat images: bytes that go into guest memory as they are, at an address the user chooses.
//!
//! Everything else about them is what all formats have in common: finding the file and copying it
//! is in `file.rs`, its place in memory in `layout.rs`, and the registers in `entry.rs`.

use super::entry::Start;
use super::layout::{IMAGE, Layout, LayoutError};
use crate::config::VmConfig;
use crate::memory::{CONVENTIONAL_END, EXTENDED_START};

/// Gives the image its place, and says how it starts.
pub(super) fn plan(config: &VmConfig, layout: &mut Layout) -> Result<Start, LayoutError> {
    let load_addr = config.flat_load_addr();
    let len = layout.image().size();
    let place = layout.take("image", load_addr, len)?;
    layout.fill_from(&place, IMAGE, 0, len);
    let taken = no_stacks_at(layout);
    Ok(Start::Own { mode: config.flat_mode(), entry: config.entry.unwrap_or(load_addr), taken })
}

/// Where the stacks of a flat image and of an ELF executable must not be.
pub(super) fn no_stacks_at(layout: &Layout) -> Vec<std::ops::Range<u64>> {
    let pc_area = layout.tables().then_some(CONVENTIONAL_END..EXTENDED_START);
    let mut taken: Vec<_> = layout.taken().chain(pc_area).collect();
    taken.sort_by_key(|range| range.start);
    taken
}

#[cfg(test)]
mod tests;
