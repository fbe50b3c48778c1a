//! The walk through the guest's page tables, with permissions and the accessed and dirty bits
//! (Intel SDM vol. 3, chapter 5). KVM_TRANSLATE tells of no permissions, hence this one.
//!
//! Formats: none, 32-bit, PAE, 4-level and 5-level. The PDPTEs of PAE paging, which a processor
//! keeps in registers since the last load of CR3, are read from memory.

use super::cpu::{Cpu, Exception, SystemRegisters, bits};
use super::segment::Access;
use super::stop::Stop;
use crate::exit::Gpa;

/// The bits of a page fault's error code (section 5.7).
mod code {
    pub const PRESENT: u32 = 1 << 0;
    pub const WRITE: u32 = 1 << 1;
    pub const USER: u32 = 1 << 2;
    pub const RESERVED: u32 = 1 << 3;
    pub const FETCH: u32 = 1 << 4;
    pub const KEY: u32 = 1 << 5;
}

/// The bits of an entry of any paging structure (section 5.5, tables 5-15 to 5-21).
mod entry {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const LARGE: u64 = 1 << 7;
    pub const NO_EXECUTE: u64 = 1 << 63;
}

/// How often other vCPUs may change an entry under a walk before the guest runs on and comes back.
const MAX_RACES: usize = 64;

/// Who wants to access what.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The linear address.
    pub linear: u64,
    /// What for.
    pub access: Access,
    /// By CPL 3, and not for a system structure.
    pub user: bool,
    /// SMAP does not apply: RFLAGS.AC is set, and the access is not to a system structure.
    pub may_touch_user: bool,
    /// PKRU, where protection keys are on.
    pub pkru: u32,
}

/// The shape of one format of paging.
struct Format {
    /// Bytes of an entry.
    entry_len: usize,
    /// Bits of index, at each level but the top one of PAE.
    index_bits: u32,
    levels: u32,
    /// The width of a physical address.
    physical_bits: u32,
    no_execute: bool,
    /// Level 2 may map a page: always, but in 32-bit paging only with CR4.PSE.
    large: bool,
}

impl Format {
    fn of(system: &SystemRegisters, physical_bits: u32) -> Self {
        let no_execute = system.efer & bits::EFER_NXE != 0;
        let wide =
            Self { entry_len: 8, index_bits: 9, levels: 3, physical_bits, no_execute, large: true };
        if system.is_long() {
            let levels = if system.cr4 & bits::CR4_LA57 != 0 { 5 } else { 4 };
            Self { levels, ..wide }
        } else if system.cr4 & bits::CR4_PAE != 0 {
            wide
        } else {
            let large = system.cr4 & bits::CR4_PSE != 0;
            Self { entry_len: 4, index_bits: 10, levels: 2, no_execute: false, large, ..wide }
        }
    }

    fn is_legacy(&self) -> bool {
        self.entry_len == 4
    }

    /// The top table of PAE paging: its entries have neither permissions nor an accessed bit.
    fn is_pdpte(&self, level: u32) -> bool {
        self.levels == 3 && level == 3
    }

    fn page_shift(&self, level: u32) -> u32 {
        12 + self.index_bits * (level - 1)
    }

    fn index(&self, linear: u64, level: u32) -> u64 {
        let bits = if self.is_pdpte(level) { 2 } else { self.index_bits };
        linear >> self.page_shift(level) & ((1 << bits) - 1)
    }

    fn frame_mask(&self) -> u64 {
        if self.is_legacy() { 0xffff_f000 } else { mask(12, self.physical_bits) }
    }

    fn is_page(&self, value: u64, level: u32) -> bool {
        let may_be_large = match level {
            2 => self.large,
            3 => !self.is_pdpte(3),
            _ => false,
        };
        level == 1 || may_be_large && value & entry::LARGE != 0
    }

    /// The bits that must be zero in an entry.
    fn reserved(&self, value: u64, level: u32) -> u64 {
        if self.is_legacy() {
            // A page of 4 MiB has bits 39:32 of its address in 20:13, as far as there are any.
            let large = level == 2 && self.is_page(value, level);
            let beyond = self.physical_bits.min(40) - 32 + 13;
            return if large { mask(beyond, 22) } else { 0 };
        }
        let mut reserved = mask(self.physical_bits, 52);
        if self.levels == 3 {
            reserved |= mask(52, 63);
        }
        if !self.no_execute {
            reserved |= entry::NO_EXECUTE;
        }
        if self.is_pdpte(level) {
            // Bits 1 and 2 and 5 to 8 are reserved there.
            return reserved | entry::NO_EXECUTE | 0x1e6;
        }
        match level {
            1 => reserved,
            2 | 3 if self.is_page(value, level) => reserved | mask(13, self.page_shift(level)),
            2 | 3 => reserved,
            _ => reserved | entry::LARGE,
        }
    }

    /// The address of the page that an entry maps.
    fn page(&self, value: u64, level: u32) -> u64 {
        if self.is_legacy() && level == 2 {
            return value & 0xffc0_0000 | (value >> 13 & 0xff) << 32;
        }
        value & self.frame_mask() & !mask(0, self.page_shift(level))
    }
}

/// The bits from `from` up to, not including, `to`.
fn mask(from: u32, to: u32) -> u64 {
    let below = |bits: u32| 1u64.checked_shl(bits).map_or(u64::MAX, |bit| bit - 1);
    below(to) & !below(from)
}

/// What the entries of a walk allow together.
struct Rights {
    write: bool,
    user: bool,
    execute: bool,
    /// Bits 62:59 of the last entry.
    key: u32,
}

