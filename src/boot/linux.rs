//! Linux kernels: bzImage by the 64-bit, the 32-bit or the 16-bit boot protocol, and vmlinux.
//!
//! Here is what is done with a kernel once it is known: where it goes, the initial RAM disk, the
//! command line, and the state at entry. What a bzImage says about itself is in `linux/header.rs`,
//! what the kernel is told in `linux/zero_page.rs`, and the start in real mode in
//! `linux/real_mode.rs`. The source is "The Linux/x86 Boot Protocol" (Linux,
//! Documentation/arch/x86/boot.rst, version 2.15) and zero-page.rst beside it.
//!
//! linux-loader gives the structures. Its loader for bzImage is not used: it takes a file that ends
//! early for a good one, knows neither versions of the protocol nor init_size, and says of an error
//! neither what nor how much.

pub(super) mod header;
mod real_mode;
mod zero_page;

use std::ops::Range;

use linux_loader::bootparam::{LOADED_HIGH, setup_header};
use thiserror::Error;

use super::beside::{self, BesideError};
use super::elf::{Elf, ElfError};
use super::entry::Start;
use super::file::FileError;
use super::gdt::Selectors;
use super::layout::{IMAGE, Layout, LayoutError, Preference, below_4_gib};
use super::{long, protected};
use crate::config::{BootConfig, CpuMode};
use crate::exit::Gpa;
use crate::memory::EXTENDED_START;
use header::Kernel;

/// What a kernel is told if the user tells it nothing: to write to COM1, where it would else look
/// for a screen, and to reset after a panic at once, which ends the VM, where it would else wait
/// for ever.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 panic=-1";

/// The longest command line of an ELF kernel, without its NUL: COMMAND_LINE_SIZE
/// (arch/x86/include/asm/setup.h), which nothing in the file tells.
const VMLINUX_CMDLINE: u32 = 2047;

/// Boot loader id for a loader without one ("type_of_loader").
const LOADER_UNDEFINED: u8 = 0xff;
/// "Normal" video mode ("vid_mode").
const VIDEO_NORMAL: u16 = 0xffff;

/// The 64-bit entry point is so far into the kernel ("64-bit Boot Protocol").
const ENTRY_64: u64 = 0x200;

/// Why a Linux kernel cannot be loaded.
#[derive(Debug, Error)]
pub enum LinuxError {
    /// Something else.
    #[error(
        "the image is no Linux kernel: expected 'HdrS' at 0x202 (bzImage), or an ELF file (vmlinux)"
    )]
    NotLinux,
    /// The header is not all there.
    #[error(
        "the kernel is truncated: its setup header ends at {end:#x}, and it has {len:#x} bytes"
    )]
    HeaderTruncated {
        /// Where the header ends.
        end: usize,
        /// The length of the file.
        len: u64,
    },
    /// From before 2.02.
    #[error("the kernel has boot protocol {}.{:02}: expected 2.02 or later", .0 >> 8, .0 & 0xff)]
    Version(u16),
    /// A zImage.
    #[error("the kernel is a zImage, made to be loaded below 1 MiB: expected a bzImage")]
    ZImage,
    /// Not a power of two.
    #[error("the kernel's header has a kernel_alignment of {0:#x}: expected a power of 2")]
    Alignment(u32),
    /// The file is shorter than its header says.
    #[error(
        "the kernel is truncated: by its header it has {wanted:#x} bytes, and the file has {len:#x}"
    )]
    Truncated {
        /// The length by the header.
        wanted: u64,
        /// The length of the file.
        len: u64,
    },
    /// It would end behind the last address.
    #[error(
        "the kernel is to be at {start:#x}, and {len:#x} bytes from there end beyond all addresses"
    )]
    Address {
        /// Where it would be.
        start: u64,
        /// How many bytes it needs there.
        len: u64,
    },
    /// Too little for an entry point.
    #[error("the kernel's protected-mode code has {0:#x} bytes, too few for its entry point")]
    NoCode(u64),
    /// The real-mode code does not fit in its segment.
    #[error("the kernel's real-mode code has {len:#x} bytes, more than the limit of {limit:#x}")]
    SetupTooLong {
        /// Its length.
        len: u64,
        /// What there is room for.
        limit: u64,
    },
    /// `--mode` asks for an entry point that is not there.
    #[error("the kernel has no entry point for {mode} mode: {why}")]
    Mode {
        /// The mode asked for.
        mode: CpuMode,
        /// Why not.
        why: &'static str,
    },
    /// The kernel would cut it off.
    #[error("the command line has {len} bytes, more than the kernel's limit of {limit}")]
    CmdlineTooLong {
        /// Its length.
        len: usize,
        /// cmdline_size.
        limit: u32,
    },
    /// The ELF file.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The initial RAM disk.
    #[error(transparent)]
    Beside(#[from] BesideError),
    /// The kernel's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The addresses.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl LinuxError {
    /// Whether it is an option that does not go with the image.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Mode { .. } => true,
            Self::Elf(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// The three ways to start a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Bits16,
    Bits32,
    Bits64,
}

/// What the kernel is told, and with what limits.
struct Told<'a> {
    /// The header, to be filled in.
    header: setup_header,
    cmdline: &'a str,
    /// The first address that the initial RAM disk must not have.
    initrd_end: u64,
}

