//! The setup header of a bzImage: what the kernel says about itself.
//!
//! A field counts only if the kernel's version of the protocol has it and the header is long
//! enough for it; what an older kernel has there is its code.

use std::ops::Range;

use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use vm_memory::ByteValued;

use super::LinuxError;
use crate::boot::file::GuestFile;
use crate::memory::EXTENDED_START;

/// The signature at the end of the boot sector.
pub(super) const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS".
pub(super) const MAGIC: u32 = 0x5372_6448;

/// The header's first byte in the file, and in the zero page.
pub(super) const OFFSET: usize = 0x1f1;
/// Where what comes behind the header in the zero page begins.
const MAX_END: usize = 0x290;
const BOOT_FLAG_OFFSET: usize = 0x1fe;
/// The byte there is what the end of the header is counted from, at the offset behind it: the
/// distance of a jump over it.
const JUMP_DISTANCE: usize = 0x201;
const JUMP_END: usize = 0x202;
const MAGIC_OFFSET: usize = 0x202;

/// Versions of the protocol, by what they brought: cmd_line_ptr; initrd_addr_max; syssize in full;
/// relocatable_kernel; cmdline_size; pref_address and init_size; xloadflags.
const VERSION_CMDLINE: u16 = 0x202;
const VERSION_INITRD_MAX: u16 = 0x203;
const VERSION_SYSSIZE: u16 = 0x204;
const VERSION_RELOCATABLE: u16 = 0x205;
const VERSION_CMDLINE_SIZE: u16 = 0x206;
const VERSION_PREFERRED: u16 = 0x20a;
pub(super) const VERSION_64: u16 = 0x20c;

/// What cmdline_size is for older kernels.
const CMDLINE_SIZE: u32 = 255;
/// The first address that an initial RAM disk must not have, where initrd_addr_max does not tell.
pub(super) const INITRD_END: u64 = 0x3800_0000;

const SECTOR: u64 = 512;
/// What setup_sects is when it is 0.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// The unit of syssize.
const PARAGRAPH: u64 = 16;

/// A bzImage whose header is in order.
#[derive(Debug)]
pub(in crate::boot) struct Kernel {
    pub(super) header: setup_header,
    /// The header as it is in the file.
    raw: Vec<u8>,
    /// Where the protected-mode code is in the file; before it is the real-mode code.
    pub(super) code: Range<u64>,
}

/// Whether this is the beginning of a kernel with a setup header.
pub(in crate::boot) fn is_kernel(head: &[u8]) -> bool {
    let is_at =
        |offset: usize, bytes: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(bytes));
    is_at(BOOT_FLAG_OFFSET, &BOOT_FLAG.to_le_bytes()) && is_at(MAGIC_OFFSET, &MAGIC.to_le_bytes())
}

impl Kernel {
    /// Reads the header of a kernel whose file begins with `head`.
    pub(in crate::boot) fn parse(file: &GuestFile, head: &[u8]) -> Result<Self, LinuxError> {
        if !is_kernel(head) {
            return Err(LinuxError::NotLinux);
        }
        let distance = head.get(JUMP_DISTANCE).copied().unwrap_or(0);
        let end = (JUMP_END + usize::from(distance)).min(MAX_END);
        let raw = head.get(OFFSET..end);
        let raw = raw.ok_or(LinuxError::HeaderTruncated { end, len: file.size() })?.to_vec();
        let mut header = setup_header::default();
        let bytes = header.as_mut_slice();
        let len = raw.len().min(bytes.len());
        bytes[..len].copy_from_slice(&raw[..len]);
        if header.version < VERSION_CMDLINE {
            return Err(LinuxError::Version(header.version));
        }
        if header.loadflags & LOADED_HIGH == 0 {
            return Err(LinuxError::ZImage);
        }
        let code = code_in(file, &header)?;
        Ok(Self { header, raw, code })
    }

    /// The header as it is in the file, from [`OFFSET`] on.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Puts a header where this one came from in the kernel's first bytes.
    pub(super) fn put(&self, header: &setup_header, bytes: &mut [u8]) {
        let header = header.as_slice();
        let len = self.raw.len().min(header.len());
        if let Some(place) = bytes.get_mut(OFFSET..OFFSET + len) {
            place.copy_from_slice(&header[..len]);
        }
    }

    fn since(&self, version: u16) -> bool {
        self.header.version >= version
    }

    /// Whether there is an entry point for 64-bit mode.
    pub(super) fn has_64(&self) -> bool {
        self.since(VERSION_64) && self.header.xloadflags & XLF_KERNEL_64 != 0
    }

    /// Whether there is one for protected mode. A kernel without it wants to be started by its
    /// real-mode code, which knows another.
    pub(super) fn has_32(&self) -> bool {
        self.header.code32_start != 0
    }

    /// Where to load a kernel that is not entered in real mode.
    pub(super) fn load_address(&self) -> Result<u64, LinuxError> {
        let relocatable = self.since(VERSION_RELOCATABLE) && self.header.relocatable_kernel != 0;
        let alignment = self.header.kernel_alignment;
        if relocatable && !alignment.is_power_of_two() {
            return Err(LinuxError::Alignment(alignment));
        }
        let preferred = self.preferred().filter(|_| relocatable);
        Ok(preferred.unwrap_or(match self.header.code32_start {
            0 => EXTENDED_START,
            start => start.into(),
        }))
    }

    /// Where the kernel wants to be, if it says so.
    pub(super) fn preferred(&self) -> Option<u64> {
        let preferred = self.header.pref_address;
        (self.since(VERSION_PREFERRED) && preferred != 0).then_some(preferred)
    }

    /// How many bytes the kernel needs from where it runs; 0 if it does not say so.
    pub(super) fn init_size(&self) -> u64 {
        if self.since(VERSION_PREFERRED) { self.header.init_size.into() } else { 0 }
    }

    /// The longest command line, without its NUL.
    pub(super) fn cmdline_limit(&self) -> u32 {
        if self.since(VERSION_CMDLINE_SIZE) { self.header.cmdline_size } else { CMDLINE_SIZE }
    }

    /// The first address that an initial RAM disk must not have.
    pub(super) fn initrd_end(&self) -> u64 {
        let last = self.header.initrd_addr_max;
        if self.since(VERSION_INITRD_MAX) { u64::from(last) + 1 } else { INITRD_END }
    }
}

/// The protected-mode code: behind the real-mode code, and as long as syssize says, which is
/// rounded up; behind it may be a signature.
fn code_in(file: &GuestFile, header: &setup_header) -> Result<Range<u64>, LinuxError> {
    let sectors = match header.setup_sects {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    // The boot sector is not counted.
    let start = (u64::from(sectors) + 1) * SECTOR;
    let wanted = match header.version {
        ..VERSION_SYSSIZE => start + 1,
        _ => start + u64::from(header.syssize) * PARAGRAPH,
    };
    let len = file.size();
    if len <= start || len + PARAGRAPH <= wanted {
        return Err(LinuxError::Truncated { wanted: wanted.max(start + 1), len });
    }
    let end = if header.version < VERSION_SYSSIZE { len } else { wanted.min(len) };
    if end == start { Err(LinuxError::NoCode(0)) } else { Ok(start..end) }
}
