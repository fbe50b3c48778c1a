//! Multiboot 1: kernels with a header of that standard, as GRUB and many others load them.
//!
//! Here are the search for the header, what it asks for, and the state at entry; what the guest is
//! told is in `multiboot/info.rs`. The source is the Multiboot Specification, version 0.6.96. What
//! a kernel asks for and we do not have, such as a video mode, is an error: the standard says that
//! a loader must not go on then.

mod info;

use std::ops::Range;

use thiserror::Error;

use super::beside::BesideError;
use super::elf::{Elf, ElfError};
use super::entry::Start;
use super::file::HEAD_LEN;
use super::gdt::Selectors;
use super::layout::{IMAGE, Layout, LayoutError};
use super::protected;
use super::state::EntryState;
use crate::config::{BootConfig, CpuMode};
use crate::exit::Gpa;

/// In the header (section 3.1.2).
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// In EAX at entry (section 3.2).
const BOOT_MAGIC: u64 = 0x2bad_b002;

/// Flags of the header (section 3.1.2). Of the lower 16 bits, a loader must know all that are set;
/// the upper 16 bits it may ignore.
mod flags {
    pub(super) const PAGE_ALIGN: u32 = 1 << 0;
    pub(super) const MEMORY_INFO: u32 = 1 << 1;
    pub(super) const VIDEO_MODE: u32 = 1 << 2;
    pub(super) const REQUIRED: u32 = 0xffff;
    pub(super) const ADDRESSES: u32 = 1 << 16;
}

/// The length of a header without addresses, and of one with them.
const SHORT_LEN: usize = 12;
const LONG_LEN: usize = 32;

/// Why a Multiboot kernel cannot be loaded.
#[derive(Debug, Error)]
pub enum MultibootError {
    /// No header.
    #[error(
        "the image has no Multiboot header in its first {HEAD_LEN} bytes: expected \
         {HEADER_MAGIC:#x} at a multiple of 4, with a checksum"
    )]
    NoHeader,
    /// The header ends too late.
    #[error(
        "the Multiboot header at {offset:#x} of the image has {LONG_LEN} bytes, and does not end \
         within the first {limit:#x} bytes"
    )]
    HeaderTruncated {
        /// Where it begins.
        offset: usize,
        /// Where it must have ended.
        limit: usize,
    },
    /// We have no video.
    #[error("the Multiboot header asks for a video mode (flag 2), and there is no video")]
    VideoMode,
    /// From another version of the standard.
    #[error("the Multiboot header asks for features that are not known: flags {0:#x}")]
    UnknownFlags(u32),
    /// Addresses that cannot be right.
    #[error(
        "the Multiboot header's addresses contradict each other: {what} {value:#x} is below \
         {other} {limit:#x}"
    )]
    Order {
        /// The one field.
        what: &'static str,
        /// What it says.
        value: u32,
        /// The other field.
        other: &'static str,
        /// What that says.
        limit: u32,
    },
    /// The image begins before the file does.
    #[error(
        "the Multiboot header at {offset:#x} of the image says that {before:#x} bytes before it \
         are to be loaded"
    )]
    BeforeFile {
        /// Where the header is.
        offset: usize,
        /// How many bytes are before it in memory.
        before: u32,
    },
    /// The file is shorter than the header says.
    #[error(
        "the image is truncated: its Multiboot header says that {wanted:#x} bytes are to be \
         loaded from {offset:#x} on, and the image has {len:#x}"
    )]
    Truncated {
        /// How many bytes to load.
        wanted: u64,
        /// Where they begin in the file.
        offset: u64,
        /// The length of the file.
        len: u64,
    },
    /// It cannot start there.
    #[error(
        "the Multiboot entry point {entry:#x} is not in what is loaded, at {:#x}-{:#x}",
        image.start, image.end - 1
    )]
    Entry {
        /// entry_addr.
        entry: u32,
        /// Where the image is.
        image: Range<u64>,
    },
    /// Without addresses in the header it must be an ELF file.
    #[error("the Multiboot header has no addresses (flag 16), and the ELF file cannot be loaded")]
    Elf(#[from] ElfError),
    /// A module.
    #[error(transparent)]
    Beside(#[from] BesideError),
    /// The addresses.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// A header that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Where it is in the file.
    offset: usize,
    flags: u32,
}

/// The fields of a header that say where the image goes, without an executable format that does
/// (section 3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    header: u32,
    load: u32,
    load_end: u32,
    bss_end: u32,
    entry: u32,
}

