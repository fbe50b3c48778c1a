//! The descriptors of protected and long mode: the GDT and the TSS at the start of the boot
//! area, and the segment registers loaded from them.
//!
//! A segment register is always decoded from its descriptor, so that what a vCPU starts with
//! and what it gets when it loads the same selector again cannot differ.
//!
//! Both modes have the same selectors, so placed that a guest may use `syscall` and `sysret`
//! with STAR[47:32] = 0x08 and STAR[63:48] = 0x10:
//!
//! | selector | descriptor |
//! |---|---|
//! | 0x08 | code, ring 0 |
//! | 0x10 | data, ring 0 |
//! | 0x1b | data, ring 3 |
//! | 0x23 | code, ring 3 |
//! | 0x28 | the TSS, busy (16 bytes in long mode) |
//!
//! The boot protocol of Linux asks for other selectors ([`Selectors::Linux`]), which it calls
//! __BOOT_CS and __BOOT_DS (Linux, Documentation/arch/x86/boot.rst): ring 0's code is 0x10 then and
//! its data 0x18, there is nothing for ring 3, and the TSS stays where it is.
//!
//! All vCPUs share the one TSS, which holds no stacks: a guest that takes interrupts in ring 3
//! brings its own. It is there because a CPU in protected mode must have one, and for its I/O
//! permission bitmap, which lets ring 3 use every port. IOPL 3 alone would do by the
//! architecture, but a KVM that runs ring 3 without hardware virtualization (PVM) does not keep
//! IOPL while it does so.

use super::state::{Segment, TableRegister};
use crate::memory::BOOT_AREA;

/// Where page tables may begin in the boot area: after the pages with the GDT and the TSS.
pub(super) const LEN: usize = 3 * 4096;

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const LINUX_CODE: u16 = 0x10;
const LINUX_DATA: u16 = 0x18;
const USER_DATA: u16 = 0x18 | 3;
const USER_CODE: u16 = 0x20 | 3;
const TSS: u16 = 0x28;

/// The TSS's offset in the boot area, and the length of its fixed part in both modes (Intel SDM
/// vol. 3, sections 9.2.1 and 9.7).
const TSS_OFFSET: usize = 0x100;
const TSS_FIXED_LEN: u16 = 0x68;
/// Where the fixed part says where the I/O permission bitmap begins.
const IO_MAP_BASE_OFFSET: usize = 0x66;
/// One bit a port, and the byte of ones that must follow (Intel SDM vol. 1, section 19.5.2).
const IO_MAP_LEN: u16 = 0x2000 + 1;
const TSS_LEN: u16 = TSS_FIXED_LEN + IO_MAP_LEN;

const _: () = assert!(TSS_OFFSET + TSS_LEN as usize <= LEN);

/// The address width of a GDT's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Bits32,
    Bits64,
}

/// Which selector is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selectors {
    /// Our own.
    Own,
    /// Those of the Linux boot protocol.
    Linux,
}

/// The number of entries: a null descriptor, four segments and the two halves of a TSS
/// descriptor, of which the second is another null descriptor in protected mode.
const ENTRIES: u16 = 7;

/// D/B: a descriptor of 32-bit code, or of data whose limit may be 4 GiB.
const BIG: u64 = 1 << 54;
/// L: a descriptor of 64-bit code.
const LONG: u64 = 1 << 53;

/// The GDT of one CPU mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gdt {
    entries: [u64; ENTRIES as usize],
    selectors: Selectors,
}

impl Gdt {
    /// The GDT whose code segments are of this width. Every descriptor has its accessed bit
    /// set, so that no load of a selector ever writes to it.
    pub(super) fn new(width: Width, selectors: Selectors) -> Self {
        let code = match width {
            Width::Bits32 => BIG,
            Width::Bits64 => LONG,
        };
        // Present, 4 KiB granularity, limit 0xfffff; then type, S and DPL.
        let flat = |access: u64| 0x008f_8000_0000_ffff | access << 40;
        let tss_base = BOOT_AREA.0 + TSS_OFFSET as u64;
        let tss = 0x0000_8b00_0000_0000
            | u64::from(TSS_LEN - 1)
            | (tss_base & 0x00ff_ffff) << 16
            | (tss_base >> 24) << 56;
        let (ring0_code, ring0_data) = (flat(0x1b) | code, flat(0x13) | BIG);
        let entries = match selectors {
            Selectors::Own => {
                [0, ring0_code, ring0_data, flat(0x73) | BIG, flat(0x7b) | code, tss, 0]
            }
            Selectors::Linux => [0, 0, ring0_code, ring0_data, 0, tss, 0],
        };
        Self { entries, selectors }
    }

