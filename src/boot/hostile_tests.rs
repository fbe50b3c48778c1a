//! Images of every format with anything changed in them, and cut off anywhere: what comes of each
//! is an error of one line, or a guest all of whose memory was written within its bounds.

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::boot::synthetic::{BzImage, ElfImage, ElfSegment, multiboot_header, multiboot_image};
use crate::config::{BootConfig, GuestSource};

const MIB: u64 = 1 << 20;
const RAM: u64 = 32 * MIB;

/// A good image of every format.
fn images() -> Vec<Vec<u8>> {
    let code = [0xf4; 32];
    let mut elf = ElfImage::of_code(64, MIB, &code);
    elf.segments.push(ElfSegment { memory_len: 0x3000, ..ElfSegment::load(2 * MIB, b"data") });
    let multiboot_elf = ElfImage::of_code(32, MIB, &multiboot_header(3, &[]));
    let mut vmlinux = elf.clone();
    vmlinux.notes = vec![(b"GNU\0", 3, vec![0; 20]), (b"Linux\0", 0x100, vec![0; 4])];
    let real_mode = BzImage { xload_flags: 0, code32_start: 0, ..BzImage::new(&code, &code) };
    vec![
        elf.build(),
        ElfImage::of_code(32, MIB, &code).build(),
        ElfImage::pvh(32, MIB, &code).build(),
        ElfImage::pvh(64, MIB, &code).build(),
        vmlinux.build(),
        multiboot_image(0x10_0000, &code),
        multiboot_elf.build(),
        BzImage::new(&code, &code).build(),
        real_mode.build(),
    ]
}

fn config(image: &[u8]) -> (VmConfig, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(image).unwrap();
    let guest = GuestSource::File(file.path().to_owned());
    let memory = MemorySize::from_bytes(RAM).unwrap();
    (VmConfig { memory, ..VmConfig::new(guest) }, file)
}

/// Loads an image, if it can be.
fn check(config: &VmConfig) -> Result<(), TestCaseError> {
    let plan = match plan(config) {
        Ok(plan) => plan,
        Err(error) => {
            prop_assert_eq!(error.to_string().lines().count(), 1);
            return Ok(());
        }
    };
    let start = plan.entry.entry_point();
    let BootedGuest { memory, entry, mut loaded, .. } = plan.load(false).unwrap();
    prop_assert!(start < RAM);
    prop_assert_eq!(entry.entry_point(), start);
    let boot_area = loaded.pop().unwrap();
    prop_assert_eq!(boot_area.start, BOOT_AREA.0);
    // With the machine's tables, if it has them, which nothing may be written over.
    loaded.sort_by_key(|range| range.start);
    let mut end = 0;
    for range in loaded.into_iter().filter(|range| !range.is_empty()) {
        prop_assert!(range.start >= end && range.end <= RAM, "{:#x?}", range);
        end = range.end;
    }
    prop_assert_eq!(memory.layout().size().bytes(), RAM);
    Ok(())
}

#[test]
fn good_images_are_loaded() {
    for (index, image) in images().iter().enumerate() {
        let (config, _file) = config(image);
        plan(&config).unwrap_or_else(|error| panic!("image {index}: {error}"));
        check(&config).unwrap();
    }
}

#[test]
fn an_image_cut_off_anywhere_is_an_error_or_another_image() {
    for image in images() {
        for len in (1..image.len()).step_by(3) {
            check(&config(&image[..len]).0).unwrap_or_else(|error| panic!("{len}: {error}"));
        }
    }
}

/// Numbers that headers do not expect.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x100_u64,
        (0..64_u32).prop_map(|bit| 1 << bit),
        (0..64_u32).prop_map(|bit| u64::MAX >> bit),
        0..2 * RAM,
    ]
}

/// Where something is changed, most often in a header: the offset, the number, its size.
fn change() -> impl Strategy<Value = (usize, u64, usize)> {
    let offset = prop_oneof![0..0x80_usize, 0x80..0x200_usize, 0x1f0..0x280_usize, 0..0x1000_usize];
    (offset, number(), prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_an_image_says_nothing_is_written_out_of_bounds(
        which in 0..9_usize,
        changes in prop::collection::vec(change(), 1..4),
        cut in prop_oneof![4 => Just(None), 1 => (1..0x1000_usize).prop_map(Some)],
        format in prop_oneof![3 => Just(None), 1 => (0..5_usize).prop_map(Some)],
    ) {
        let mut image = images().swap_remove(which);
        for (offset, number, size) in changes {
            let bytes = number.to_le_bytes();
            let offset = offset % image.len();
            let size = size.min(image.len() - offset);
            image[offset..offset + size].copy_from_slice(&bytes[..size]);
        }
        image.truncate(cut.unwrap_or(usize::MAX));
        let (config, _file) = config(&image);
        let format = format.map(|index| ImageFormat::ALL[index]);
        check(&VmConfig { boot: BootConfig { format, ..config.boot.clone() }, ..config })?;
    }
}
