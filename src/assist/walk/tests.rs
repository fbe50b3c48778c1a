//! The walk against page tables of every format.

use super::*;
use crate::assist::testing::{TABLES, TestCpu};

const P: u64 = entry::PRESENT;
const W: u64 = entry::WRITE;
const U: u64 = entry::USER;
const A: u64 = entry::ACCESSED;
const D: u64 = entry::DIRTY;
const PS: u64 = entry::LARGE;
const NX: u64 = entry::NO_EXECUTE;

/// The linear address that the tests translate, and the page that it is mapped to.
const LINEAR: u64 = 0x1234;
const PAGE: u64 = 0x5_5000;

/// 4-level paging, with these entries from the top level down for [`LINEAR`].
fn four_levels(entries: [u64; 4]) -> TestCpu {
    let mut cpu = TestCpu::long();
    cpu.system.cr0 |= bits::CR0_PG | bits::CR0_WP;
    cpu.system.efer |= bits::EFER_NXE;
    cpu.system.cr3 = TABLES;
    for (level, value) in (0..).zip(entries) {
        let index = if level == 3 { 1 } else { 0 };
        cpu.put_u64(TABLES + 0x1000 * level + 8 * index, value);
    }
    cpu
}

/// The entries that map the page with these rights in all of them.
fn mapped(rights: u64) -> [u64; 4] {
    let table = |level: u64| (TABLES + 0x1000 * level) | rights & !(D | NX);
    [table(1), table(2), table(3), PAGE | rights]
}

fn request(access: Access, user: bool) -> Request {
    Request { linear: LINEAR, access, user, may_touch_user: false, pkru: 0 }
}

