//! Kernels of all kinds, where they go, what is refused of them, and every field that they are
//! told.

use proptest::prelude::*;

use super::*;
use crate::boot::file::GuestFile;
use crate::boot::state::EntryState;
use crate::boot::synthetic::{BzImage, ElfImage};
use crate::config::{GuestSource, MemorySize};
use crate::memory::{GuestMemory, RamLayout};

const TOP: u64 = 128 << 20;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    use std::io::Write;

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn kernel() -> BzImage {
    BzImage::new(&[0xf4], &[0xf4])
}

/// How a kernel starts, and its layout.
struct Planned {
    mode: CpuMode,
    state: EntryState,
    layout: Layout,
}

fn plan(
    bytes: &[u8],
    mode: Option<CpuMode>,
    boot: &BootConfig,
    tables: bool,
) -> Result<Planned, LinuxError> {
    let file = file(bytes);
    let image = GuestFile::image(&GuestSource::File(file.path().to_owned())).unwrap();
    let head = image.head().unwrap();
    let ram = RamLayout::new(MemorySize::default());
    let start = if header::is_kernel(&head) {
        let kernel = Kernel::parse(&image, &head)?;
        let mut layout = Layout::new(image, ram, tables);
        (plan_bzimage(&kernel, mode, boot, &mut layout)?, layout)
    } else {
        let elf = Elf::parse(&image, &head)?;
        let mut layout = Layout::new(image, ram, tables);
        (plan_vmlinux(&elf, mode, boot, &mut layout)?, layout)
    };
    match start {
        (Start::Protocol { mode, state, selectors: Selectors::Linux }, layout) => {
            Ok(Planned { mode, state: *state, layout })
        }
        (other, _) => panic!("{other:?}"),
    }
}

fn planned(image: &BzImage, mode: Option<CpuMode>) -> Result<Planned, LinuxError> {
    plan(&image.build(), mode, &BootConfig::default(), false)
}

#[track_caller]
fn refused(change: impl FnOnce(&mut BzImage), mode: Option<CpuMode>, expected: &str) {
    let mut image = kernel();
    change(&mut image);
    let error = planned(&image, mode).err().unwrap().to_string();
    assert_eq!(error, expected);
}

/// What the kernel finds in memory.
struct Told(GuestMemory);

impl Told {
    fn by(planned: Planned) -> Self {
        let memory = GuestMemory::new(MemorySize::default(), &[]).unwrap();
        planned.layout.write(&memory).unwrap();
        Self(memory)
    }

    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_slice(Gpa(at), &mut bytes).unwrap();
        bytes
    }

    fn word(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn string(&self, at: u32) -> String {
        let bytes = self.bytes::<64>(at.into());
        String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
    }
}

#[test]
fn a_kernel_of_today_starts_in_64_bit_mode_where_it_prefers_to_be() {
    let Planned { mode, state, layout } = planned(&kernel(), None).unwrap();
    assert_eq!((mode, state.regs.rip, state.regs.rsi), (CpuMode::Long, 0x100_0200, 0x9000));
    assert_eq!((state.cs.selector, state.cs.attributes), (0x10, 0xa09b));
    for data in [state.ds, state.es, state.ss] {
        assert_eq!((data.selector, data.base, data.limit), (0x18, 0, u32::MAX));
    }
    assert_eq!((state.regs.rflags, state.efer), (2, 0x500));
    let taken: Vec<_> = layout.taken().collect();
    assert_eq!(taken[1], 0x100_0000..0x110_0000, "as much as it needs");
}

#[test]
fn the_32_bit_entry_point_is_taken_if_asked_for_or_alone() {
    let asked = planned(&kernel(), Some(CpuMode::Protected)).unwrap();
    let alone = planned(&BzImage { xload_flags: 0, ..kernel() }, None).unwrap();
    for Planned { mode, state, .. } in [asked, alone] {
        assert_eq!((mode, state.regs.rip), (CpuMode::Protected, 0x100_0000));
        let regs = state.regs;
        assert_eq!((regs.rsi, regs.rbp, regs.rdi, regs.rbx), (0x9000, 0, 0, 0));
        assert_eq!((state.cs.selector, state.cs.attributes), (0x10, 0xc09b));
        assert_eq!((state.ds.selector, state.es.selector, state.ss.selector), (0x18, 0x18, 0x18));
        assert_eq!((state.cr0, state.cr4, state.efer, regs.rflags), (0x11, 0, 0, 2));
    }
}

