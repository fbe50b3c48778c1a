//! Places that are free, and those that are not.

use proptest::prelude::*;

use super::*;
use crate::config::{GuestSource, MemorySize};

const MIB: u64 = 1 << 20;

fn layout(ram: u64, tables: bool) -> Layout {
    let demo = minivmm_guests::find("hello").unwrap();
    let image = GuestFile::image(&GuestSource::Demo(demo)).unwrap();
    Layout::new(image, RamLayout::new(MemorySize::from_bytes(ram).unwrap()), tables)
}

#[test]
fn what_overlaps_is_named_with_its_addresses() {
    let mut layout = layout(16 * MIB, false);
    layout.take("kernel", Gpa(0x2000), 0x1000).unwrap();
    layout.take("before", Gpa(0x1000), 0x1000).unwrap();
    layout.take("behind", Gpa(0x3000), 0x1000).unwrap();
    for (start, len) in [(0x2000, 1), (0x2fff, 1), (0x1fff, 0x2000), (0x1000, 0x3000), (0x2500, 2)]
    {
        assert!(layout.take("other", Gpa(start), len).is_err(), "{start:#x}");
    }
    assert_eq!(
        layout.take("other", Gpa(0x2fff), 1).unwrap_err().to_string(),
        "other at 0x2fff-0x2fff overlaps kernel at 0x2000-0x2fff"
    );
    assert_eq!(
        layout.take("other", Gpa(16 * MIB - 1), 2).unwrap_err().to_string(),
        "other of 2 bytes at 0xffffff does not fit in 16 MiB of memory (0x0-0xffffff)"
    );
    assert!(layout.take("other", Gpa(u64::MAX), u64::MAX).is_err());
    assert!(layout.take("nothing", Gpa(0x2500), 0).is_ok());
    assert_eq!(layout.taken().count(), 3);
}

#[test]
fn tables_are_in_nobodys_way_unless_there_are_any() {
    assert!(layout(2 * MIB, false).take("x", Gpa(0), 2 * MIB).is_ok());
    let error = layout(2 * MIB, true).take("x", Gpa(0), 2 * MIB).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x at 0x0-0x1fffff overlaps the machine's tables at 0xe0000-0xfdfff"
    );
}

#[test]
fn what_has_no_address_goes_low_or_high_and_never_into_a_pc_s_own_area() {
    let mut layout = layout(2 * MIB, false);
    let mut find = |len, align, within, preference| {
        layout.find("it", len, align, within, preference).map(|range| range.start)
    };
    let (low, high) = (Preference::Low, Preference::High);
    assert_eq!(find(16, 16, 0..2 * MIB, low), Ok(0x9000));
    assert_eq!(find(0x9_6000, 0x1000, 0..2 * MIB, low), Ok(MIB));
    assert_eq!(find(0x8000, 0x1000, 0..2 * MIB, high), Ok(2 * MIB - 0x8000));
    assert_eq!(find(0x1000, 0x1000, 0..2 * MIB - 0x8000, high), Ok(2 * MIB - 0x9000));
    assert_eq!(find(0x1000, 0x1000, 0..MIB, high), Ok(0x9_e000));
    assert_eq!(
        find(0x10_0000, 0x1000, MIB..4 * MIB, high).unwrap_err().to_string(),
        "no room for it of 1048576 bytes between 0x100000 and 0x400000 in 2 MiB of memory (0x0-0x1fffff)"
    );
    assert!(find(1, 1, 5..5, low).is_err());
    assert!(find(u64::MAX, 0x1000, 0..u64::MAX, high).is_err());
}

#[test]
fn what_was_filled_is_written_and_told() {
    let mut layout = layout(MIB, false);
    let place = layout.take("bytes", Gpa(0x8000), 0x100).unwrap();
    layout.fill(&place, vec![7; 3]);
    let place = layout.take("image", Gpa(0x9000), 0x100).unwrap();
    layout.fill_from(&place, IMAGE, 1, 4);
    let memory = GuestMemory::new(MemorySize::from_bytes(MIB).unwrap(), &[]).unwrap();
    assert_eq!(layout.write(&memory).unwrap(), [0x8000..0x8003, 0x9000..0x9004]);
    let mut bytes = [0xff; 5];
    memory.read_slice(Gpa(0x8000), &mut bytes).unwrap();
    assert_eq!(bytes, [7, 7, 7, 0, 0]);
    memory.read_slice(Gpa(0x9000), &mut bytes).unwrap();
    assert_eq!(bytes[..4], minivmm_guests::find("hello").unwrap().image[1..5]);
}

proptest! {
    #[test]
    fn nothing_that_is_taken_or_found_overlaps_or_leaves_ram(
        takes in prop::collection::vec((0..3 * MIB, 0..MIB), 0..8),
        finds in prop::collection::vec(
            (1..MIB, 0_u32..16, 0..3 * MIB, any::<bool>()), 0..8),
    ) {
        let mut layout = layout(2 * MIB, true);
        for (start, len) in takes {
            let _ = layout.take("taken", Gpa(start), len);
        }
        for (len, shift, end, high) in finds {
            let preference = if high { Preference::High } else { Preference::Low };
            let align = 1 << shift;
            if let Ok(found) = layout.find("found", len, align, 0..end, preference) {
                prop_assert!(found.start % align == 0 && found.end <= end);
                prop_assert!(found.end <= CONVENTIONAL_END || found.start >= EXTENDED_START);
            }
        }
        let mut end = 0;
        for range in layout.taken() {
            prop_assert!(range.start >= end && range.start < range.end);
            prop_assert!(range.end <= 2 * MIB);
            end = range.end;
        }
    }
}
