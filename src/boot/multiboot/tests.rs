//! Headers that are found and obeyed, and one error for each that cannot be.

use super::*;
use crate::boot::file::GuestFile;
use crate::boot::synthetic::{ElfImage, ElfSegment, multiboot_header, multiboot_image};
use crate::config::{GuestSource, MemorySize};
use crate::memory::{GuestMemory, RamLayout};

const ADDR: u32 = 0x10_0000;

fn guest_file(bytes: &[u8]) -> GuestFile {
    use std::io::Write;

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    GuestFile::image(&GuestSource::File(file.path().to_owned())).unwrap()
}

fn planned(bytes: &[u8]) -> Result<(Start, Layout), MultibootError> {
    let file = guest_file(bytes);
    let head = file.head().unwrap();
    let header = find(&head).ok_or(MultibootError::NoHeader)?;
    let mut layout = Layout::new(file, RamLayout::new(MemorySize::default()), false);
    Ok((plan(header, &head, &BootConfig::default(), &mut layout)?, layout))
}

/// Where the image went, and the entry point.
fn placed(bytes: &[u8]) -> (Vec<Range<u64>>, u64) {
    let (start, layout) = planned(bytes).unwrap();
    let Start::Protocol { state, .. } = start else { panic!("no protocol") };
    let is_info = |range: &Range<u64>| range.start == state.regs.rbx;
    (layout.taken().filter(|range| !is_info(range)).collect(), state.regs.rip)
}

/// An image that says where it goes in these words, with so many bytes before the header and behind
/// it.
fn with_addresses(before: usize, words: [u32; 5], behind: usize) -> Vec<u8> {
    let header = multiboot_header(1 << 16, &words);
    [vec![1; before], header, vec![2; behind]].concat()
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    assert_eq!(planned(bytes).unwrap_err().to_string(), expected);
}

#[test]
fn a_header_is_found_anywhere_in_the_first_8_kib_at_a_multiple_of_4() {
    let header = multiboot_header(0x3, &[]);
    let at = |offset: usize| [vec![0; offset], header.clone()].concat();
    for offset in [0, 4, 0x1000, HEAD_LEN - 12] {
        assert_eq!(find(&at(offset)), Some(Header { offset, flags: 3 }));
    }
    for offset in [1, 2, 3, HEAD_LEN - 8, HEAD_LEN] {
        assert_eq!(find(&at(offset)), None, "{offset}");
    }
    assert_eq!(find(&header[..11]), None);
    let mut bad_sum = at(8);
    bad_sum[16] ^= 1;
    assert_eq!(find(&bad_sum), None);
    bad_sum.extend(&header);
    assert_eq!(find(&bad_sum), Some(Header { offset: 20, flags: 3 }), "the search goes on");
}

#[test]
fn what_a_header_asks_for_is_there_or_refused() {
    let with = |flags| ElfImage::of_code(32, ADDR.into(), &multiboot_header(flags, &[])).build();
    for flags in [0, 1, 2, 3, 0xfffe_0003] {
        planned(&with(flags)).unwrap();
    }
    refused(&with(7), "the Multiboot header asks for a video mode (flag 2), and there is no video");
    refused(
        &with(0xffff_8013 & !(1 << 16)),
        "the Multiboot header asks for features that are not known: flags 0x8010",
    );
}

#[test]
fn the_state_at_entry_is_that_of_the_standard() {
    let (start, _) = planned(&multiboot_image(ADDR, &[0xf4])).unwrap();
    let Start::Protocol { mode, state, .. } = start else { panic!("no protocol") };
    assert_eq!(mode, CpuMode::Protected);
    assert_eq!((state.regs.rax, state.regs.rbx), (0x2bad_b002, 0x9000));
    assert_eq!((state.regs.rip, state.regs.rflags), (0x10_0020, 2));
    assert_eq!((state.cr0, state.cr3, state.cr4, state.efer), (0x11, 0, 0, 0));
    assert_eq!((state.cs.base, state.cs.limit, state.cs.attributes), (0, u32::MAX, 0xc09b));
    for data in [state.ds, state.es, state.fs, state.gs, state.ss] {
        assert_eq!((data.base, data.limit, data.attributes), (0, u32::MAX, 0xc093));
    }
}