#[test]
fn the_real_mode_code_is_entered_if_asked_for_or_without_another() {
    let mut image = BzImage { xload_flags: 0, code32_start: 0, preferred: 0, ..kernel() };
    image.real_mode_code = vec![0xf4, 0x55];
    let boot = BootConfig { cmdline: Some("autoboot".into()), ..BootConfig::default() };
    for mode in [None, Some(CpuMode::Real)] {
        let planned = plan(&image.build(), mode, &boot, false).unwrap();
        let state = planned.state;
        // In the BIOS, which goes on to the real-mode code.
        let cs = (state.cs.base, state.cs.selector);
        assert_eq!((planned.mode, cs, state.regs.rsp), (CpuMode::Real, (0xf_0000, 0xf000), 0xe000));
        assert!(state.regs.rip >= 0xe000 && state.regs.rip < 0x1_0000);
        for data in [state.ds, state.es, state.fs, state.gs, state.ss] {
            assert_eq!((data.selector, data.base, data.limit), (0x1000, 0x1_0000, 0xffff));
        }
        let told = Told::by(planned);
        assert_eq!(told.bytes(0xf_e800), [0, 0, 0x20, 0x10], "where the BIOS goes on");
        assert_eq!(told.bytes(0x1_0202), *b"HdrS");
        assert_eq!(told.bytes(0x1_0210), [0xff, 0x81], "type_of_loader; loadflags: heap, high");
        assert_eq!(told.bytes(0x1_0224), [0x00, 0xde], "heap_end_ptr");
        assert_eq!(told.bytes(0x1_026c), [0xf4, 0x55], "the code behind the header");
        assert_eq!(told.string(told.word(0x1_0228)), "autoboot");
        assert_eq!(told.bytes(0x10_0000), [0xf4, 0x90], "the protected-mode code");
    }
    // Linux's words are for Linux, and not for what only calls itself so.
    let told = Told::by(planned(&kernel(), Some(CpuMode::Real)).unwrap());
    assert_eq!(told.string(told.word(0x1_0228)), DEFAULT_CMDLINE);
    let told = Told::by(planned(&image, None).unwrap());
    assert_eq!(told.string(told.word(0x1_0228)), "");
}

#[test]
fn the_zero_page_says_it_all() {
    let initrd = file(&[7; 5000]);
    let boot = BootConfig {
        cmdline: Some("root=/dev/ram0".into()),
        initrd: Some(initrd.path().to_owned()),
        ..BootConfig::default()
    };
    let planned = plan(&kernel().build(), None, &boot, true).unwrap();
    let page = planned.state.regs.rsi;
    let told = Told::by(planned);
    assert_eq!(told.bytes(page + 0x70), 0xe_0000_u64.to_le_bytes(), "acpi_rsdp_addr");
    assert_eq!(told.bytes(page + 0x1e8), [4], "e820_entries");
    assert_eq!(told.bytes(page + 0x1ef), [0], "sentinel");
    assert_eq!(told.bytes(page + 0x1fa), [0xff, 0xff], "vid_mode");
    // As in the file.
    assert_eq!(told.bytes(page + 0x1f1), [1], "setup_sects");
    assert_eq!(told.bytes(page + 0x1fe), [0x55, 0xaa, 0xeb, 0x6a, b'H', b'd', b'r', b'S', 0x0f, 2]);
    assert_eq!(told.word(page + 0x230), 0x20_0000, "kernel_alignment");
    assert_eq!(told.bytes(page + 0x258), 0x100_0000_u64.to_le_bytes(), "pref_address");
    assert_eq!(told.word(page + 0x268), 0xc0de, "kernel_info_offset");
    // Filled in.
    assert_eq!(told.bytes(page + 0x210), [0xff, 1], "type_of_loader, loadflags");
    assert_eq!(told.word(page + 0x214), 0x100_0000, "code32_start");
    assert_eq!((u64::from(told.word(page + 0x218)), told.word(page + 0x21c)), (TOP - 0x2000, 5000));
    assert_eq!(told.bytes(TOP - 0x2000), [7; 5000]);
    assert_eq!(told.word(page + 0x228), 0xa000, "cmd_line_ptr");
    assert_eq!(told.string(0xa000), "root=/dev/ram0");
    let map: [(u64, u64, u32); 4] = std::array::from_fn(|index| {
        let at = page + 0x2d0 + 20 * index as u64;
        let long = |at| u64::from_le_bytes(told.bytes(at));
        (long(at), long(at + 8), told.word(at + 16))
    });
    assert_eq!(
        map,
        [
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0x6_0400, 2),
            (0x10_0000, TOP - 0x10_0000, 1),
            (0xf000_0000, 0x40_3000, 2),
        ]
    );
}

