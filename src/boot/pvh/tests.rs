//! Every field of what a guest is told, its state at entry, and notes that lie.

use super::*;
use crate::boot::synthetic::ElfImage;
use crate::config::{GuestSource, MemorySize, Module};
use crate::memory::{GuestMemory, RamLayout};

const ADDR: u64 = 0x10_0000;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    use std::io::Write;

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn planned(
    image: &ElfImage,
    boot: &BootConfig,
    tables: bool,
) -> Result<(EntryState, Layout), PvhError> {
    let file = file(&image.build());
    let image = GuestFile::image(&GuestSource::File(file.path().to_owned())).unwrap();
    let elf = Elf::parse(&image, &image.head().unwrap()).unwrap();
    let mut layout = Layout::new(image, RamLayout::new(MemorySize::default()), tables);
    match plan(&elf, boot, &mut layout)? {
        Start::Protocol { mode: CpuMode::Protected, state, .. } => Ok((*state, layout)),
        other => panic!("{other:?}"),
    }
}

/// What the guest finds: its memory, and the address of start_info.
fn told(boot: &BootConfig, tables: bool) -> (GuestMemory, u64) {
    let (state, layout) = planned(&ElfImage::pvh(64, ADDR, &[0xf4]), boot, tables).unwrap();
    let memory = GuestMemory::new(MemorySize::default(), &[]).unwrap();
    layout.write(&memory).unwrap();
    (memory, state.regs.rbx)
}

fn number<const N: usize>(memory: &GuestMemory, at: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.read_slice(Gpa(at), &mut bytes[..N]).unwrap();
    u64::from_le_bytes(bytes)
}

fn string(memory: &GuestMemory, at: u64) -> String {
    let mut bytes = [0; 64];
    memory.read_slice(Gpa(at), &mut bytes).unwrap();
    String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
}

#[test]
fn the_state_at_entry_is_that_of_the_abi() {
    for bits in [32, 64] {
        let image = ElfImage::pvh(bits, ADDR, &[0xf4]);
        let (state, _) = planned(&image, &BootConfig::default(), false).unwrap();
        assert_eq!((state.regs.rip, state.regs.rbx, state.regs.rflags), (ADDR, 0x9000, 2));
        assert_eq!((state.cr0, state.cr4, state.efer), (0x11, 0, 0));
        assert_eq!((state.cs.base, state.cs.limit, state.cs.attributes), (0, u32::MAX, 0xc09b));
        for data in [state.ds, state.es, state.ss] {
            assert_eq!((data.base, data.limit, data.attributes), (0, u32::MAX, 0xc093));
        }
        assert_eq!((state.tr.base, state.tr.limit, state.tr.attributes), (0, 0x67, 0x8b));
    }
}

#[test]
fn a_guest_with_nothing_beside_it_is_told_of_memory_alone() {
    let (memory, at) = told(&BootConfig::default(), false);
    let words: [u64; 4] = std::array::from_fn(|i| number::<4>(&memory, at + 4 * i as u64));
    assert_eq!(words, [0x336e_c578, 1, 0, 0], "magic, version, flags, nr_modules");
    let longs: [u64; 4] = std::array::from_fn(|i| number::<8>(&memory, at + 16 + 8 * i as u64));
    assert_eq!(longs[..3], [0; 3], "modlist, cmdline, rsdp");
    let map = longs[3];
    assert_eq!((number::<4>(&memory, at + 48), number::<4>(&memory, at + 52)), (2, 0));
    let entries: [[u64; 4]; 2] = std::array::from_fn(|i| {
        let entry = map + 24 * i as u64;
        let long = |offset| number::<8>(&memory, entry + offset);
        let word = |offset| number::<4>(&memory, entry + offset);
        [long(0), long(8), word(16), word(20)]
    });
    assert_eq!(entries, [[0, 128 << 20, 1, 0], [0xf000_0000, 0x40_3000, 2, 0]]);
}

#[test]
fn modules_and_command_line_and_tables_are_told() {
    let (initrd, module) = (file(&[7; 5000]), file(b"module"));
    let boot = BootConfig {
        cmdline: Some("console=hvc0".into()),
        initrd: Some(initrd.path().to_owned()),
        modules: vec![Module { path: module.path().to_owned(), args: "a b".into() }],
        ..BootConfig::default()
    };
    let (memory, at) = told(&boot, true);
    assert_eq!(number::<4>(&memory, at + 12), 2);
    let [list, cmdline, rsdp] = [16, 24, 32].map(|offset| number::<8>(&memory, at + offset));
    assert_eq!((string(&memory, cmdline).as_str(), rsdp), ("console=hvc0", 0xe_0000));
    let entry = |index: u64| {
        let long = |offset| number::<8>(&memory, list + 32 * index + offset);
        (long(0), long(8), string(&memory, long(16)), long(24))
    };
    // As high as there is memory.
    let top = 128 << 20;
    assert_eq!(entry(0), (top - 0x2000, 5000, String::new(), 0));
    assert_eq!(entry(1), (top - 0x3000, 6, "a b".into(), 0));
    assert_eq!(string(&memory, top - 0x3000), "module");
    assert_eq!(number::<4>(&memory, at + 48), 4, "the map of a PC");
}

#[track_caller]
fn refused(change: impl FnOnce(&mut ElfImage), expected: &str) {
    let mut image = ElfImage::pvh(64, ADDR, &[0xf4; 4]);
    change(&mut image);
    let error = planned(&image, &BootConfig::default(), false).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn notes_that_lie_are_refused() {
    refused(
        |image| image.notes[0].1 = 17,
        "the ELF file has no note with a PVH entry point: expected XEN_ELFNOTE_PHYS32_ENTRY (18) \
         of \"Xen\"",
    );
    refused(
        |image| image.notes[0].2 = vec![0; 3],
        "the note with the PVH entry point has 3 bytes: expected 4 or 8",
    );
    let outside = "is in no executable segment that is loaded";
    refused(
        |image| image.notes[0].2 = 0x10_0004_u32.to_le_bytes().to_vec(),
        &format!("the PVH entry point 0x100004 {outside}"),
    );
    refused(
        |image| image.notes[0].2 = 0x1_0010_0000_u64.to_le_bytes().to_vec(),
        &format!("the PVH entry point 0x100100000 {outside}"),
    );
    refused(
        |image| image.segments[0].flags = 6,
        &format!("the PVH entry point 0x100000 {outside}"),
    );
}

#[test]
fn an_entry_point_of_8_bytes_is_one_too() {
    let mut image = ElfImage::pvh(64, ADDR, &[0xf4; 4]);
    image.notes[0].2 = 0x10_0003_u64.to_le_bytes().to_vec();
    let (state, _) = planned(&image, &BootConfig::default(), false).unwrap();
    assert_eq!(state.regs.rip, 0x10_0003);
}
