//! A bus: which device answers at which address. Built once, before the first vCPU runs, and
//! then only read; the devices themselves are elsewhere (`devices/mod.rs`).

/// What is found at each address of one address space: ranges that do not overlap, kept in
/// order. `D` names a device.
#[derive(Clone, Debug)]
pub struct Bus<D> {
    /// The last address of the space.
    limit: u64,
    ranges: Vec<Range<D>>,
}

#[derive(Clone, Debug)]
struct Range<D> {
    first: u64,
    last: u64,
    name: &'static str,
    device: D,
}

/// A range that a bus refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// A length of zero.
    #[error("range {base:#x}+0 of {name} is empty")]
    Empty {
        /// First address.
        base: u64,
        /// Whose range it is.
        name: &'static str,
    },
    /// It ends above the last address of the space.
    #[error("range {base:#x}+{len:#x} of {name} ends above {limit:#x}")]
    TooHigh {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
        /// Whose range it is.
        name: &'static str,
        /// The last address of the space.
        limit: u64,
    },
    /// Another device is there.
    #[error("range {base:#x}+{len:#x} of {name} overlaps {other_base:#x}+{other_len:#x} ({other})")]
    Overlap {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
        /// Whose range it is.
        name: &'static str,
        /// First address of the range that is there.
        other_base: u64,
        /// Its length in bytes.
        other_len: u64,
        /// Whose it is.
        other: &'static str,
    },
}

impl<D: Copy> Bus<D> {
    /// An empty bus over the addresses 0 to `limit`.
    pub fn new(limit: u64) -> Self {
        Self { limit, ranges: Vec::new() }
    }

    /// The 64 KiB of port I/O.
    pub fn pio() -> Self {
        Self::new(u64::from(u16::MAX))
    }

    /// Guest-physical addresses.
    pub fn mmio() -> Self {
        Self::new(u64::MAX)
    }

    /// Puts `device` at `len` addresses from `base`.
    ///
    /// # Errors
    ///
    /// [`BusError`] for a range that is empty, outside the space, or taken.
    pub fn insert(
        &mut self,
        base: u64,
        len: u64,
        name: &'static str,
        device: D,
    ) -> Result<(), BusError> {
        let span = len.checked_sub(1).ok_or(BusError::Empty { base, name })?;
        let last = base
            .checked_add(span)
            .filter(|last| *last <= self.limit)
            .ok_or(BusError::TooHigh { base, len, name, limit: self.limit })?;
        let place = self.ranges.partition_point(|range| range.last < base);
        if let Some(other) = self.ranges.get(place).filter(|other| other.first <= last) {
            return Err(BusError::Overlap {
                base,
                len,
                name,
                other_base: other.first,
                other_len: other.last - other.first + 1,
                other: other.name,
            });
        }
        self.ranges.insert(place, Range { first: base, last, name, device });
        Ok(())
    }

    /// The device at `addr`, and the offset of `addr` in its range.
    pub fn find(&self, addr: u64) -> Option<(D, u64)> {
        let range = self.range_at(addr)?;
        Some((range.device, addr - range.first))
    }

    /// The device whose range holds all `size` bytes from `addr`, and the offset of `addr`.
    pub fn find_whole(&self, addr: u64, size: u8) -> Option<(D, u64)> {
        let range = self.range_at(addr)?;
        let last = addr.checked_add(u64::from(size).saturating_sub(1))?;
        (last <= range.last).then_some((range.device, addr - range.first))
    }

    fn range_at(&self, addr: u64) -> Option<&Range<D>> {
        let place = self.ranges.partition_point(|range| range.last < addr);
        self.ranges.get(place).filter(|range| range.first <= addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_empty_high_and_overlapping_ranges() {
        let mut bus = Bus::pio();
        bus.insert(0x3f8, 8, "uart0", 1).unwrap();
        let refused = |bus: &Bus<i32>, base, len| {
            let mut bus = bus.clone();
            bus.insert(base, len, "new", 2).map_err(|error| error.to_string())
        };
        assert_eq!(refused(&bus, 0x10, 0), Err("range 0x10+0 of new is empty".into()));
        assert_eq!(
            refused(&bus, 0xffff, 2),
            Err("range 0xffff+0x2 of new ends above 0xffff".into())
        );
        assert_eq!(
            refused(&bus, 0x3f0, 16),
            Err("range 0x3f0+0x10 of new overlaps 0x3f8+0x8 (uart0)".into())
        );
        assert_eq!(refused(&bus, 0xffff, 1), Ok(()));
        assert!(refused(&Bus::mmio(), u64::MAX, 1).is_ok());
        assert!(refused(&Bus::mmio(), u64::MAX, 2).is_err());
    }

    #[test]
    fn an_access_that_leaves_its_device_is_not_whole() {
        let mut bus = Bus::pio();
        bus.insert(0x3f8, 8, "uart0", 1).unwrap();
        assert_eq!(bus.find_whole(0x3fc, 4), Some((1, 4)));
        assert_eq!(bus.find_whole(0x3fe, 4), None);
        assert_eq!(bus.find_whole(0x3f7, 2), None);
        assert_eq!(bus.find(0x3ff), Some((1, 7)));
        assert_eq!(bus.find(0x400), None);
    }

    proptest! {
        /// A bus agrees with the most naive model: a list of the device at each address.
        #[test]
        fn agrees_with_a_naive_model(
            ranges in prop::collection::vec((0u64..300, 0u64..40), 0..30),
            accesses in prop::collection::vec((0u64..300, 1u8..=8), 0..50),
        ) {
            const LIMIT: u64 = 255;
            let mut bus = Bus::new(LIMIT);
            let mut model: Vec<Option<(usize, u64)>> = vec![None; 400];
            for (device, (base, len)) in ranges.into_iter().enumerate() {
                let cells = usize::try_from(base).unwrap()..usize::try_from(base + len).unwrap();
                let fits = len > 0
                    && base + len - 1 <= LIMIT
                    && model[cells.clone()].iter().all(Option::is_none);
                prop_assert_eq!(bus.insert(base, len, "device", device).is_ok(), fits);
                if fits {
                    for (offset, cell) in (0..).zip(&mut model[cells]) {
                        *cell = Some((device, offset));
                    }
                }
            }
            for (addr, size) in accesses {
                let at = usize::try_from(addr).unwrap();
                prop_assert_eq!(bus.find(addr), model[at]);
                let first = model[at];
                let whole = model[at..at + usize::from(size)]
                    .iter()
                    .all(|cell| cell.map(|(device, _)| device) == first.map(|(device, _)| device));
                prop_assert_eq!(bus.find_whole(addr, size), first.filter(|_| whole));
            }
        }
    }
}