#[test]
fn without_tables_and_options_there_is_little_to_say() {
    let told = Told::by(planned(&kernel(), None).unwrap());
    assert_eq!(told.bytes(0x9070), [0; 8], "acpi_rsdp_addr");
    assert_eq!(told.bytes(0x9218), [0; 8], "ramdisk_image, ramdisk_size");
    assert_eq!(told.string(0xa000), "console=ttyS0 panic=-1");
}

#[test]
fn an_elf_kernel_starts_at_its_entry_point_with_a_header_of_ours() {
    for (bits, mode) in [(64, CpuMode::Long), (32, CpuMode::Protected)] {
        let image = ElfImage::of_code(bits, 0x100_0000, &[0xf4; 4]);
        let planned = plan(&image.build(), None, &BootConfig::default(), false).unwrap();
        let (state, page) = (planned.state, planned.state.regs.rsi);
        assert_eq!((planned.mode, state.regs.rip, state.cs.selector), (mode, 0x100_0000, 0x10));
        let told = Told::by(planned);
        assert_eq!(told.bytes(page + 0x1fe), [0x55, 0xaa]);
        assert_eq!(told.bytes(page + 0x202), [b'H', b'd', b'r', b'S', 0x0c, 2]);
        assert_eq!(told.bytes(page + 0x210), [0xff, 1]);
        assert_eq!(told.string(told.word(page + 0x228)), DEFAULT_CMDLINE);
    }
    let image = ElfImage::of_code(64, 0x100_0000, &[0xf4; 4]).build();
    let error =
        |mode, boot: &BootConfig| plan(&image, mode, boot, false).err().unwrap().to_string();
    assert_eq!(
        error(Some(CpuMode::User), &BootConfig::default()),
        "the kernel has no entry point for user mode: it starts in ring 0"
    );
    let long = BootConfig { cmdline: Some("x".repeat(2048)), ..BootConfig::default() };
    assert_eq!(
        error(None, &long),
        "the command line has 2048 bytes, more than the kernel's limit of 2047"
    );
}

#[test]
fn a_kernel_that_cannot_be_moved_goes_where_it_says() {
    let image = BzImage { relocatable: 0, alignment: 0, preferred: 0x10_0000, ..kernel() };
    let Planned { state, layout, .. } = planned(&image, None).unwrap();
    assert_eq!(state.regs.rip, 0x10_0200);
    assert_eq!(layout.taken().nth(1), Some(0x10_0000..0x20_0000));
    // One that moves itself needs the room there, too.
    let image = BzImage { preferred: 0x100_0000, ..image };
    let Planned { layout, .. } = planned(&image, None).unwrap();
    assert_eq!(layout.taken().nth(1), Some(0x10_0000..0x110_0000));
    // From before there was pref_address: what is there is not looked at.
    let image = BzImage { version: 0x209, xload_flags: 0, relocatable: 1, alignment: 16, ..image };
    let Planned { layout, state, .. } = planned(&image, None).unwrap();
    assert_eq!(state.regs.rip, 0x10_0000);
    assert_eq!(layout.taken().nth(1), Some(0x10_0000..0x10_0201));
}

#[test]
fn an_initial_ram_disk_stays_below_the_kernel_s_limit() {
    let initrd = file(&[7; 5000]);
    let boot = BootConfig { initrd: Some(initrd.path().to_owned()), ..BootConfig::default() };
    let place = |image: &BzImage| {
        plan(&image.build(), None, &boot, false).map(|planned| {
            let page = planned.state.regs.rsi;
            Told::by(planned).word(page + 0x218)
        })
    };
    assert_eq!(place(&BzImage { initrd_max: 0x3ff_ffff, ..kernel() }).unwrap(), 0x3ff_e000);
    assert_eq!(
        place(&BzImage { initrd_max: 0x10_1000, ..kernel() }).unwrap_err().to_string(),
        "no room for initial RAM disk of 5000 bytes between 0x100000 and 0x101001 in 128 MiB of memory \
         (0x0-0x7ffffff)"
    );
    let big = file(&[]);
    big.as_file().set_len(1 << 40).unwrap();
    let boot = BootConfig { initrd: Some(big.path().to_owned()), ..BootConfig::default() };
    let error = plan(&kernel().build(), None, &boot, false).err().unwrap().to_string();
    assert!(error.starts_with("no room for initial RAM disk of 1099511627776 bytes"), "{error}");
}

