//! The 16-bit boot protocol, for kernels that have no other entry point: the real-mode code below
//! 64 KiB with its stack and the command line, and a BIOS, which such code calls.

use linux_loader::bootparam::CAN_USE_HEAP;

use super::header::Kernel;
use super::{LinuxError, Told, place_initrd, with_nul};
use crate::boot::bios::{self, Bios};
use crate::boot::entry::Start;
use crate::boot::file::GuestFile;
use crate::boot::gdt::Selectors;
use crate::boot::layout::Layout;
use crate::boot::memory_map::memory_map;
use crate::boot::real;
use crate::config::{BootConfig, CpuMode};
use crate::exit::Gpa;

/// The base of the segment that the BIOS runs in.
const BIOS_BASE: u64 = (bios::SEGMENT as u64) << 4;

/// The real-mode entry point is so many paragraphs into the kernel ("Running the Kernel").
const SETUP_ENTRY: u16 = 0x20;

/// Where the real-mode part goes, and how far its heap and its stack reach there ("The Real-Mode
/// Kernel Header"); the command line is behind them.
const SETUP_BASE: u64 = 0x1_0000;
const SETUP_STACK: u16 = 0xe000;
/// What heap_end_ptr counts from.
const SETUP_HEAP_BASE: u16 = 0x200;
/// What the stack must have at least.
const SETUP_STACK_MIN: u64 = 0x1000;

/// The real-mode code, with its header filled in, and the command line behind its stack.
pub(super) fn plan(
    kernel: &Kernel,
    mut told: Told<'_>,
    boot: &BootConfig,
    layout: &mut Layout,
) -> Result<Start, LinuxError> {
    let (len, limit) = (kernel.code.start, u64::from(SETUP_STACK) - SETUP_STACK_MIN);
    if len > limit {
        return Err(LinuxError::SetupTooLong { len, limit });
    }
    let cmdline_at = SETUP_BASE + u64::from(SETUP_STACK);
    let text = with_nul(told.cmdline);
    let place = layout.take(
        "kernel's real-mode code",
        Gpa(SETUP_BASE),
        u64::from(SETUP_STACK) + text.len() as u64,
    )?;
    let initrd = place_initrd(boot, told.initrd_end, layout)?;
    told.fill_in(cmdline_at, initrd);
    told.header.loadflags |= CAN_USE_HEAP;
    told.header.heap_end_ptr = SETUP_STACK - SETUP_HEAP_BASE;
    let mut bytes = read(layout.image(), len)?;
    kernel.put(&told.header, &mut bytes);
    bytes.resize(SETUP_STACK.into(), 0);
    bytes.extend(text);
    layout.fill(&place, bytes);
    let start = place_bios(layout)?;
    let state = real::far_state(BIOS_BASE, start, SETUP_BASE, SETUP_STACK);
    let selectors = Selectors::Linux;
    Ok(Start::Protocol { mode: CpuMode::Real, state: Box::new(state), selectors })
}

/// The BIOS, which goes on to the kernel's real-mode code; returns where a vCPU starts in it.
fn place_bios(layout: &mut Layout) -> Result<u16, LinuxError> {
    // The map of a PC: what is called like a BIOS is believed like one.
    let map = memory_map(layout.ram(), true);
    let bios = Bios::new(&map, segment_of(SETUP_BASE) + SETUP_ENTRY, 0);
    let image = layout.take("the BIOS", bios::BASE, bios.image.len() as u64)?;
    layout.fill(&image, bios.image);
    let low = layout.take("the BIOS's data", Gpa(0), bios.low.len() as u64)?;
    layout.fill(&low, bios.low);
    Ok(bios.start)
}

/// The segment at an address below 1 MiB.
const fn segment_of(base: u64) -> u16 {
    let [low, high, ..] = (base >> 4).to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn read(image: &GuestFile, len: u64) -> Result<Vec<u8>, LinuxError> {
    Ok(image.read(0, usize::try_from(len).unwrap_or(0))?)
}
