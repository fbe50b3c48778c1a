//! The memory map that a guest is told: which addresses are RAM, and which it must leave alone.
//!
//! It is the one of a BIOS's INT 15h, E820h (ACPI 6.5, section 15.1), which Multiboot, PVH and
//! Linux each pass in a form of their own; those are in their files.

use std::ops::Range;

use super::gdt;
use super::paging;
use crate::memory::{BOOT_AREA, CONVENTIONAL_END, EXTENDED_START, RamLayout};

/// What is at some addresses (ACPI 6.5, table 15.374). The numbers are the same in all formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Usage {
    Ram = 1,
    Reserved = 2,
}

/// A stretch of addresses, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) range: Range<u64>,
    pub(super) usage: Usage,
}

/// The most that the boot area may be: of what exactly is in it a guest need not know.
const BOOT_AREA_LEN: u64 = gdt::LEN as u64 + paging::MAX_LEN;

/// The map of a guest with this RAM, in the order of addresses, without overlaps and empty
/// entries.
///
/// A machine with `tables` that describe it is like a PC below 1 MiB. Else there is RAM all the
/// way. The boot area, with the GDT and page tables that the guest starts with, is reserved.
pub(super) fn memory_map(ram: RamLayout, tables: bool) -> Vec<MapEntry> {
    let ram_at = |range| MapEntry { range, usage: Usage::Ram };
    let reserved = |range| MapEntry { range, usage: Usage::Reserved };
    let low = ram.low();
    let mut map = Vec::new();
    if tables {
        map.push(ram_at(0..low.end.min(CONVENTIONAL_END)));
        map.push(reserved(CONVENTIONAL_END..EXTENDED_START));
        map.push(ram_at(EXTENDED_START..low.end));
    } else {
        map.push(ram_at(low));
    }
    map.push(reserved(BOOT_AREA.0..BOOT_AREA.0 + BOOT_AREA_LEN));
    map.push(ram_at(ram.high()));
    map.retain(|entry| !entry.range.is_empty());
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemorySize;

    fn map(bytes: u64, tables: bool) -> Vec<(u64, u64, u32)> {
        let ram = RamLayout::new(MemorySize::from_bytes(bytes).unwrap());
        let entry = |entry: MapEntry| (entry.range.start, entry.range.end, entry.usage as u32);
        memory_map(ram, tables).into_iter().map(entry).collect()
    }

    #[test]
    fn a_machine_with_tables_is_like_a_pc_below_1_mib() {
        let expected = [
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0x10_0000, 2),
            (0x10_0000, 0xc000_0000, 1),
            (0xf000_0000, 0xf040_3000, 2),
            (0x1_0000_0000, 0x1_4000_0000, 1),
        ];
        assert_eq!(map(4 << 30, true), expected);
    }

    #[test]
    fn without_tables_it_is_ram_all_the_way() {
        assert_eq!(map(4 << 20, false), [(0, 4 << 20, 1), (0xf000_0000, 0xf040_3000, 2)]);
    }

    #[test]
    fn little_memory_leaves_no_empty_entries() {
        let expected = [(0, 0x1000, 1), (0x9_fc00, 0x10_0000, 2), (0xf000_0000, 0xf040_3000, 2)];
        assert_eq!(map(4096, true), expected);
    }
}
