//! Every field of what a kernel is told.

use super::*;
use crate::boot::file::GuestFile;
use crate::boot::layout::Preference;
use crate::config::{GuestSource, MemorySize, Module};
use crate::memory::GuestMemory;

const MIB: u64 = 1 << 20;

/// What a guest with this configuration finds.
struct Told {
    memory: GuestMemory,
    info: u64,
}

impl Told {
    fn with(boot: &BootConfig, ram: u64, tables: bool) -> Self {
        let demo = minivmm_guests::find("hello").unwrap();
        let image = GuestFile::image(&GuestSource::Demo(demo)).unwrap();
        let size = MemorySize::from_bytes(ram).unwrap();
        let mut layout = Layout::new(image, RamLayout::new(size), tables);
        let info = place(boot, 0x10_1234, &mut layout).unwrap().0;
        let memory = GuestMemory::new(size, &[]).unwrap();
        layout.write(&memory).unwrap();
        Self { memory, info }
    }

    fn words<const N: usize>(&self, at: u64) -> [u32; N] {
        std::array::from_fn(|index| {
            let mut bytes = [0; 4];
            self.memory.read_slice(Gpa(at + 4 * index as u64), &mut bytes).unwrap();
            u32::from_le_bytes(bytes)
        })
    }

    fn string(&self, at: u32) -> String {
        let mut bytes = [0; 64];
        self.memory.read_slice(Gpa(at.into()), &mut bytes).unwrap();
        String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
    }
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    use std::io::Write;

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_kernel_without_modules_is_told_of_memory_and_its_command_line() {
    let told = Told::with(&BootConfig::default(), 64 * MIB, false);
    let info = told.words::<29>(told.info);
    assert_eq!(info[0], 0x245, "flags: memory, command line, memory map, loader name");
    assert_eq!(info[1..4], [639, 63 << 10, 0], "mem_lower, mem_upper, boot_device");
    assert_eq!(told.string(info[4]), "hello");
    assert_eq!(info[5..11], [0; 6], "no modules, no symbols");
    let map = u64::from(info[12]);
    assert_eq!(info[11], 2 * 24);
    assert_eq!(told.words::<6>(map), [20, 0, 0, 64 << 20, 0, 1]);
    assert_eq!(told.words::<6>(map + 24), [20, 0xf000_0000, 0, 0x40_3000, 0, 2]);
    assert_eq!(info[13..16], [0; 3], "drives, configuration table");
    assert_eq!(told.string(info[16]), concat!("minivmm ", env!("CARGO_PKG_VERSION")));
    assert_eq!(info[17..], [0; 12]);
}

#[test]
fn modules_begin_on_pages_above_the_image_the_initial_ram_disk_first() {
    let (initrd, first, second) = (file(&[7; 5000]), file(b"first"), file(b"second"));
    let module = |file: &tempfile::NamedTempFile, args: &str| Module {
        path: file.path().to_owned(),
        args: args.to_owned(),
    };
    let boot = BootConfig {
        cmdline: Some("one two".into()),
        initrd: Some(initrd.path().to_owned()),
        modules: vec![module(&first, "a b"), module(&second, "")],
        ..BootConfig::default()
    };
    let told = Told::with(&boot, 64 * MIB, false);
    let info = told.words::<7>(told.info);
    assert_eq!((info[0], info[5]), (0x24d, 3));
    assert_eq!(told.string(info[4]), "hello one two");
    let modules: [[u32; 4]; 3] =
        std::array::from_fn(|index| told.words(u64::from(info[6]) + 16 * index as u64));
    let places = modules.map(|[start, end, _, reserved]| (start, end, reserved));
    assert_eq!(
        places,
        [(0x10_2000, 0x10_3388, 0), (0x10_4000, 0x10_4005, 0), (0x10_5000, 0x10_5006, 0)]
    );
    assert_eq!(modules.map(|[.., args, _]| told.string(args)), ["", "a b", ""]);
    assert_eq!(told.string(0x10_4000), "first");
}

#[test]
fn the_map_of_a_machine_with_tables_is_that_of_a_pc() {
    let told = Told::with(&BootConfig::default(), 64 * MIB, true);
    let info = told.words::<13>(told.info);
    let map = u64::from(info[12]);
    assert_eq!(info[11], 4 * 24);
    assert_eq!(told.words::<6>(map), [20, 0, 0, 0x9_fc00, 0, 1]);
    assert_eq!(told.words::<6>(map + 24), [20, 0x9_fc00, 0, 0x6_0400, 0, 2]);
    assert_eq!(told.words::<6>(map + 48), [20, 0x10_0000, 0, 63 << 20, 0, 1]);
}

#[test]
fn memory_below_1_mib_and_above_the_hole_is_told_in_full() {
    let little = Told::with(&BootConfig::default(), 64 << 10, false);
    assert_eq!(little.words::<3>(little.info)[1..], [64, 0]);
    let much = Told::with(&BootConfig::default(), 4 << 30, false);
    let info = much.words::<13>(much.info);
    assert_eq!(info[1..3], [639, (3 << 20) - 1024]);
    let last = u64::from(info[12]) + u64::from(info[11]) - 24;
    assert_eq!(much.words::<6>(last), [20, 0, 1, 1 << 30, 0, 1]);
}

#[test]
fn what_has_no_room_is_refused() {
    let demo = minivmm_guests::find("hello").unwrap();
    let image = GuestFile::image(&GuestSource::Demo(demo)).unwrap();
    let size = MemorySize::from_bytes(2 * MIB).unwrap();
    let mut layout = Layout::new(image, RamLayout::new(size), false);
    let initrd = file(&vec![0; 1 << 20]);
    let boot = BootConfig { initrd: Some(initrd.path().to_owned()), ..BootConfig::default() };
    assert_eq!(
        place(&boot, 0x10_0001, &mut layout).unwrap_err().to_string(),
        "no room for initial RAM disk of 1048576 bytes between 0x100001 and 0x200000 in 2 MiB of memory \
         (0x0-0x1fffff)"
    );
    layout.find("everything low", 0x9_6c00, 1, 0..MIB, Preference::Low).unwrap();
    layout.find("everything high", MIB, 1, 0..2 * MIB, Preference::Low).unwrap();
    let error = place(&BootConfig::default(), MIB, &mut layout).unwrap_err().to_string();
    assert!(error.starts_with("no room for Multiboot information of 1"), "{error}");
}