/// The physical address, or the error code of a page fault.
fn result(cpu: &mut TestCpu, request: &Request) -> Result<u64, u32> {
    let system = cpu.system;
    match translate(cpu, &system, request) {
        Ok(gpa) => Ok(gpa.0),
        Err(Stop::Fault(Exception { vector: 14, error_code: Some(code), cr2 })) => {
            assert_eq!(cr2, Some(request.linear));
            Err(code)
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn without_paging_addresses_are_what_they_are() {
    let mut cpu = TestCpu::long();
    assert_eq!(result(&mut cpu, &request(Access::Write, true)), Ok(LINEAR));
}

#[test]
fn rights_decide_and_error_codes_tell() {
    use Access::{Fetch, Read, Write};
    let found = Ok(PAGE + 0x234);
    // CR4 and CR0.WP; rights in the tables; access, by CPL 3; result.
    let (smep, smap) = (bits::CR4_SMEP, bits::CR4_SMAP);
    let table = [
        (0, true, P | W | U, Read, true, found),
        (0, true, P | W | U, Write, true, found),
        (0, true, P | W | U, Fetch, true, found),
        (0, true, P | U, Read, true, found),
        (0, true, P | U, Write, true, Err(7)),
        (0, true, P | W, Read, true, Err(5)),
        (0, true, P | W, Write, true, Err(7)),
        (0, true, P | W, Fetch, true, Err(0x15)),
        (0, true, P | W, Write, false, found),
        (0, true, P, Write, false, Err(3)),
        (0, false, P, Write, false, found),
        (0, false, P | U, Write, true, Err(7)),
        (0, true, W | U, Read, false, Err(0)),
        (0, true, W | U, Write, true, Err(6)),
        (0, true, P | NX, Read, false, found),
        (0, true, P | NX, Fetch, false, Err(0x11)),
        (0, true, P | U, Fetch, false, found),
        (smep, true, P | U, Fetch, false, Err(0x11)),
        (smep, true, P, Fetch, false, found),
        (smap, true, P | W | U, Read, false, Err(1)),
        (smap, true, P | W | U, Write, false, Err(3)),
        (smap, true, P | W | U, Read, true, found),
        (smap, true, P | W, Write, false, found),
    ];
    for (cr4, write_protect, rights, access, user, expected) in table {
        let mut cpu = four_levels(mapped(rights));
        cpu.system.cr4 |= cr4;
        if !write_protect {
            cpu.system.cr0 &= !bits::CR0_WP;
        }
        let actual = result(&mut cpu, &request(access, user));
        assert_eq!(actual, expected, "{cr4:#x} {rights:#x} {access:?} {user}");
    }
}

#[test]
fn a_right_must_be_in_every_entry() {
    for level in 0..4 {
        for (missing, expected) in [(W, 7), (U, 7), (P, 6)] {
            let mut entries = mapped(P | W | U);
            entries[level] &= !missing;
            let mut cpu = four_levels(entries);
            let actual = result(&mut cpu, &request(Access::Write, true));
            assert_eq!(actual, Err(expected), "{level} {missing:#x}");
        }
    }
}

#[test]
fn ac_lets_ring_0_at_user_pages() {
    let mut cpu = four_levels(mapped(P | W | U));
    cpu.system.cr4 |= bits::CR4_SMAP;
    let allowed = Request { may_touch_user: true, ..request(Access::Write, false) };
    assert_eq!(result(&mut cpu, &allowed), Ok(PAGE + 0x234));
}

#[test]
fn protection_keys_guard_user_pages() {
    // Key 3: access disable is bit 6, write disable bit 7.
    let mut entries = mapped(P | W | U);
    entries[3] |= 3 << 59;
    let found = Ok(PAGE + 0x234);
    let table = [
        (0, Access::Write, true, found),
        (1 << 6, Access::Read, true, Err(0x25)),
        (1 << 6, Access::Read, false, Err(0x21)),
        (1 << 7, Access::Read, true, found),
        (1 << 7, Access::Write, true, Err(0x27)),
        (1 << 7, Access::Write, false, Err(0x23)),
        (1 << 6, Access::Fetch, true, found),
        (1 << 4, Access::Read, true, found),
    ];
    for (pkru, access, user, expected) in table {
        let mut cpu = four_levels(entries);
        cpu.system.cr4 |= bits::CR4_PKE;
        let actual = result(&mut cpu, &Request { pkru, ..request(access, user) });
        assert_eq!(actual, expected, "{pkru:#x} {access:?} {user}");
    }
}

#[test]
fn reserved_bits_fault() {
    let mut tables = vec![];
    for level in 0..4 {
        tables.push((level, 1 << 40, true));
    }
    // Large pages do not exist at the top; where they do, low address bits are reserved.
    tables.extend([(0, PS, true), (1, PS | 1 << 13, true), (2, PS | 1 << 20, true)]);
    tables.extend([(3, 1 << 52, false), (0, 1 << 52, false)]);
    for (level, bits, reserved) in tables {
        let mut entries = mapped(P | W | U);
        entries[level] |= bits;
        let mut cpu = four_levels(entries);
        let actual = result(&mut cpu, &request(Access::Write, true));
        assert_eq!(actual == Err(0xf), reserved, "{level} {bits:#x}: {actual:x?}");
    }
    let mut cpu = four_levels(mapped(P | W | NX));
    cpu.system.efer &= !bits::EFER_NXE;
    assert_eq!(result(&mut cpu, &request(Access::Read, false)), Err(9));
}

#[test]
fn accessed_and_dirty_are_set_when_the_access_is_allowed() {
    let mut cpu = four_levels(mapped(P | W | U));
    let entries = |cpu: &TestCpu| {
        [0, 0x1000, 0x2000, 0x3008].map(|offset| cpu.get_u64(TABLES + offset) & (A | D))
    };
    result(&mut cpu, &request(Access::Read, true)).unwrap();
    assert_eq!(entries(&cpu), [A, A, A, A]);
    result(&mut cpu, &request(Access::Write, true)).unwrap();
    assert_eq!(entries(&cpu), [A, A, A, A | D]);
    let mut cpu = four_levels(mapped(P | U));
    result(&mut cpu, &request(Access::Write, true)).unwrap_err();
    assert_eq!(entries(&cpu), [0; 4]);
}

#[test]
fn an_entry_that_changes_meanwhile_is_read_again() {
    let mut cpu = four_levels(mapped(P | W | U));
    cpu.races = 3;
    assert_eq!(result(&mut cpu, &request(Access::Write, true)), Ok(PAGE + 0x234));
    let mut cpu = four_levels(mapped(P | W | U));
    cpu.races = usize::MAX;
    let system = cpu.system;
    let stop = translate(&mut cpu, &system, &request(Access::Read, true)).unwrap_err();
    assert!(matches!(stop, Stop::Again), "{stop:?}");
}

#[test]
fn large_pages_map_more() {
    let high = 0x80_0000;
    let mut cpu = four_levels([(TABLES + 0x1000) | P | W, (TABLES + 0x2000) | P, high | P | PS, 0]);
    assert_eq!(result(&mut cpu, &request(Access::Read, false)), Ok(high + LINEAR));
    let far = 0x8000_0000;
    let mut cpu = four_levels([(TABLES + 0x1000) | P | W, far | P | PS, 0, 0]);
    assert_eq!(result(&mut cpu, &request(Access::Read, false)), Ok(far + LINEAR));
}

#[test]
fn five_levels_are_walked() {
    let mut cpu = four_levels(mapped(P | W));
    cpu.system.cr4 |= bits::CR4_LA57;
    cpu.system.cr3 = TABLES + 0x8000;
    // The second entry of the fifth level: bit 48 of the address.
    cpu.put_u64(TABLES + 0x8008, TABLES | P | W);
    let linear = 1 << 48 | LINEAR;
    let request = Request { linear, ..request(Access::Read, false) };
    assert_eq!(result(&mut cpu, &request), Ok(PAGE + 0x234));
}

#[test]
fn pae_has_four_entries_without_rights_at_the_top() {
    let mut cpu = TestCpu::protected();
    cpu.system.cr0 |= bits::CR0_PG | bits::CR0_WP;
    cpu.system.cr4 |= bits::CR4_PAE;
    cpu.system.cr3 = TABLES + 0x20;
    let linear = 0xc000_1234;
    cpu.put_u64(TABLES + 0x20 + 3 * 8, (TABLES + 0x1000) | P);
    cpu.put_u64(TABLES + 0x1000, (TABLES + 0x2000) | P | W | U);
    cpu.put_u64(TABLES + 0x2008, PAGE | P | W | U);
    let write = Request { linear, ..request(Access::Write, true) };
    assert_eq!(result(&mut cpu, &write), Ok(PAGE + 0x234));
    // What is at the top has no accessed bit.
    assert_eq!(cpu.get_u64(TABLES + 0x38), (TABLES + 0x1000) | P);
    cpu.put_u64(TABLES + 0x38, (TABLES + 0x1000) | P | W);
    assert_eq!(result(&mut cpu, &write), Err(0xf));
}

#[test]
fn legacy_paging_has_two_levels_and_pages_of_4_mib() {
    let mut cpu = TestCpu::protected();
    cpu.system.cr0 |= bits::CR0_PG;
    cpu.system.cr4 = 0;
    cpu.system.cr3 = TABLES;
    let linear = 0x0040_1234;
    let pde = u32::try_from((TABLES + 0x1000) | P | W | U).unwrap();
    let pte = u32::try_from(PAGE | P | W | U).unwrap();
    cpu.put(TABLES + 4, &pde.to_le_bytes());
    cpu.put(TABLES + 0x1004, &pte.to_le_bytes());
    let write = Request { linear, ..request(Access::Write, true) };
    assert_eq!(result(&mut cpu, &write), Ok(PAGE + 0x234));
    let set = u32::from_le_bytes(cpu.get(TABLES + 0x1004));
    assert_eq!(u64::from(set & !pte), A | D);
    // A page of 4 MiB at 5 GiB and some, with CR4.PSE only.
    let large: u32 = 0x00c0_0000 | 1 << 13 | 0x87;
    cpu.put(TABLES + 4, &large.to_le_bytes());
    cpu.system.cr4 = bits::CR4_PSE;
    assert_eq!(result(&mut cpu, &write), Ok(0x1_00c0_1234));
    cpu.put(TABLES + 4, &(large | 1 << 21).to_le_bytes());
    assert_eq!(result(&mut cpu, &write), Err(0xf));
    // Fetches are not told apart without NX and SMEP.
    cpu.put(TABLES + 4, &0u32.to_le_bytes());
    assert_eq!(result(&mut cpu, &Request { linear, ..request(Access::Fetch, true) }), Err(4));
}