/// Looks for a header in the first bytes of an image.
pub(super) fn find(head: &[u8]) -> Option<Header> {
    let head = &head[..head.len().min(HEAD_LEN)];
    (0..head.len()).step_by(4).find_map(|offset| {
        let [magic, flags, checksum] = words::<3>(head, offset)?;
        let sum = magic.wrapping_add(flags).wrapping_add(checksum);
        (magic == HEADER_MAGIC && sum == 0).then_some(Header { offset, flags })
    })
}

/// Gives the image, the modules and what the guest is told their places, and says how it starts.
// Not a part of what every guest needs: layout.ld.
#[inline(never)]
pub(super) fn plan(
    header: Header,
    head: &[u8],
    boot: &BootConfig,
    layout: &mut Layout,
) -> Result<Start, MultibootError> {
    check_flags(header.flags)?;
    let (entry, image) = if header.flags & flags::ADDRESSES == 0 {
        let elf = Elf::parse(layout.image(), head)?;
        (elf.entry_below_4_gib()?, elf.place(layout)?)
    } else {
        let (entry, range) = place_by_addresses(header, head, layout)?;
        (entry, vec![range])
    };
    // Where other loaders put modules, and where a guest that maps little memory finds them.
    let above = image.iter().map(|range| range.end).max().unwrap_or(0);
    let info = info::place(boot, above, layout)?;
    let state = Box::new(entry_state(entry, info));
    Ok(Start::Protocol { mode: CpuMode::Protected, state, selectors: Selectors::Own })
}

/// Memory information and page-aligned modules are always there, so asking for them is nothing to
/// act on.
fn check_flags(flags: u32) -> Result<(), MultibootError> {
    if flags & flags::VIDEO_MODE != 0 {
        return Err(MultibootError::VideoMode);
    }
    let known = flags::PAGE_ALIGN | flags::MEMORY_INFO;
    match flags & flags::REQUIRED & !known {
        0 => Ok(()),
        unknown => Err(MultibootError::UnknownFlags(unknown)),
    }
}

/// Section 3.1.3, which other texts call the a.out kludge.
fn place_by_addresses(
    found: Header,
    head: &[u8],
    layout: &mut Layout,
) -> Result<(Gpa, Range<u64>), MultibootError> {
    let limit = head.len().min(HEAD_LEN);
    let [header, load, load_end, bss_end, entry] = words::<5>(head, found.offset + SHORT_LEN)
        .ok_or(MultibootError::HeaderTruncated { offset: found.offset, limit })?;
    let Range { start, end } = Addresses { header, load, load_end, bss_end, entry }
        .in_file(found.offset, layout.image().size())?;
    let file_len = end - start;
    let memory_len = match bss_end {
        0 => file_len,
        end => u64::from(end - load).max(file_len),
    };
    let range = layout.take("image", Gpa(load.into()), memory_len)?;
    layout.fill_from(&range, IMAGE, start, file_len);
    if !range.contains(&entry.into()) {
        return Err(MultibootError::Entry { entry, image: range });
    }
    Ok((Gpa(entry.into()), range))
}

impl Addresses {
    /// Which part of a file of this length is loaded.
    fn in_file(&self, offset: usize, len: u64) -> Result<Range<u64>, MultibootError> {
        let Self { header, load, load_end, bss_end, .. } = *self;
        let ordered = |what, value, other, limit| match value < limit {
            true => Err(MultibootError::Order { what, value, other, limit }),
            false => Ok(value - limit),
        };
        let before = ordered("header_addr", header, "load_addr", load)?;
        let start = (offset as u64)
            .checked_sub(before.into())
            .ok_or(MultibootError::BeforeFile { offset, before })?;
        // 0 stands for the end of the file, and for nothing behind it.
        let wanted = match load_end {
            0 => len - start,
            end => ordered("load_end_addr", end, "load_addr", load)?.into(),
        };
        if bss_end != 0 {
            ordered("bss_end_addr", bss_end, "load_addr", load)?;
            ordered("bss_end_addr", bss_end, "load_end_addr", load_end)?;
        }
        match start.checked_add(wanted) {
            Some(end) if end <= len => Ok(start..end),
            _ => Err(MultibootError::Truncated { wanted, offset: start, len }),
        }
    }
}

/// Section 3.2: 32-bit protected mode, flat segments, no paging, interrupts off, A20 on, which it
/// always is here. What it leaves open is as bare as can be.
fn entry_state(entry: Gpa, info: Gpa) -> EntryState {
    let mut state = protected::bare_state(entry, Selectors::Own);
    state.regs.rax = BOOT_MAGIC;
    state.regs.rbx = info.0;
    state
}

/// Little-endian words from an offset on, if they are all there.
fn words<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u32; N]> {
    let bytes = bytes.get(offset..)?.get(..4 * N)?;
    let mut words = [0; N];
    for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(four.try_into().ok()?);
    }
    Some(words)
}

#[cfg(test)]
mod tests;