#[test]
fn modes_without_an_entry_point_are_refused() {
    let (long, protected) = (Some(CpuMode::Long), Some(CpuMode::Protected));
    let no = "the kernel has no entry point for";
    let why = format!("{no} long mode: its xloadflags are without XLF_KERNEL_64");
    refused(|image| image.xload_flags = 0xfe, long, &why);
    refused(|image| image.version = 0x20b, long, &why);
    let why = format!("{no} protected mode: its code32_start is 0");
    refused(|image| image.code32_start = 0, protected, &why);
    let why = format!("{no} user mode: it starts in ring 0");
    refused(|_| (), Some(CpuMode::User), &why);
}

#[test]
fn headers_that_cannot_be_are_refused() {
    refused(
        |image| image.version = 0x201,
        None,
        "the kernel has boot protocol 2.01: expected 2.02 or later",
    );
    refused(
        |image| image.load_flags = 0,
        None,
        "the kernel is a zImage, made to be loaded below 1 MiB: expected a bzImage",
    );
    refused(
        |image| image.alignment = 3,
        None,
        "the kernel's header has a kernel_alignment of 0x3: expected a power of 2",
    );
    refused(
        |image| image.paragraphs = Some(0x22),
        None,
        "the kernel is truncated: by its header it has 0x620 bytes, and the file has 0x601",
    );
    refused(
        |image| image.paragraphs = Some(0x20),
        None,
        "the kernel's protected-mode code has 0x200 bytes, too few for its entry point",
    );
    refused(
        |image| image.paragraphs = Some(0),
        None,
        "the kernel's protected-mode code has 0x0 bytes, too few for its entry point",
    );
    refused(
        |image| image.setup_sectors = 0xff,
        Some(CpuMode::Real),
        "the kernel's real-mode code has 0x20000 bytes, more than the limit of 0xd000",
    );
    refused(
        |image| image.init_size = u32::MAX,
        None,
        "kernel of 4294967295 bytes at 0x1000000 does not fit in 128 MiB of memory (0x0-0x7ffffff)",
    );
    refused(
        |image| image.preferred = u64::MAX - 0x100,
        None,
        "the kernel is to be at 0xfffffffffffffeff, and 0x100000 bytes from there end beyond all \
         addresses",
    );
    refused(
        |image| image.cmdline_size = 21,
        None,
        "the command line has 22 bytes, more than the kernel's limit of 21",
    );
}

#[test]
fn a_file_that_ends_early_is_refused_at_every_length() {
    let image = kernel().build();
    let with = |len: usize| plan(&image[..len], None, &BootConfig::default(), false);
    with(image.len()).unwrap();
    // syssize is rounded up, so it cannot tell of the last bytes.
    for len in 1..image.len() - 15 {
        assert!(with(len).is_err(), "{len:#x}");
    }
    assert_eq!(
        with(0x220).err().unwrap().to_string(),
        "the kernel is truncated: its setup header ends at 0x26c, and it has 0x220 bytes"
    );
}

proptest! {
    #[test]
    fn the_header_never_runs_into_what_is_behind_it(distance in any::<u8>()) {
        let mut image = kernel().build();
        image[0x201] = distance;
        let planned = plan(&image, None, &BootConfig::default(), false);
        // A header that ends before code32_start leaves only the real-mode code.
        if let Some(planned) = planned.ok().filter(|planned| planned.mode != CpuMode::Real) {
            let page = planned.state.regs.rsi;
            let told = Told::by(planned);
            assert_eq!(told.bytes(page + 0x1e8), [2], "e820_entries");
            assert_eq!(told.bytes::<8>(page + 0x2d0), [0; 8]);
            assert_eq!(told.bytes(page + 0x2d8), TOP.to_le_bytes());
        }
    }
}
