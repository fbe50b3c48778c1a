//! The memory map for every kind of size, and the ways in.

use std::io::Write;

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn size(bytes: u64) -> MemorySize {
    MemorySize::from_bytes(bytes).unwrap()
}

fn regions(memory: &GuestMemory) -> Vec<(u64, u64)> {
    memory.regions().map(|region| (region.gpa.0, region.len)).collect()
}

#[test]
fn ram_goes_around_the_hole() {
    let ram = |bytes| {
        let layout = RamLayout::new(size(bytes));
        (layout.low(), layout.high())
    };
    let four = 4 * GIB;
    assert_eq!(ram(4096), (0..0x1000, four..four));
    assert_eq!(ram(3 * GIB), (0..3 * GIB, four..four));
    assert_eq!(ram(3 * GIB + 4096), (0..3 * GIB, four..four + 4096));
    assert_eq!(ram(64 * GIB), (0..3 * GIB, four..65 * GIB));
}

#[test]
fn a_layout_prints_its_size_and_addresses() {
    let text = |bytes| RamLayout::new(size(bytes)).to_string();
    assert_eq!(text(4096), "4 KiB of memory (0x0-0xfff)");
    assert_eq!(text(4 * GIB), "4 GiB of memory (0x0-0xbfffffff and 0x100000000-0x13fffffff)");
}

#[test]
fn regions_are_ram_and_the_boot_area_in_order() {
    let without = GuestMemory::new(size(4096), &[]).unwrap();
    assert_eq!(regions(&without), [(0, 4096)]);
    let with = GuestMemory::new(size(64 * GIB), &[1; 4097]).unwrap();
    assert_eq!(regions(&with), [(0, 3 * GIB), (0xf000_0000, 0x2000), (4 * GIB, 61 * GIB)]);
    assert!(with.regions().all(|region| region.host_addr % 4096 == 0 && region.host_addr != 0));
}

#[test]
fn the_boot_area_holds_its_bytes_and_is_no_ram() {
    let memory = GuestMemory::new(size(4096), &[7; 100]).unwrap();
    let mut bytes = [0xff; 101];
    memory.read_slice(BOOT_AREA, &mut bytes).unwrap();
    assert_eq!((&bytes[..100], bytes[100]), (&[7; 100][..], 0));
    assert!(!memory.layout().contains(BOOT_AREA, 1));
}

#[test]
fn bytes_written_are_read_and_the_rest_is_zero() {
    let memory = GuestMemory::new(size(8192), &[]).unwrap();
    memory.write_slice(Gpa(0xffe), &[1, 2, 3, 4]).unwrap();
    let mut bytes = [0xff; 6];
    memory.read_slice(Gpa(0xffd), &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3, 4, 0]);
}

#[test]
fn an_access_outside_says_where() {
    let memory = GuestMemory::new(size(4096), &[]).unwrap();
    let error = memory.write_slice(Gpa(0xfff), &[0; 2]).unwrap_err();
    assert_eq!(error.to_string(), "cannot access 2 bytes of guest memory at 0xfff");
    assert!(memory.read_slice(Gpa(u64::MAX), &mut [0; 2]).is_err());
    let mut file = tempfile::tempfile().unwrap();
    assert!(memory.read_file(Gpa(0x1000), &mut file, 1).is_err());
}

#[test]
fn a_file_is_read_from_where_it_stands() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"guest").unwrap();
    let memory = GuestMemory::new(size(4096), &[]).unwrap();
    let mut reader = File::open(file.path()).unwrap();
    memory.read_file(Gpa(0x10), &mut reader, 4).unwrap();
    let mut bytes = [0; 5];
    memory.read_slice(Gpa(0x10), &mut bytes).unwrap();
    assert_eq!(&bytes, b"gues\0");
    assert!(memory.read_file(Gpa(0), &mut reader, 2).is_err(), "only one byte is left");
}

proptest! {
    #[test]
    fn the_map_has_every_page_once_and_none_in_the_hole(pages in 1..(1_u64 << 34)) {
        let layout = RamLayout::new(size(pages * 4096));
        let (low, high) = (layout.low(), layout.high());
        prop_assert_eq!(low.end - low.start + (high.end - high.start), pages * 4096);
        prop_assert!(low.end <= HOLE.start && high.start == HOLE.end);
        prop_assert!(high.is_empty() || low.end == HOLE.start);
    }

    #[test]
    fn contains_is_every_byte(
        pages in 786_000..787_000_u64,
        start in 0..8 * GIB,
        len in 0..9 * GIB,
    ) {
        let layout = RamLayout::new(size(pages * 4096));
        let is_ram = |gpa: u64| layout.low().contains(&gpa) || layout.high().contains(&gpa);
        let last = start + len.max(1) - 1;
        let hole = start < HOLE.start && last >= HOLE.start;
        let expected = is_ram(start) && is_ram(last) && !hole;
        prop_assert_eq!(layout.contains(Gpa(start), len), expected);
    }
}

#[test]
fn contains_does_not_overflow() {
    let layout = RamLayout::new(size(5 * GIB));
    assert!(!layout.contains(Gpa(u64::MAX), 2));
    assert!(!layout.contains(Gpa(4 * GIB), u64::MAX));
}
