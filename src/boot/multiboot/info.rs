//! What a Multiboot kernel is told: the information structure, the modules, the memory map and the
//! strings (Multiboot Specification 0.6.96, section 3.3).
//!
//! All but the modules is one block of memory below 1 MiB where there is room for it. A kernel
//! must copy it before it uses that memory for something else: the memory map shows it as RAM.

use super::MultibootError;
use crate::boot::beside::{self, Beside};
use crate::boot::layout::{Layout, Preference, below_4_gib};
use crate::boot::memory_map::{MapEntry, memory_map};
use crate::config::BootConfig;
use crate::exit::Gpa;
use crate::memory::{CONVENTIONAL_END, EXTENDED_START, RamLayout};

/// Which fields are there (section 3.3). The boot device is not: there is none.
mod flags {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
}

/// The length of the structure, up to the end of the last field that the standard has.
const LEN: u64 = 116;
/// The length of a module's entry.
const MODULE_LEN: u64 = 16;
/// The length of an entry of the memory map, and what its own field says, which does not count
/// itself.
const MAP_ENTRY_LEN: u64 = 24;
const MAP_ENTRY_SIZE: u32 = 20;

const LOADER_NAME: &str = concat!("minivmm ", env!("CARGO_PKG_VERSION"));

/// A block in which every address is known before its bytes are.
struct Block {
    base: u64,
    bytes: Vec<u8>,
}

impl Block {
    /// Where the next bytes go.
    fn here(&self) -> u32 {
        below_4_gib(self.base + self.bytes.len() as u64)
    }

    fn words(&mut self, words: &[u32]) {
        self.bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// A string with the NUL at its end; returns its address.
    fn string(&mut self, text: &[u8]) -> u32 {
        let at = self.here();
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        at
    }
}

/// Places the modules, and the information about all; returns the address of that.
///
/// Modules begin on pages, whether the kernel asks for it or not, above the image.
pub(super) fn place(
    boot: &BootConfig,
    above: u64,
    layout: &mut Layout,
) -> Result<Gpa, MultibootError> {
    let low = layout.ram().low();
    let modules = beside::place(boot, above..low.end, Preference::Low, layout)?;
    let command_line = command_line(layout.image().name(), boot.cmdline.as_deref());
    let map = memory_map(layout.ram(), layout.tables());
    let strings = modules.iter().map(|module| module.args.len() + 1).sum::<usize>()
        + command_line.len()
        + LOADER_NAME.len()
        + 2;
    let len =
        LEN + modules.len() as u64 * MODULE_LEN + map.len() as u64 * MAP_ENTRY_LEN + strings as u64;
    let place = layout.find("Multiboot information", len, 16, low, Preference::Low)?;
    let bytes = block(place.start, layout.ram(), &command_line, &modules, &map);
    layout.fill(&place, bytes);
    Ok(Gpa(place.start))
}

/// The image's name, then what the user gave. The standard leaves the form of it open, and kernels
/// for it, which know this from other loaders, skip the first word.
fn command_line(image: &str, given: Option<&str>) -> Vec<u8> {
    match given {
        Some(given) => format!("{image} {given}").into_bytes(),
        None => image.as_bytes().to_vec(),
    }
}

/// The bytes of the block at `base`: the structure, the modules, the map, the strings.
fn block(
    base: u64,
    ram: RamLayout,
    command_line: &[u8],
    modules: &[Beside],
    map: &[MapEntry],
) -> Vec<u8> {
    let modules_at = base + LEN;
    let map_at = modules_at + modules.len() as u64 * MODULE_LEN;
    let map_len = map.len() as u64 * MAP_ENTRY_LEN;
    // The strings come first into being, for their addresses are needed.
    let mut strings = Block { base: map_at + map_len, bytes: Vec::new() };
    let command_line = strings.string(command_line);
    let loader_name = strings.string(LOADER_NAME.as_bytes());
    let args: Vec<u32> = modules.iter().map(|m| strings.string(m.args.as_bytes())).collect();

    let has_modules = if modules.is_empty() { 0 } else { flags::MODULES };
    let flags = flags::MEMORY | flags::COMMAND_LINE | flags::MEMORY_MAP | flags::LOADER_NAME;
    let (lower, upper) = lower_and_upper(ram);
    let mut block = Block { base, bytes: Vec::new() };
    block.words(&[flags | has_modules, lower, upper]);
    block.words(&[0, command_line]); // boot_device, cmdline
    let modules_at = if modules.is_empty() { 0 } else { below_4_gib(modules_at) };
    block.words(&[below_4_gib(modules.len() as u64), modules_at]);
    block.words(&[0; 4]); // syms
    block.words(&[below_4_gib(map_len), below_4_gib(map_at)]);
    block.words(&[0; 3]); // drives_length, drives_addr, config_table
    block.words(&[loader_name]);
    block.bytes.resize(usize::try_from(LEN).unwrap_or(0), 0);
    for (module, args) in modules.iter().zip(args) {
        let range = &module.range;
        block.words(&[below_4_gib(range.start), below_4_gib(range.end), args, 0]);
    }
    for entry in map {
        block.words(&[MAP_ENTRY_SIZE]);
        let (start, len) = (entry.range.start, entry.range.end - entry.range.start);
        block.bytes.extend(start.to_le_bytes());
        block.bytes.extend(len.to_le_bytes());
        block.words(&[entry.usage as u32]);
    }
    block.bytes.append(&mut strings.bytes);
    block.bytes
}

/// mem_lower and mem_upper: KiB from 0, and from 1 MiB up to the first hole.
fn lower_and_upper(ram: RamLayout) -> (u32, u32) {
    let end = ram.low().end;
    let upper = end.saturating_sub(EXTENDED_START);
    (below_4_gib(end.min(CONVENTIONAL_END) >> 10), below_4_gib(upper >> 10))
}

#[cfg(test)]
mod tests;