/// Plans the start of a bzImage.
// Not a part of what every guest needs: layout.ld.
#[inline(never)]
pub(super) fn plan_bzimage(
    kernel: &Kernel,
    mode: Option<CpuMode>,
    boot: &BootConfig,
    layout: &mut Layout,
) -> Result<Start, LinuxError> {
    let protocol = choose(kernel, mode)?;
    // What can only be entered in real mode is not Linux, but calls itself so to be loaded like it.
    let is_linux = kernel.has_64() || kernel.has_32();
    let default = if is_linux { DEFAULT_CMDLINE } else { "" };
    let cmdline = boot.cmdline.as_deref().unwrap_or(default);
    check_cmdline(cmdline, kernel.cmdline_limit())?;
    let load = place_kernel(kernel, protocol, layout)?;
    let mut header = kernel.header;
    header.code32_start = below_4_gib(load);
    let told = Told { header, cmdline, initrd_end: kernel.initrd_end() };
    if protocol == Protocol::Bits16 {
        return real_mode::plan(kernel, told, boot, layout);
    }
    let zero_page = zero_page::place(told, kernel.raw(), boot, layout)?;
    let entry = if protocol == Protocol::Bits64 { load + ENTRY_64 } else { load };
    Ok(start(protocol, Gpa(entry), zero_page))
}

/// Plans the start of an ELF kernel: at its own entry point, which takes what the 64-bit protocol
/// (ELF64) or the 32-bit protocol (ELF32) gives, with a header that we make up.
// Not a part of what every guest needs: layout.ld.
#[inline(never)]
pub(super) fn plan_vmlinux(
    elf: &Elf,
    mode: Option<CpuMode>,
    boot: &BootConfig,
    layout: &mut Layout,
) -> Result<Start, LinuxError> {
    let protocol = match elf.class.mode(mode)? {
        CpuMode::Protected => Protocol::Bits32,
        CpuMode::Long => Protocol::Bits64,
        mode => return Err(LinuxError::Mode { mode, why: "it starts in ring 0" }),
    };
    let cmdline = boot.cmdline.as_deref().unwrap_or(DEFAULT_CMDLINE);
    check_cmdline(cmdline, VMLINUX_CMDLINE)?;
    let entry = elf.entry_below_4_gib()?;
    elf.place(layout)?;
    let header = setup_header {
        boot_flag: header::BOOT_FLAG,
        header: header::MAGIC,
        version: header::VERSION_64,
        loadflags: LOADED_HIGH,
        ..setup_header::default()
    };
    let told = Told { header, cmdline, initrd_end: header::INITRD_END };
    let zero_page = zero_page::place(told, &[], boot, layout)?;
    Ok(start(protocol, entry, zero_page))
}

