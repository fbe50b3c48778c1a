//! From an offset in a segment to a linear address (Intel SDM vol. 3, sections 3.3.7 and 5.3; vol.
//! 1, section 3.3.7.1 on canonical addresses).

use super::cpu::{Exception, SystemRegisters, attributes, bits};
use crate::boot::state::Segment;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads data.
    Read,
    /// It writes data, or reads and writes.
    Write,
    /// It fetches code.
    Fetch,
}

/// The segment registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl SystemRegisters {
    /// The segment register of this name.
    pub fn segment(&self, name: SegmentName) -> Segment {
        match name {
            SegmentName::Es => self.es,
            SegmentName::Cs => self.cs,
            SegmentName::Ss => self.ss,
            SegmentName::Ds => self.ds,
            SegmentName::Fs => self.fs,
            SegmentName::Gs => self.gs,
        }
    }

    /// Whether a linear address is canonical.
    pub fn is_canonical(&self, address: u64) -> bool {
        let unused = if self.cr4 & bits::CR4_LA57 != 0 { 7 } else { 16 };
        (address << unused).cast_signed() >> unused == address.cast_signed()
    }
}

/// The linear address of `len` bytes at `offset` in a segment.
///
/// # Errors
///
/// #SS(0) through SS and #GP(0) through another segment.
pub fn linear(
    system: &SystemRegisters,
    name: SegmentName,
    offset: u64,
    len: usize,
    access: Access,
) -> Result<u64, Exception> {
    let fault = if name == SegmentName::Ss { Exception::SS0 } else { Exception::GP0 };
    let segment = system.segment(name);
    let last = u64::try_from(len).unwrap_or(u64::MAX).saturating_sub(1);
    if system.is_64_bit() {
        let has_base = matches!(name, SegmentName::Fs | SegmentName::Gs);
        let address = offset.wrapping_add(if has_base { segment.base } else { 0 });
        let end = address.wrapping_add(last);
        let good = system.is_canonical(address) && system.is_canonical(end);
        return if good { Ok(address) } else { Err(fault) };
    }
    let offset = offset & u64::from(u32::MAX);
    if system.is_protected() && !allows(segment, access) {
        return Err(if segment.attributes & attributes::PRESENT == 0 {
            Exception::GP0
        } else {
            fault
        });
    }
    if !covers(segment, offset, offset + last) {
        return Err(fault);
    }
    Ok(segment.base.wrapping_add(offset) & u64::from(u32::MAX))
}

/// Whether the segment's type allows the access; an unusable one allows none.
fn allows(segment: Segment, access: Access) -> bool {
    let has = |bit| segment.attributes & bit != 0;
    let code = has(attributes::CODE);
    has(attributes::PRESENT)
        && match access {
            Access::Fetch => code,
            Access::Read => !code || has(attributes::WRITABLE_OR_READABLE),
            Access::Write => !code && has(attributes::WRITABLE_OR_READABLE),
        }
}

/// Whether the offsets from `first` to `last` are inside the limit.
fn covers(segment: Segment, first: u64, last: u64) -> bool {
    let limit = u64::from(segment.limit);
    let kind = attributes::CODE | attributes::EXPAND_DOWN;
    if segment.attributes & kind != attributes::EXPAND_DOWN {
        return last <= limit;
    }
    let big = segment.attributes & attributes::BIG != 0;
    let top = u64::from(if big { u32::MAX } else { u32::from(u16::MAX) });
    first > limit && last <= top
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA32: Segment =
        Segment { selector: 16, base: 0x1000, limit: 0xfff, attributes: 0x4093 };

    fn protected(data: Segment) -> SystemRegisters {
        SystemRegisters { cr0: bits::CR0_PE, ds: data, ss: data, cs: data, ..Default::default() }
    }

    fn long() -> SystemRegisters {
        let cs = Segment { attributes: 0xa09b, ..Segment::default() };
        let fs = Segment { base: 0x7000, ..Segment::default() };
        let (cr0, efer) = (bits::CR0_PE | bits::CR0_PG, bits::EFER_LMA);
        SystemRegisters { cs, fs, ds: DATA32, cr0, efer, ..Default::default() }
    }

    #[test]
    fn a_limit_counts_the_last_byte() {
        use SegmentName::{Ds, Ss};
        let system = protected(DATA32);
        assert_eq!(linear(&system, Ds, 0xff8, 8, Access::Write), Ok(0x1ff8));
        assert_eq!(linear(&system, Ds, 0xff9, 8, Access::Read), Err(Exception::GP0));
        assert_eq!(linear(&system, Ss, 0xff9, 8, Access::Read), Err(Exception::SS0));
        assert_eq!(linear(&system, Ds, 0xffff_fffe, 4, Access::Read), Err(Exception::GP0));
    }

    #[test]
    fn types_and_missing_segments_are_refused() {
        let fault = |attributes, access| {
            let system = protected(Segment { attributes, ..DATA32 });
            linear(&system, SegmentName::Ds, 0, 1, access).is_err()
        };
        let table = [
            (0x4091, Access::Read, false),
            (0x4091, Access::Write, true),
            (0x4099, Access::Read, true),
            (0x4099, Access::Fetch, false),
            (0x409b, Access::Read, false),
            (0x409b, Access::Write, true),
            (0x4093, Access::Fetch, true),
            (0x4013, Access::Read, true),
            (0, Access::Read, true),
        ];
        for (attributes, access, expected) in table {
            assert_eq!(fault(attributes, access), expected, "{attributes:#x} {access:?}");
        }
    }

    #[test]
    fn a_segment_that_expands_down_lies_above_its_limit() {
        let covered = |attributes, offset, len| {
            let system = protected(Segment { attributes, ..DATA32 });
            linear(&system, SegmentName::Ds, offset, len, Access::Read).is_ok()
        };
        assert!(!covered(0x4097, 0xfff, 1));
        assert!(covered(0x4097, 0x1000, 8));
        assert!(covered(0x0097, 0xffff, 1));
        assert!(!covered(0x0097, 0xffff, 2));
    }

    #[test]
    fn in_64_bit_mode_addresses_are_canonical_and_limits_do_not_count() {
        use SegmentName::{Ds, Fs, Ss};
        let system = long();
        assert_eq!(linear(&system, Ds, 0x1234_5678_9abc, 8, Access::Write), Ok(0x1234_5678_9abc));
        assert_eq!(linear(&system, Fs, 0x10, 8, Access::Write), Ok(0x7010));
        assert_eq!(linear(&system, Ds, 1 << 47, 1, Access::Read), Err(Exception::GP0));
        assert_eq!(linear(&system, Ss, (1 << 47) - 1, 2, Access::Read), Err(Exception::SS0));
        assert_eq!(linear(&system, Ds, !0, 1, Access::Read), Ok(!0));
        let wide = SystemRegisters { cr4: bits::CR4_LA57, ..system };
        assert_eq!(linear(&wide, Ds, 1 << 47, 1, Access::Read), Ok(1 << 47));
        assert_eq!(linear(&wide, Ds, 1 << 56, 1, Access::Read), Err(Exception::GP0));
    }

    #[test]
    fn real_mode_has_bases_and_limits_and_no_types() {
        let segment = Segment { base: 0xf_fff0, limit: 0xffff, ..Segment::default() };
        let system = SystemRegisters { ds: segment, ..Default::default() };
        assert_eq!(linear(&system, SegmentName::Ds, 0x10, 2, Access::Write), Ok(0x10_0000));
        let fault = linear(&system, SegmentName::Ds, 0xffff, 2, Access::Read);
        assert_eq!(fault, Err(Exception::GP0));
    }
}
