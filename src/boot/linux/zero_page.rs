//! The zero page, `struct boot_params`: what a kernel is told in the 32-bit and the 64-bit boot
//! protocol, with the command line behind it (Linux, Documentation/arch/x86/zero-page.rst).

use linux_loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::ByteValued;

use super::header::OFFSET;
use super::{LinuxError, Told, place_initrd, with_nul};
use crate::boot::layout::{Layout, Preference};
use crate::boot::memory_map::{MapEntry, memory_map};
use crate::config::{BootConfig, MemorySize};
use crate::exit::Gpa;
use crate::memory::RSDP;

/// The page's own length; the command line is on the next one.
const LEN: u64 = MemorySize::PAGE;

const _: () = assert!(size_of::<boot_params>() as u64 == LEN);

/// Places the initial RAM disk, the zero page and the command line; returns the address of the
/// zero page. `raw` is the header as the file has it, which may be longer than `told.header`.
pub(super) fn place(
    mut told: Told<'_>,
    raw: &[u8],
    boot: &BootConfig,
    layout: &mut Layout,
) -> Result<Gpa, LinuxError> {
    let cmdline = with_nul(told.cmdline);
    let initrd = place_initrd(boot, told.initrd_end, layout)?;
    let len = LEN + cmdline.len() as u64;
    let low = layout.ram().low();
    let place = layout.find("zero page and command line", len, LEN, low, Preference::Low)?;
    told.fill_in(place.start + LEN, initrd);
    let rsdp = if layout.tables() { RSDP.0 } else { 0 };
    let map = memory_map(layout.ram(), layout.tables());
    let mut bytes = zero_page(&told, raw, rsdp, &map);
    bytes.extend(cmdline);
    layout.fill(&place, bytes);
    Ok(Gpa(place.start))
}

fn zero_page(told: &Told<'_>, raw: &[u8], rsdp: u64, map: &[MapEntry]) -> Vec<u8> {
    let mut params = boot_params { acpi_rsdp_addr: rsdp, ..boot_params::default() };
    // Far fewer than the table has room for.
    params.e820_entries = u8::try_from(map.len()).unwrap_or(0);
    let mut table = params.e820_table;
    for (entry, MapEntry { range, usage }) in table.iter_mut().zip(map) {
        let (addr, size) = (range.start, range.end - range.start);
        *entry = boot_e820_entry { addr, size, r#type: *usage as u32 };
    }
    params.e820_table = table;
    let mut bytes = params.as_slice().to_vec();
    let header = told.header.as_slice();
    bytes[OFFSET..][..raw.len()].copy_from_slice(raw);
    bytes[OFFSET..][..header.len()].copy_from_slice(header);
    bytes
}