/// The protocol that the user asks for by the mode, or else the one with the most bits.
fn choose(kernel: &Kernel, mode: Option<CpuMode>) -> Result<Protocol, LinuxError> {
    let no = |mode, why| Err(LinuxError::Mode { mode, why });
    match mode {
        None if kernel.has_64() => Ok(Protocol::Bits64),
        None if kernel.has_32() => Ok(Protocol::Bits32),
        None | Some(CpuMode::Real) => Ok(Protocol::Bits16),
        Some(CpuMode::Protected) if kernel.has_32() => Ok(Protocol::Bits32),
        Some(mode @ CpuMode::Protected) => no(mode, "its code32_start is 0"),
        Some(CpuMode::Long) if kernel.has_64() => Ok(Protocol::Bits64),
        Some(mode @ CpuMode::Long) => no(mode, "its xloadflags are without XLF_KERNEL_64"),
        Some(mode @ CpuMode::User) => no(mode, "it starts in ring 0"),
    }
}

fn check_cmdline(cmdline: &str, limit: u32) -> Result<(), LinuxError> {
    let len = cmdline.len();
    let fits = u32::try_from(len).is_ok_and(|len| len <= limit);
    if fits { Ok(()) } else { Err(LinuxError::CmdlineTooLong { len, limit }) }
}

/// Takes all that the kernel needs before it knows the memory map, from where it is loaded, and
/// returns that address.
fn place_kernel(
    kernel: &Kernel,
    protocol: Protocol,
    layout: &mut Layout,
) -> Result<u64, LinuxError> {
    let code_len = kernel.code.end - kernel.code.start;
    if protocol == Protocol::Bits64 && code_len <= ENTRY_64 {
        return Err(LinuxError::NoCode(code_len));
    }
    let load = match protocol {
        Protocol::Bits16 => EXTENDED_START,
        Protocol::Bits32 | Protocol::Bits64 => kernel.load_address()?,
    };
    // One that cannot be loaded elsewhere moves itself to where it prefers to be.
    let runs_at = kernel.preferred().unwrap_or(load).max(load);
    let end = |start: u64, len| start.checked_add(len).ok_or(LinuxError::Address { start, len });
    let end = end(runs_at, kernel.init_size())?.max(end(load, code_len)?);
    let place = layout.take("kernel", Gpa(load), end - load)?;
    layout.fill_from(&place, IMAGE, kernel.code.start, code_len);
    Ok(load)
}

impl Told<'_> {
    /// What a boot loader writes into every header.
    fn fill_in(&mut self, cmdline_at: u64, initrd: Range<u64>) {
        self.header.type_of_loader = LOADER_UNDEFINED;
        self.header.vid_mode = VIDEO_NORMAL;
        self.header.cmd_line_ptr = below_4_gib(cmdline_at);
        self.header.ramdisk_image = below_4_gib(initrd.start);
        self.header.ramdisk_size = below_4_gib(initrd.end - initrd.start);
    }
}

/// As high as it may be, so as not to be in the kernel's way; 0 and empty if there is none.
fn place_initrd(
    boot: &BootConfig,
    end: u64,
    layout: &mut Layout,
) -> Result<Range<u64>, LinuxError> {
    let placed = beside::place(boot, EXTENDED_START..end, Preference::High, layout)?;
    Ok(placed.first().map_or(0..0, |initrd| initrd.range.clone()))
}

fn with_nul(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The state at an entry point that is not for real mode: "32-bit Boot Protocol" and "64-bit Boot
/// Protocol".
fn start(protocol: Protocol, entry: Gpa, zero_page: Gpa) -> Start {
    let selectors = Selectors::Linux;
    let (mode, mut state) = match protocol {
        Protocol::Bits64 => (CpuMode::Long, long::state(entry, false, selectors)),
        _ => (CpuMode::Protected, protected::bare_state(entry, selectors)),
    };
    state.regs.rsi = zero_page.0;
    Start::Protocol { mode, state: Box::new(state), selectors }
}

#[cfg(test)]
mod tests;
