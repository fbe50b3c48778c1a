//! Where the vCPUs' stacks lie: one each, side by side, in low RAM beside the image.
//!
//! The rule, in every mode: the image, or each segment of one that has some, cuts the RAM from
//! 0x500 to a limit into parts, and on a machine with tables that describe it so does what a PC has
//! below 1 MiB. The stacks are at the top of the largest part, vCPU 0's highest. The limit is 1 MiB
//! in real mode, as far as SS reaches, and else 3 GiB, where RAM below the hole ends. Arithmetic
//! only; `entry.rs` puts the result in registers.

use std::ops::Range;

use thiserror::Error;

use super::layout::gaps;
use crate::config::VcpuCount;
use crate::exit::VcpuId;

/// No stack is below this: the real-mode interrupt table and BIOS data area are.
const FLOOR: u64 = 0x500;
const ALIGN: u64 = 16;
const MIN_SIZE: u64 = 64;
const MAX_SIZE: u64 = 16 << 10;

/// There is no room for a stack for every vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no room for {count} stacks of at least {MIN_SIZE} bytes between {start:#x} and {end:#x}")]
pub struct StackError {
    /// How many stacks are needed.
    pub count: u32,
    /// The first address of the room there is.
    pub start: u64,
    /// The address after its last.
    pub end: u64,
}

/// The stacks of all vCPUs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stacks {
    top: u64,
    size: u64,
}

impl Stacks {
    /// Stacks for so many vCPUs in the RAM below `limit` and beside what is `taken`, which is in
    /// the order of addresses: the largest that there is room for up to 16 KiB each, and a multiple
    /// of 16 bytes.
    ///
    /// # Errors
    ///
    /// If they would be smaller than 64 bytes.
    pub(super) fn new(
        count: VcpuCount,
        taken: impl IntoIterator<Item = Range<u64>>,
        limit: u64,
    ) -> Result<Self, StackError> {
        // The last one of the largest, if there are several.
        let room = gaps(FLOOR..limit, taken).into_iter().max_by_key(|gap| gap.end - gap.start);
        let room = room.unwrap_or(limit..limit);

        let count = count.get();
        let top = room.end / ALIGN * ALIGN;
        let bottom = room.start.next_multiple_of(ALIGN);
        let size = top.saturating_sub(bottom) / u64::from(count) / ALIGN * ALIGN;
        if size < MIN_SIZE {
            return Err(StackError { count, start: room.start, end: room.end });
        }
        Ok(Self { top, size: size.min(MAX_SIZE) })
    }

    /// The addresses of one vCPU's stack; both ends are multiples of 16.
    pub(super) fn of(&self, id: VcpuId) -> Range<u64> {
        let end = self.top - u64::from(id.0) * self.size;
        end - self.size..end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stacks(count: u32, image: Range<u64>, limit: u64) -> Result<Stacks, StackError> {
        Stacks::new(VcpuCount::new(count).unwrap(), [image], limit)
    }

    #[test]
    fn stacks_lie_at_the_top_vcpu_0_highest() {
        let stacks = stacks(2, 0x1000..0x1011, 128 << 20).unwrap();
        assert_eq!(stacks.of(VcpuId(0)), 0x7ff_c000..0x800_0000);
        assert_eq!(stacks.of(VcpuId(1)), 0x7ff_8000..0x7ff_c000);
    }

    #[test]
    fn an_image_at_the_top_has_the_stacks_below_it() {
        let stacks = stacks(1, 0xf_0003..0x10_0000, 1 << 20).unwrap();
        assert_eq!(stacks.of(VcpuId(0)), 0xe_c000..0xf_0000);
    }

    #[test]
    fn an_image_above_the_limit_leaves_all_of_it() {
        let stacks = stacks(1, 0x20_0000..0x30_0000, 1 << 20).unwrap();
        assert_eq!(stacks.of(VcpuId(0)), 0xf_c000..0x10_0000);
    }

    #[test]
    fn one_page_of_ram_is_enough() {
        let stacks = stacks(4, 0..0x20, 0x1000).unwrap();
        assert_eq!(stacks.of(VcpuId(3)), 0x500..0x7c0);
    }

    #[test]
    fn too_little_room_is_an_error_with_the_numbers() {
        assert!(stacks(63, 0x1000..0x1011, 0x2000).is_ok());
        let error = stacks(1024, 0x1000..0x1011, 0x2000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no room for 1024 stacks of at least 64 bytes between 0x1011 and 0x2000"
        );
        assert!(stacks(1, 0..0x1000, 0x1000).is_err(), "the image fills all of it");
    }

    #[test]
    fn every_range_cuts_the_room() {
        let taken = [0x8000..0x9000, 0x10_0000..0x20_0000, 0x30_0000..0x31_0000];
        let stacks = Stacks::new(VcpuCount::default(), taken, 0x38_0000).unwrap();
        assert_eq!(stacks.of(VcpuId(0)), 0x2f_c000..0x30_0000);
    }

    proptest! {
        #[test]
        fn stacks_are_aligned_in_ram_and_disjoint(
            count in 1..2000_u32,
            start in 0..0x40_0000_u64,
            len in 1..0x20_0000_u64,
            pages in 1..0x400_u64,
        ) {
            let (image, limit) = (start..start + len, pages * 4096);
            if let Ok(stacks) = stacks(count, image.clone(), limit) {
                let mut above = limit;
                for id in 0..count {
                    let stack = stacks.of(VcpuId(id));
                    prop_assert!(stack.end <= above, "overlaps the one above, or leaves RAM");
                    prop_assert!(stack.start >= FLOOR && stack.start + MIN_SIZE <= stack.end);
                    prop_assert!(stack.end <= image.start || stack.start >= image.end);
                    prop_assert!(stack.start.is_multiple_of(16) && stack.end.is_multiple_of(16));
                    above = stack.start;
                }
            } else {
                // The error is true: not even the larger gap has 64 bytes for each, give or
                // take the alignment of its two ends.
                let below = image.start.min(limit).saturating_sub(FLOOR);
                let above = limit.saturating_sub(image.end.max(FLOOR));
                prop_assert!(below.max(above) < u64::from(count) * MIN_SIZE + 2 * ALIGN);
            }
        }
    }
}