/// The physical address of `request.linear`; sets the accessed bits and, for a write, the dirty
/// bit.
///
/// # Errors
///
/// A page fault; or the tables are not in memory, or change all the time.
pub fn translate(
    cpu: &mut impl Cpu,
    system: &SystemRegisters,
    request: &Request,
) -> Result<Gpa, Stop> {
    if system.cr0 & bits::CR0_PG == 0 {
        return Ok(Gpa(request.linear));
    }
    let format = Format::of(system, physical_bits(cpu)?);
    for _ in 0..MAX_RACES {
        if let Some(gpa) = walk(cpu, system, &format, request)? {
            return Ok(gpa);
        }
    }
    Err(Stop::Again)
}

/// MAXPHYADDR (Intel SDM vol. 2, CPUID leaf 0x8000_0008); 36 on a CPU that does not say.
fn physical_bits(cpu: &mut impl Cpu) -> Result<u32, Stop> {
    let [eax, ..] = cpu.cpuid(0x8000_0008, 0)?;
    Ok(if eax & 0xff == 0 { 36 } else { (eax & 0xff).clamp(32, 52) })
}

/// One walk; none if an entry has changed meanwhile.
fn walk(
    cpu: &mut impl Cpu,
    system: &SystemRegisters,
    format: &Format,
    request: &Request,
) -> Result<Option<Gpa>, Stop> {
    let table_mask = if format.levels == 3 { 0xffff_ffe0 } else { format.frame_mask() };
    let mut table = system.cr3 & table_mask;
    let mut rights = Rights { write: true, user: true, execute: true, key: 0 };
    let mut passed = Vec::with_capacity(5);
    let mut level = format.levels;
    let (value, place) = loop {
        let place = Gpa(table + format.index(request.linear, level) * format.entry_len as u64);
        let value = read_entry(cpu, place, format.entry_len)?;
        if value & entry::PRESENT == 0 {
            return Err(fault(system, request, 0).into());
        }
        if value & format.reserved(value, level) != 0 {
            return Err(fault(system, request, code::PRESENT | code::RESERVED).into());
        }
        if !format.is_pdpte(level) {
            rights.write &= value & entry::WRITE != 0;
            rights.user &= value & entry::USER != 0;
            rights.execute &= !format.no_execute || value & entry::NO_EXECUTE == 0;
        }
        if format.is_page(value, level) {
            break (value, place);
        }
        if !format.is_pdpte(level) {
            passed.push((place, value));
        }
        table = value & format.frame_mask();
        level -= 1;
    };
    rights.key = u32::try_from(value >> 59 & 0xf).unwrap_or(0);
    if let Some(bits) = denied(system, &rights, request) {
        return Err(fault(system, request, code::PRESENT | bits).into());
    }
    for (place, value) in passed {
        if !set_bits(cpu, format, place, value, entry::ACCESSED)? {
            return Ok(None);
        }
    }
    let dirty = if request.access == Access::Write { entry::DIRTY } else { 0 };
    if !set_bits(cpu, format, place, value, entry::ACCESSED | dirty)? {
        return Ok(None);
    }
    let offset = request.linear & mask(0, format.page_shift(level));
    Ok(Some(Gpa(format.page(value, level) | offset)))
}

fn read_entry(cpu: &mut impl Cpu, place: Gpa, len: usize) -> Result<u64, Stop> {
    let mut bytes = [0; 8];
    cpu.read(place, &mut bytes[..len])?;
    Ok(u64::from_le_bytes(bytes))
}

/// Sets bits in an entry that had `value`; false if it no longer has.
fn set_bits(
    cpu: &mut impl Cpu,
    format: &Format,
    place: Gpa,
    value: u64,
    bits: u64,
) -> Result<bool, Stop> {
    if value & bits == bits {
        return Ok(true);
    }
    let (old, new) = (u128::from(value), u128::from(value | bits));
    Ok(cpu.compare_exchange(place, format.entry_len, old, new)? == old)
}

/// Why the rights do not allow the access, as bits of the error code beside those that tell of the
/// access itself; none if they do (section 5.6).
fn denied(system: &SystemRegisters, rights: &Rights, request: &Request) -> Option<u32> {
    let write_protect = system.cr0 & bits::CR0_WP != 0;
    let write = request.access == Access::Write;
    if request.access == Access::Fetch {
        let smep = system.cr4 & bits::CR4_SMEP != 0;
        let forbidden = if request.user { !rights.user } else { smep && rights.user };
        return (forbidden || !rights.execute).then_some(0);
    }
    let smap = system.cr4 & bits::CR4_SMAP != 0;
    let of_mode = if request.user {
        !rights.user || write && !rights.write
    } else {
        smap && rights.user && !request.may_touch_user || write && write_protect && !rights.write
    };
    if of_mode {
        return Some(0);
    }
    if rights.user && system.is_long() && system.cr4 & bits::CR4_PKE != 0 {
        // Two bits a key: access disable, write disable (section 5.6.2).
        let key = request.pkru >> (2 * rights.key);
        let no_write = write && key & 2 != 0 && (request.user || write_protect);
        return (key & 1 != 0 || no_write).then_some(code::KEY);
    }
    None
}

fn fault(system: &SystemRegisters, request: &Request, bits: u32) -> Exception {
    let no_execute = system.efer & bits::EFER_NXE != 0 && system.cr4 & bits::CR4_PAE != 0;
    let tells_fetches = no_execute || system.cr4 & bits::CR4_SMEP != 0;
    let access = match request.access {
        Access::Write => code::WRITE,
        Access::Fetch if tells_fetches => code::FETCH,
        _ => 0,
    };
    let user = if request.user { code::USER } else { 0 };
    Exception::pf(request.linear, bits | access | user)
}

#[cfg(test)]
mod tests;
