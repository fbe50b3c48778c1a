//! Executables that load, and one error for each way in which one does not.

use super::*;
use crate::boot::synthetic::{DYNAMIC, ElfImage, ElfSegment, INTERP, NOTE, RWX};
use crate::config::{GuestSource, MemorySize};
use crate::memory::RamLayout;

const ADDR: u64 = 0x10_0000;

fn guest_file(bytes: &[u8]) -> GuestFile {
    use std::io::Write;

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    GuestFile::image(&GuestSource::File(file.path().to_owned())).unwrap()
}

fn planned(bytes: &[u8], mode: Option<CpuMode>) -> Result<(Start, Layout), ElfError> {
    let file = guest_file(bytes);
    let elf = Elf::parse(&file, &file.head().unwrap())?;
    let ram = RamLayout::new(MemorySize::default());
    let mut layout = Layout::new(file, ram, false);
    Ok((plan(&elf, mode, &mut layout)?, layout))
}

fn started(bytes: &[u8], mode: Option<CpuMode>) -> (CpuMode, u64, Vec<Range<u64>>) {
    match planned(bytes, mode).unwrap().0 {
        Start::Own { mode, entry, taken } => (mode, entry.0, taken),
        Start::Protocol { .. } => panic!("a protocol"),
    }
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = planned(bytes, None).unwrap_err().to_string();
    assert_eq!(error, expected);
}

fn changed(change: impl FnOnce(&mut ElfImage)) -> Vec<u8> {
    let mut image = ElfImage::of_code(64, ADDR, &[0xf4; 16]);
    change(&mut image);
    image.build()
}

#[test]
fn each_class_starts_in_its_mode_with_its_segments_in_place() {
    for (bits, mode) in [(32, CpuMode::Protected), (64, CpuMode::Long)] {
        let mut image = ElfImage::of_code(bits, ADDR, &[0xf4; 16]);
        image
            .segments
            .push(ElfSegment { memory_len: 0x3000, ..ElfSegment::load(0x20_0000, b"data") });
        image.entry += 4;
        let taken = vec![ADDR..ADDR + 16, 0x20_0000..0x20_3000];
        assert_eq!(started(&image.build(), None), (mode, ADDR + 4, taken), "{bits}");
    }
    let user = started(&ElfImage::of_code(64, ADDR, &[0xf4]).build(), Some(CpuMode::User));
    assert_eq!(user.0, CpuMode::User);
}

#[test]
fn segments_are_copied_to_their_physical_addresses() {
    let mut image = ElfImage::of_code(64, 0xffff_ffff_8010_0000, b"code");
    image.segments[0].physical_addr = ADDR;
    image.segments[0].memory_len = 8;
    image.segments.push(ElfSegment::load(0x5000, b"low"));
    let (start, layout) = planned(&image.build(), None).unwrap();
    assert!(matches!(start, Start::Own { entry: Gpa(ADDR), .. }), "virtual entry: {start:?}");
    let memory = crate::memory::GuestMemory::new(MemorySize::default(), &[]).unwrap();
    assert_eq!(layout.write(&memory).unwrap(), [ADDR..ADDR + 4, 0x5000..0x5003]);
    let mut bytes = [0xff; 6];
    memory.read_slice(Gpa(ADDR), &mut bytes).unwrap();
    assert_eq!(&bytes, b"code\0\0");
}

#[test]
fn an_entry_point_may_be_physical_where_it_is_no_virtual_address() {
    let image = changed(|image| {
        image.segments[0].virtual_addr = 0xffff_ffff_8010_0000;
        image.entry = ADDR + 1;
    });
    assert_eq!(started(&image, None).1, ADDR + 1);
}

#[test]
fn position_independent_code_without_relocations_runs_where_it_is_linked() {
    assert_eq!(started(&changed(|image| image.kind = 3), None).1, ADDR);
}

#[test]
fn another_mode_is_refused() {
    let error = |bits, mode| {
        let image = ElfImage::of_code(bits, ADDR, &[0xf4]).build();
        planned(&image, Some(mode)).unwrap_err().to_string()
    };
    assert_eq!(
        error(64, CpuMode::Protected),
        "an ELF64 executable cannot start in protected mode: expected long or user"
    );
    assert_eq!(
        error(32, CpuMode::Long),
        "an ELF32 executable cannot start in long mode: expected protected"
    );
}

#[test]
fn headers_that_are_not_for_us_are_refused_with_what_they_say() {
    let with = |at: usize, byte: u8| {
        let mut image = changed(|_| ());
        image[at] = byte;
        image
    };
    refused(b"flat", "the image is not an ELF file: it does not begin with 0x7f 'ELF'");
    refused(&with(4, 3), "the ELF file is of class 3: expected 1 (ELF32) or 2 (ELF64)");
    refused(&with(5, 2), "the ELF file has data encoding 2: expected 1 (little-endian)");
    refused(&with(6, 0), "the ELF file has version 0: expected 1");
    refused(&with(18, 183), "the ELF64 file is for machine 183: expected 62 (x86-64)");
    let mut arm = ElfImage::of_code(32, ADDR, &[0xf4]).build();
    arm[18] = 40;
    refused(&arm, "the ELF32 file is for machine 40: expected 3 (i386)");
    refused(
        &with(16, 1),
        "the ELF file has type 1: expected 2 (ET_EXEC) or 3 (ET_DYN), an executable",
    );
    refused(&with(54, 32), "the ELF file has program headers of 32 bytes: expected 56");
    refused(&with(56, 0), "the ELF file has no segment to load");
    let mut many = changed(|_| ());
    many[56..58].fill(0xff);
    refused(&many, "the ELF file has more than 65534 program headers");
}

