//! The tables, walked as a CPU walks them.

use proptest::prelude::*;

use super::*;

const AT: u64 = 0xf000_1000;

fn ram(bytes: u64) -> RamLayout {
    RamLayout::new(MemorySize::from_bytes(bytes).unwrap())
}

/// The physical address and page size that `linear` is mapped to, if it is.
fn walk(tables: &[u8], linear: u64) -> Option<(u64, u64)> {
    let entry = |table: u64, index: u64| {
        let at = usize::try_from(table - AT + index * 8).unwrap();
        u64::from_le_bytes(tables[at..at + 8].try_into().unwrap())
    };
    let mut table = AT;
    for shift in [39, 30, 21] {
        let entry = entry(table, linear >> shift & 0x1ff);
        if entry & 1 == 0 {
            return None;
        }
        if entry & 0x80 != 0 {
            assert_eq!(entry & 0xfff, 0xe7, "present, writable, user, accessed, dirty, large");
            let page = 1 << shift;
            return Some(((entry & !0xfff) + (linear & (page - 1)), page));
        }
        assert_eq!(entry & 0xfff, 0x27, "present, writable, user, accessed");
        table = entry & !0xfff;
    }
    unreachable!("a page directory without large pages")
}

#[test]
fn small_memories_have_the_first_4_gib_in_pages_of_2_mib() {
    let tables = identity_map(ram(4096), true, AT).unwrap();
    assert_eq!(tables.len(), 6 * 4096, "a PML4, a PDPT, four PDs");
    for linear in [0, 0x1000, 0xbfff_ffff, 0xfee0_0000, 0xffff_ffff] {
        assert_eq!(walk(&tables, linear), Some((linear, 2 << 20)));
    }
    assert_eq!(walk(&tables, 1 << 32), None);
}

#[test]
fn more_than_512_gib_take_several_pdpts() {
    let tables = identity_map(ram(600 * GIB), false, AT).unwrap();
    for linear in [512 * GIB - 1, 512 * GIB, 601 * GIB - 1] {
        assert_eq!(walk(&tables, linear), Some((linear, 2 << 20)));
    }
    assert_eq!(walk(&tables, 601 * GIB), None);
}

#[test]
fn the_largest_memory_is_mapped_in_pages_of_1_gib() {
    let size = MemorySize::MAX_BYTES;
    let tables = identity_map(ram(size), true, AT).unwrap();
    assert!(tables.len() < 1 << 20);
    for linear in [0, 1 << 32, size, size + GIB - 1] {
        assert_eq!(walk(&tables, linear), Some((linear, GIB)));
    }
    assert_eq!(walk(&tables, size + GIB), None);
}

#[test]
fn tables_beyond_the_limit_need_pages_of_1_gib() {
    let largest = ram(1020 * GIB);
    assert_eq!(identity_map(largest, false, AT).unwrap().len() as u64, MAX_LEN);
    let error = identity_map(ram(2 << 40), false, AT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mapping 2 TiB of memory in pages of 2 MiB takes 8417280 bytes of page tables, more \
         than the limit of 4194304, and KVM offers no pages of 1 GiB here"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_mapped_address_is_itself_and_all_ram_is_mapped(
        pages in 1..(300_u64 << 18),
        addresses in prop::collection::vec(0..400 * GIB, 32),
    ) {
        let ram = ram(pages * 4096);
        let tables = identity_map(ram, false, AT).unwrap();
        for linear in addresses {
            let mapped = walk(&tables, linear);
            if ram.contains(crate::exit::Gpa(linear), 1) || linear < HOLE.end {
                prop_assert!(mapped.is_some());
            }
            prop_assert_eq!(mapped.unwrap_or((linear, 0)).0, linear);
        }
    }
}