#[test]
fn an_elf_kernel_goes_where_its_segments_say() {
    for bits in [32, 64] {
        let mut image = ElfImage::of_code(bits, ADDR.into(), &multiboot_header(3, &[]));
        image.segments.push(ElfSegment { memory_len: 99, ..ElfSegment::load(0x20_0000, b"d") });
        let expected = (vec![0x10_0000..0x10_000c, 0x20_0000..0x20_0063], u64::from(ADDR));
        assert_eq!(placed(&image.build()), expected);
    }
    let image = ElfImage::of_code(64, 5 << 30, &multiboot_header(3, &[])).build();
    let elf_error = |bytes: &[u8]| match planned(bytes).unwrap_err() {
        MultibootError::Elf(error) => error.to_string(),
        other => other.to_string(),
    };
    assert_eq!(
        elf_error(&image),
        "the entry point 0x140000000 is not below 4 GiB, as far as 32-bit code reaches"
    );
    let flat = multiboot_header(0, &[]);
    assert!(elf_error(&flat).starts_with("the image is not an ELF file"));
}

#[test]
fn the_header_s_addresses_say_what_is_loaded() {
    let entry = ADDR + 0x30;
    // Everything from 0x10 before the header to the end of the file.
    let image = with_addresses(0x20, [ADDR + 0x10, ADDR, 0, 0, entry], 0x40);
    assert_eq!(placed(&image).0, std::slice::from_ref(&(0x10_0000..0x10_0070)));
    // A part of it, and memory behind.
    let image = with_addresses(0x20, [ADDR, ADDR, ADDR + 0x38, ADDR + 0x1000, entry], 0x40);
    let (range, rip) = placed(&image);
    assert_eq!(range, std::slice::from_ref(&(0x10_0000..0x10_1000)));
    assert_eq!(rip, u64::from(entry));
    let memory = GuestMemory::new(MemorySize::default(), &[]).unwrap();
    let written = planned(&image).unwrap().1.write(&memory).unwrap();
    assert_eq!(written[0], 0x10_0000..0x10_0038);
    let mut bytes = [0xff; 0x3c];
    memory.read_slice(Gpa(ADDR.into()), &mut bytes).unwrap();
    assert_eq!(bytes[..4], [0x02, 0xb0, 0xad, 0x1b]);
    assert_eq!(bytes[0x20..], [[2; 0x18].as_slice(), &[0; 4]].concat());
    // Also of an ELF file, whose own headers then do not count.
    let elf = ElfImage::of_code(64, 0x5000, &multiboot_header(1 << 16, &[ADDR, ADDR, 0, 0, ADDR]));
    assert_eq!(placed(&elf.build()).0, std::slice::from_ref(&(0x10_0000..0x10_0020)));
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let with = |words| with_addresses(0x20, words, 0x40);
    let order = "the Multiboot header's addresses contradict each other: ";
    for (words, why) in [
        ([ADDR, ADDR + 1, 0, 0, ADDR], "header_addr 0x100000 is below load_addr 0x100001"),
        ([ADDR, ADDR, 1, 0, ADDR], "load_end_addr 0x1 is below load_addr 0x100000"),
        ([ADDR, ADDR, 0, 5, ADDR], "bss_end_addr 0x5 is below load_addr 0x100000"),
        (
            [ADDR, ADDR, ADDR + 9, ADDR + 8, ADDR],
            "bss_end_addr 0x100008 is below load_end_addr 0x100009",
        ),
    ] {
        refused(&with(words), &format!("{order}{why}"));
    }
    refused(
        &with([ADDR + 0x21, ADDR, 0, 0, ADDR]),
        "the Multiboot header at 0x20 of the image says that 0x21 bytes before it are to be loaded",
    );
    refused(
        &with([ADDR, ADDR, ADDR + 0x61, 0, ADDR]),
        "the image is truncated: its Multiboot header says that 0x61 bytes are to be loaded from \
         0x20 on, and the image has 0x80",
    );
    refused(
        &with([ADDR, ADDR, 0, 0, ADDR + 0x60]),
        "the Multiboot entry point 0x100060 is not in what is loaded, at 0x100000-0x10005f",
    );
    refused(
        &with([ADDR, ADDR, 0, 0xffff_ffff, ADDR]),
        "image of 4293918719 bytes at 0x100000 does not fit in 128 MiB of memory (0x0-0x7ffffff)",
    );
    let late = with_addresses(HEAD_LEN - 16, [ADDR, ADDR, 0, 0, ADDR], 64);
    refused(
        &late,
        "the Multiboot header at 0x1ff0 of the image has 32 bytes, and does not end within the \
         first 0x2000 bytes",
    );
}

#[test]
fn a_file_that_ends_early_is_refused_or_no_multiboot_kernel() {
    let image = with_addresses(0, [ADDR, ADDR, ADDR + 0x60, 0, ADDR + 0x20], 0x40);
    planned(&image).unwrap();
    for len in 1..image.len() {
        planned(&image[..len]).unwrap_err();
    }
}
