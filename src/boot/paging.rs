//! Page tables that map guest-virtual addresses to the same guest-physical ones, for long mode
//! (4-level paging, Intel SDM vol. 3, section 5.5).
//!
//! Every page is present, writable and open to ring 3, so that a guest can go there without
//! page tables of its own; one that wants SMEP, SMAP or protection brings its own. Accessed and
//! dirty are set from the start, so that the CPU never has to write to the tables.

use thiserror::Error;

use crate::config::MemorySize;
use crate::memory::{HOLE, RamLayout};

/// The most page tables that are built: enough for 1020 GiB in pages of 2 MiB. Filling them takes
/// time at every start, and pages of 1 GiB need hardly any.
pub const MAX_LEN: u64 = 4 << 20;

const GIB: u64 = 1 << 30;
const TABLE_LEN: u64 = 4096;
const ENTRIES: u64 = 512;

/// Present, writable, user, accessed: an entry that points to a table.
const TABLE: u64 = 0x27;
/// The same, dirty, and the page-size bit: an entry that maps a large page.
const LARGE_PAGE: u64 = 0xe7;

/// Why memory cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "mapping {memory} of memory in pages of 2 MiB takes {len} bytes of page tables, more than \
     the limit of {MAX_LEN}, and KVM offers no pages of 1 GiB here"
)]
pub struct PagingError {
    /// The size of RAM.
    pub memory: MemorySize,
    /// The length of the tables that would be needed, in bytes.
    pub len: u64,
}

/// Tables for guest-physical address `at` that map at least the first 4 GiB and all of RAM;
/// the PML4 comes first.
///
/// The pages are of 2 MiB, which every CPU with long mode has, if the tables then take no more
/// than [`MAX_LEN`], else of 1 GiB, if the guest's CPU has them (`gib_pages`).
///
/// # Errors
///
/// If the tables would be larger than that and there are no pages of 1 GiB.
pub(super) fn identity_map(
    ram: RamLayout,
    gib_pages: bool,
    at: u64,
) -> Result<Vec<u8>, PagingError> {
    let gibs = ram.high().end.max(HOLE.end).div_ceil(GIB);
    let pdpts = gibs.div_ceil(ENTRIES);
    let with_pds = (1 + pdpts + gibs) * TABLE_LEN;
    let large = with_pds > MAX_LEN;
    if large && !gib_pages {
        return Err(PagingError { memory: ram.size(), len: with_pds });
    }
    // All tables of a level are neighbours, so each level is one run of entries, and the tables
    // of the next level follow one another: the PML4, the PDPTs, the PDs, one for each GiB.
    let first_pdpt = at + TABLE_LEN;
    let first_pd = first_pdpt + pdpts * TABLE_LEN;
    let mut tables = Vec::new();
    push_level(&mut tables, pdpts, first_pdpt | TABLE, TABLE_LEN);
    if large {
        push_level(&mut tables, gibs, LARGE_PAGE, GIB);
    } else {
        push_level(&mut tables, gibs, first_pd | TABLE, TABLE_LEN);
        push_level(&mut tables, gibs * ENTRIES, LARGE_PAGE, GIB / ENTRIES);
    }
    Ok(tables)
}

/// Appends `count` entries, each `step` above the one before, and the rest of their last table.
fn push_level(tables: &mut Vec<u8>, count: u64, first: u64, step: u64) {
    for i in 0..count.next_multiple_of(ENTRIES) {
        let entry = if i < count { first + i * step } else { 0 };
        tables.extend_from_slice(&entry.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