    /// The start of the boot area, up to [`LEN`]: this GDT and the TSS.
    pub(super) fn area(&self) -> Vec<u8> {
        let mut area: Vec<u8> = self.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        area.resize(LEN, 0);
        let tss = &mut area[TSS_OFFSET..][..usize::from(TSS_LEN)];
        tss[IO_MAP_BASE_OFFSET..][..2].copy_from_slice(&TSS_FIXED_LEN.to_le_bytes());
        tss[usize::from(TSS_LEN) - 1] = 0xff;
        area
    }

    /// GDTR for this GDT.
    pub(super) fn register(&self) -> TableRegister {
        TableRegister { base: BOOT_AREA.0, limit: ENTRIES * 8 - 1 }
    }

    /// CS and the data segment of ring 0, or of ring 3, which only our own selectors have.
    pub(super) fn code_and_data(&self, user: bool) -> (Segment, Segment) {
        let (code, data) = match (self.selectors, user) {
            (Selectors::Own, false) => (CODE, DATA),
            (Selectors::Own, true) => (USER_CODE, USER_DATA),
            (Selectors::Linux, _) => (LINUX_CODE, LINUX_DATA),
        };
        (self.segment(code), self.segment(data))
    }

    /// TR.
    pub(super) fn tss(&self) -> Segment {
        self.segment(TSS)
    }

    /// The segment register that a load of `selector` gives (Intel SDM vol. 3, section 3.4.5).
    fn segment(&self, selector: u16) -> Segment {
        let entry = self.entries[usize::from(selector >> 3)];
        let [limit0, limit1, base0, base1, base2, access, flags, base3] = entry.to_le_bytes();
        let units = u32::from_le_bytes([limit0, limit1, flags & 0x0f, 0]);
        let limit = if flags & 0x80 == 0 { units } else { units << 12 | 0xfff };
        Segment {
            selector,
            base: u32::from_le_bytes([base0, base1, base2, base3]).into(),
            limit,
            attributes: u16::from_le_bytes([access, flags & 0xf0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_what_the_descriptors_say() {
        for (width, code_flags) in [(Width::Bits32, 0xc000), (Width::Bits64, 0xa000)] {
            let gdt = Gdt::new(width, Selectors::Own);
            let flat = |selector, attributes| Segment {
                selector,
                base: 0,
                limit: 0xffff_ffff,
                attributes,
            };
            let kernel = (flat(0x08, code_flags | 0x9b), flat(0x10, 0xc093));
            assert_eq!(gdt.code_and_data(false), kernel);
            let user = (flat(0x23, code_flags | 0xfb), flat(0x1b, 0xc0f3));
            assert_eq!(gdt.code_and_data(true), user);
            let tss =
                Segment { selector: 0x28, base: 0xf000_0100, limit: 0x2068, attributes: 0x8b };
            assert_eq!(gdt.tss(), tss);
        }
    }

    #[test]
    fn linux_has_its_selectors_and_the_same_segments() {
        for width in [Width::Bits32, Width::Bits64] {
            let (own, linux) = (Gdt::new(width, Selectors::Own), Gdt::new(width, Selectors::Linux));
            let (code, data) = linux.code_and_data(false);
            assert_eq!((code.selector, data.selector), (0x10, 0x18));
            let (own_code, own_data) = own.code_and_data(false);
            assert_eq!(Segment { selector: 0x08, ..code }, own_code);
            assert_eq!(Segment { selector: 0x10, ..data }, own_data);
            assert_eq!(linux.tss(), own.tss());
            assert_eq!(linux.area()[8..16], [0; 8]);
            assert_eq!(linux.area()[16..24], own.area()[8..16]);
        }
    }

    #[test]
    fn the_area_holds_the_entries_and_a_tss_that_allows_all_ports() {
        let gdt = Gdt::new(Width::Bits64, Selectors::Own);
        let area = gdt.area();
        let table = gdt.register();
        assert_eq!((area.len(), table.base, table.limit), (LEN, 0xf000_0000, 55));
        assert_eq!(area[8..16], 0x00af_9b00_0000_ffff_u64.to_le_bytes());
        assert_eq!(area[16..24], 0x00cf_9300_0000_ffff_u64.to_le_bytes());
        assert_eq!(area[24..32], 0x00cf_f300_0000_ffff_u64.to_le_bytes());
        assert_eq!(area[32..40], 0x00af_fb00_0000_ffff_u64.to_le_bytes());
        assert_eq!(area[40..48], 0xf000_8b00_0100_2068_u64.to_le_bytes());
        let tss = &area[0x100..=0x100 + 0x2068];
        assert_eq!(tss[0x66..0x68], [0x68, 0]);
        assert!(tss[0x68..0x2068].iter().all(|byte| *byte == 0));
        assert_eq!(tss[0x2068], 0xff);
    }
}
