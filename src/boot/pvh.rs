//! PVH: ELF executables with a note that gives a 32-bit entry point for a machine without a BIOS.
//!
//! It began as Xen's way to start guests, and is what Linux, the BSDs and unikernels offer to any
//! hypervisor. The source is "x86/HVM direct boot ABI" (Xen, docs/misc/pvh.pandoc) and
//! xen/include/public/arch-x86/hvm/start_info.h; the structures are linux-loader's. Its writing of
//! them is not used: it would have us make them in the same way, only to copy them.

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use thiserror::Error;
use vm_memory::ByteValued;

use super::beside::{self, Beside, BesideError};
use super::elf::{Elf, ElfError, Note};
use super::entry::Start;
use super::file::GuestFile;
use super::gdt::Selectors;
use super::layout::{Layout, LayoutError, Preference};
use super::memory_map::{MapEntry, memory_map};
use super::protected;
use super::state::{EntryState, Segment};
use crate::config::{BootConfig, CpuMode};
use crate::exit::Gpa;
use crate::memory::RSDP;

/// XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h).
const PHYS32_ENTRY: u32 = 18;
/// The owner of the note.
const XEN: &[u8] = b"Xen";
/// The version of start_info that has the memory map.
const VERSION: u32 = 1;

/// A present, busy 32-bit TSS, and its limit, as the ABI wants TR to be.
const TSS: u16 = 0x8b;
const TSS_LIMIT: u32 = 0x67;

/// Why a PVH guest cannot be loaded.
#[derive(Debug, Error)]
pub enum PvhError {
    /// No note.
    #[error(
        "the ELF file has no note with a PVH entry point: expected XEN_ELFNOTE_PHYS32_ENTRY \
         ({PHYS32_ENTRY}) of \"Xen\""
    )]
    NoNote,
    /// No address of 32 or 64 bits in it.
    #[error("the note with the PVH entry point has {0} bytes: expected 4 or 8")]
    NoteLen(usize),
    /// It cannot start there.
    #[error("the PVH entry point {0:#x} is in no executable segment that is loaded")]
    Entry(u64),
    /// The ELF file.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A module.
    #[error(transparent)]
    Beside(#[from] BesideError),
    /// The addresses.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// What a note says about the entry point, if it is the one that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryNote {
    Address(u64),
    BadLen(usize),
}

/// Looks at one note.
pub(super) fn entry_note(note: Note<'_>) -> Option<EntryNote> {
    if note.name != XEN || note.kind != PHYS32_ENTRY {
        return None;
    }
    // 64-bit kernels have 8 bytes, of which the upper 4 are zero.
    let address = match note.desc.len() {
        4 => note.desc.try_into().ok().map(|bytes| u32::from_le_bytes(bytes).into()),
        8 => note.desc.try_into().ok().map(u64::from_le_bytes),
        _ => None,
    };
    Some(address.map_or(EntryNote::BadLen(note.desc.len()), EntryNote::Address))
}

/// Gives the image, the modules and what the guest is told their places, and says how it starts.
// Not a part of what every guest needs: layout.ld.
#[inline(never)]
pub(super) fn plan(elf: &Elf, boot: &BootConfig, layout: &mut Layout) -> Result<Start, PvhError> {
    let entry = entry_point(elf, layout.image())?;
    elf.place(layout)?;
    let low = layout.ram().low();
    let modules = beside::place(boot, low.clone(), Preference::High, layout)?;
    let map = memory_map(layout.ram(), layout.tables());
    let strings = Strings { cmdline: boot.cmdline.as_deref(), modules: &modules };
    let len = strings.offset(&map) + strings.len();
    let place = layout.find("PVH start information", len, 8, low, Preference::Low)?;
    let rsdp = if layout.tables() { RSDP.0 } else { 0 };
    layout.fill(&place, block(place.start, rsdp, &strings, &map));
    let state = Box::new(entry_state(entry, Gpa(place.start)));
    Ok(Start::Protocol { mode: CpuMode::Protected, state, selectors: Selectors::Own })
}

fn entry_point(elf: &Elf, image: &GuestFile) -> Result<Gpa, PvhError> {
    match elf.find_note(image, entry_note)? {
        None => Err(PvhError::NoNote),
        Some(EntryNote::BadLen(len)) => Err(PvhError::NoteLen(len)),
        // Beyond 4 GiB is no 32-bit code.
        Some(EntryNote::Address(entry)) if entry >= 1 << 32 || !elf.is_code(Gpa(entry)) => {
            Err(PvhError::Entry(entry))
        }
        Some(EntryNote::Address(entry)) => Ok(Gpa(entry)),
    }
}

/// The strings behind the structures: the command line, then one for each module that has one.
struct Strings<'a> {
    cmdline: Option<&'a str>,
    modules: &'a [Beside],
}

impl Strings<'_> {
    /// Where they begin in the block.
    fn offset(&self, map: &[MapEntry]) -> u64 {
        (size_of::<hvm_start_info>()
            + self.modules.len() * size_of::<hvm_modlist_entry>()
            + map.len() * size_of::<hvm_memmap_table_entry>()) as u64
    }

    fn len(&self) -> u64 {
        let with_nul = |text: &str| text.len() as u64 + 1;
        self.cmdline.map_or(0, with_nul)
            + self.modules.iter().map(|module| with_nul(&module.args)).sum::<u64>()
    }
}

/// The bytes of the block at `base`: start_info, the modules, the memory map, the strings. An
/// address of 0 says that there is nothing.
fn block(base: u64, rsdp: u64, strings: &Strings<'_>, map: &[MapEntry]) -> Vec<u8> {
    let modules = strings.modules;
    let modules_at = base + size_of::<hvm_start_info>() as u64;
    let map_at = modules_at + (modules.len() * size_of::<hvm_modlist_entry>()) as u64;
    let strings_at = base + strings.offset(map);
    let mut text = Vec::new();
    let mut string = |value: &str| {
        let at = strings_at + text.len() as u64;
        text.extend_from_slice(value.as_bytes());
        text.push(0);
        at
    };
    let start = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        flags: 0,
        nr_modules: count(modules.len()),
        modlist_paddr: if modules.is_empty() { 0 } else { modules_at },
        cmdline_paddr: strings.cmdline.map_or(0, &mut string),
        rsdp_paddr: rsdp,
        memmap_paddr: map_at,
        memmap_entries: count(map.len()),
        reserved: 0,
    };
    let mut bytes = start.as_slice().to_vec();
    for module in modules {
        let (paddr, size) = (module.range.start, module.range.end - module.range.start);
        let cmdline_paddr = string(&module.args);
        let entry = hvm_modlist_entry { paddr, size, cmdline_paddr, reserved: 0 };
        bytes.extend_from_slice(entry.as_slice());
    }
    for MapEntry { range, usage } in map {
        let (addr, size) = (range.start, range.end - range.start);
        let entry = hvm_memmap_table_entry { addr, size, type_: *usage as u32, reserved: 0 };
        bytes.extend_from_slice(entry.as_slice());
    }
    bytes.append(&mut text);
    bytes
}

/// Modules are from a command line, which is not that long.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// 32-bit protected mode without paging, of the control registers' bits only CR0.PE on, a TSS at
/// 0, and interrupts off.
fn entry_state(entry: Gpa, start_info: Gpa) -> EntryState {
    let mut state = protected::bare_state(entry, Selectors::Own);
    state.regs.rbx = start_info.0;
    state.tr = Segment { selector: 0, base: 0, limit: TSS_LIMIT, attributes: TSS };
    state
}

#[cfg(test)]
mod tests;