#[test]
fn executables_that_want_a_linker_are_refused() {
    let with = |kind| {
        changed(|image| {
            image.segments.push(ElfSegment { kind, ..ElfSegment::load(ADDR, b"x") });
        })
    };
    refused(
        &with(INTERP),
        "the ELF executable asks for an interpreter (PT_INTERP): link it with -static",
    );
    refused(
        &with(DYNAMIC),
        "the ELF executable has dynamic linking information (PT_DYNAMIC): link it with -static \
         and -no-pie",
    );
}

#[test]
fn segments_that_cannot_be_are_refused() {
    let with = |change: fn(&mut ElfSegment)| {
        changed(|image| {
            image.segments.push(ElfSegment::load(0x20_0000, b"more"));
            change(&mut image.segments[1]);
        })
    };
    refused(
        &with(|segment| segment.memory_len = 3),
        "ELF segment 1 has 0x4 bytes in the file and only 0x3 in memory",
    );
    refused(
        &with(|segment| segment.physical_addr = ADDR + 15),
        "ELF segment 1 at 0x10000f-0x100012 overlaps ELF segment 0 at 0x100000-0x10000f",
    );
    refused(
        &with(|segment| segment.memory_len = 1 << 60),
        "ELF segment 1 of 1152921504606846976 bytes at 0x200000 does not fit in 128 MiB of memory \
         (0x0-0x7ffffff)",
    );
    refused(
        &with(|segment| segment.physical_addr = u64::MAX),
        "ELF segment 1 of 4 bytes at 0xffffffffffffffff does not fit in 128 MiB of memory \
         (0x0-0x7ffffff)",
    );
    refused(
        &changed(|image| image.segments[0].flags = RWX - 1),
        "the ELF entry point 0x100000 is in no executable segment that is loaded",
    );
    refused(
        &changed(|image| image.entry = ADDR + 16),
        "the ELF entry point 0x100010 is in no executable segment that is loaded",
    );
    refused(&changed(|image| image.segments[0].kind = 7), "the ELF file has no segment to load");
}

#[test]
fn a_file_that_ends_early_is_refused_at_every_length() {
    let image = changed(|image| image.notes.push((b"GNU\0", 3, vec![1; 20])));
    refused(
        &image[..63],
        "the ELF file is truncated: its header would end at 0x40, and it has 0x3f bytes",
    );
    refused(
        &image[..100],
        "the ELF file is truncated: its table of program headers would end at 0xb0, and it has \
         0x64 bytes",
    );
    refused(
        &image[..0xb1],
        "the ELF file is truncated: its segment 0 would end at 0xc0, and it has 0xb1 bytes",
    );
    for len in 1..image.len() {
        planned(&image[..len], None).unwrap_err();
    }
    planned(&image, None).unwrap();
}

fn notes(image: &ElfImage) -> Result<Vec<String>, ElfError> {
    let file = guest_file(&image.build());
    let elf = Elf::parse(&file, &file.head().unwrap()).unwrap();
    let mut seen = Vec::new();
    elf.find_note(&file, |note| {
        seen.push(format!("{} {} {:?}", note.name.escape_ascii(), note.kind, note.desc));
        None::<()>
    })?;
    Ok(seen)
}

#[test]
fn all_notes_are_looked_at() {
    let mut image = ElfImage::of_code(64, ADDR, &[0xf4]);
    image.notes =
        vec![(b"GNU\0", 3, vec![1; 5]), (b"", 0, vec![]), (b"Xen\0", 18, vec![9, 8, 7, 6])];
    assert_eq!(notes(&image).unwrap(), ["GNU 3 [1, 1, 1, 1, 1]", " 0 []", "Xen 18 [9, 8, 7, 6]"]);
}

#[test]
fn a_note_that_says_it_is_longer_than_its_segment_is_refused() {
    for (at, value) in [(0, 0xffff_ffff_u32), (4, 0xffff_ffff), (0, 9), (4, 1)] {
        let mut note = ElfSegment { kind: NOTE, ..ElfSegment::load(0, &[0; 12]) };
        note.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let mut image = ElfImage::of_code(64, ADDR, &[0xf4]);
        image.segments.push(note);
        assert_eq!(
            notes(&image).unwrap_err().to_string(),
            "the ELF note at 0xb1 of the file does not end within its segment, which ends at 0xbd"
        );
    }
}

#[test]
fn notes_without_an_end_are_refused() {
    let mut image = ElfImage::of_code(64, ADDR, &[0xf4]);
    let note = ElfSegment { kind: NOTE, ..ElfSegment::load(0, &vec![0; 0x8_0000]) };
    image.segments.extend([note.clone(), note.clone(), note]);
    assert_eq!(
        notes(&image).unwrap_err().to_string(),
        "the ELF file has 0x180000 bytes of notes, more than the limit of 0x100000"
    );
}
