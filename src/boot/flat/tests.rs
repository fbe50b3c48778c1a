//! Images that have a place, and those that have none.

use std::io::Write;

use super::*;
use crate::boot::file::GuestFile;
use crate::config::{GuestSource, MemorySize};
use crate::exit::Gpa;
use crate::memory::RamLayout;

const GIB: u64 = 1 << 30;

fn planned(len: usize, gpa: u64, size: u64, tables: bool) -> Result<Start, LayoutError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![0x90; len]).unwrap();
    let guest = GuestSource::File(file.path().to_owned());
    let memory = MemorySize::from_bytes(size).unwrap();
    let config = VmConfig { memory, load_addr: Some(Gpa(gpa)), ..VmConfig::new(guest) };
    let image = GuestFile::image(&config.guest).unwrap();
    plan(&config, &mut Layout::new(image, RamLayout::new(memory), tables))
}

/// What is wrong with loading `len` bytes at `gpa` into RAM of `size` bytes.
fn misplaced(len: usize, gpa: u64, size: u64) -> String {
    planned(len, gpa, size, false).unwrap_err().to_string()
}

#[test]
fn an_image_may_be_anywhere_in_ram() {
    assert!(planned(8192, 0, 8192, false).is_ok(), "and fill it");
    assert!(planned(3, 5 * GIB - 3, 4 * GIB, false).is_ok(), "and lie above the hole");
}

#[test]
fn the_machine_s_tables_are_in_the_way_if_there_are_any() {
    assert!(planned(2, 0xd_ffff, GIB, false).is_ok());
    assert!(planned(1, 0xd_ffff, GIB, true).is_ok());
    assert_eq!(
        planned(2, 0xd_ffff, GIB, true).unwrap_err().to_string(),
        "image at 0xdffff-0xe0000 overlaps the machine's tables at 0xe0000-0xfdfff"
    );
}

#[test]
fn stacks_are_kept_from_a_pc_s_own_area_if_there_are_tables() {
    let taken = |tables| match planned(16, 0x1000, GIB, tables).unwrap() {
        Start::Own { taken, .. } => taken,
        Start::Protocol { .. } => Vec::new(),
    };
    assert_eq!(taken(false), std::slice::from_ref(&(0x1000..0x1010)));
    assert_eq!(taken(true), [0x1000..0x1010, 0x9_fc00..0x10_0000, 0xe_0000..0xf_e000]);
}

#[test]
fn an_image_that_does_not_fit_is_refused_with_the_numbers() {
    assert_eq!(
        misplaced(5000, 0x1000, 4096),
        "image of 5000 bytes at 0x1000 does not fit in 4 KiB of memory (0x0-0xfff)"
    );
    assert_eq!(
        misplaced(1, 0x2000, 8192),
        "image of 1 bytes at 0x2000 does not fit in 8 KiB of memory (0x0-0x1fff)"
    );
    let around_the_hole = "4 GiB of memory (0x0-0xbfffffff and 0x100000000-0x13fffffff)";
    for gpa in [0xbfff_ffff, 0xd000_0000, 0xf000_0000, 0x1_3fff_ffff, u64::MAX] {
        assert_eq!(
            misplaced(2, gpa, 4 * GIB),
            format!("image of 2 bytes at {gpa:#x} does not fit in {around_the_hole}")
        );
    }
}
