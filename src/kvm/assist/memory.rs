//! Guest memory past KVM: the note of what was written, and compare-and-exchange by the host's own
//! atomic instruction on the memory behind the guest's.

use std::arch::{asm, is_x86_feature_detected};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::assist::cpu::NoMemory;
use crate::exit::Gpa;
use crate::memory::GuestMemory;
use crate::memory::first_image::PAGE;

/// The pages of guest memory that were written past KVM, of which its log of dirty pages does not
/// know. Locked by itself only.
#[derive(Debug, Default)]
pub struct WrittenPages(Mutex<BTreeSet<u64>>);

impl WrittenPages {
    pub(super) fn add(&self, gpa: Gpa, len: usize) {
        let last = gpa.0.saturating_add(len.saturating_sub(1) as u64);
        let page = PAGE as u64;
        self.0.lock().extend((gpa.0 / page..=last / page).map(|number| number * page));
    }

    /// Hands them out, by the addresses of their first bytes, and forgets them.
    pub fn take(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.0.lock())
    }
}

/// As [`Cpu::compare_exchange`](crate::assist::cpu::Cpu::compare_exchange), on `memory`.
pub(super) fn compare_exchange(
    memory: &GuestMemory,
    gpa: Gpa,
    len: usize,
    old: u128,
    new: u128,
) -> Result<u128, NoMemory> {
    let address = host_address(memory, gpa, len as u64).ok_or(NoMemory)?;
    let address = usize::try_from(address).map_err(|_| NoMemory)?;
    if !address.is_multiple_of(len) {
        return Err(NoMemory);
    }
    match len {
        4 => {
            let (old, new) = (narrow(old), narrow(new));
            let place = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: the address is that of 4 aligned bytes of guest memory, which lives as
            // long as `memory`; all who share it access it atomically or as volatile.
            let place = unsafe { AtomicU32::from_ptr(place) };
            let result = place.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
            Ok(u128::from(result.unwrap_or_else(|found| found)))
        }
        8 => {
            let (old, new) = (narrow(old), narrow(new));
            let place = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: as above, of 8 bytes.
            let place = unsafe { AtomicU64::from_ptr(place) };
            let result = place.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
            Ok(u128::from(result.unwrap_or_else(|found| found)))
        }
        16 if is_x86_feature_detected!("cmpxchg16b") => {
            let place = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: as above, of 16 bytes, and the CPU has the instruction.
            Ok(unsafe { compare_exchange_16(place, old, new) })
        }
        _ => Err(NoMemory),
    }
}

/// The host's address of `len` bytes at `gpa`, all in one stretch of memory.
fn host_address(memory: &GuestMemory, gpa: Gpa, len: u64) -> Option<u64> {
    let end = gpa.0.checked_add(len)?;
    let region = memory
        .regions()
        .find(|region| region.gpa.0 <= gpa.0 && end <= region.gpa.0.saturating_add(region.len))?;
    Some(region.host_addr + (gpa.0 - region.gpa.0))
}

/// `lock cmpxchg16b`, which Rust has no stable atomic type for: makes `place` be `new` if it is
/// `old`, and returns what it was.
///
/// # Safety
///
/// `place` is aligned to 16 bytes and may be accessed atomically, and the CPU has the instruction.
unsafe fn compare_exchange_16(place: *mut u128, old: u128, new: u128) -> u128 {
    let halves = |value: u128| -> (u64, u64) { (narrow(value & LOW_HALF), narrow(value >> 64)) };
    let ((old_low, old_high), (new_low, new_high)) = (halves(old), halves(new));
    let (low, high): (u64, u64);
    // SAFETY: by this function's contract; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "xchg {new_low}, rbx",
            "lock cmpxchg16b [{place}]",
            "mov rbx, {new_low}",
            new_low = inout(reg) new_low => _,
            place = in(reg) place,
            in("rcx") new_high,
            inout("rax") old_low => low,
            inout("rdx") old_high => high,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}

/// A mask of the low 64 bits.
const LOW_HALF: u128 = (1 << 64) - 1;

/// The low bytes of a value that has no others.
fn narrow<T: TryFrom<u128> + Default>(value: u128) -> T {
    T::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bytes_are_exchanged_if_they_are_as_expected() {
        if !is_x86_feature_detected!("cmpxchg16b") {
            return;
        }
        let (first, second) = (3u128 << 64 | 5, 7u128 << 64 | 11);
        let mut place = first;
        // SAFETY: a u128 is aligned to 16 bytes, and nobody else knows of it.
        let found = unsafe { compare_exchange_16(&raw mut place, second, 0) };
        assert_eq!((found, place), (first, first));
        // SAFETY: as above.
        let found = unsafe { compare_exchange_16(&raw mut place, first, second) };
        assert_eq!((found, place), (first, second));
    }

    #[test]
    fn all_pages_of_a_write_are_known() {
        let written = WrittenPages::default();
        written.add(Gpa(0x1fff), 2);
        written.add(Gpa(0x1000), 0x1000);
        assert_eq!(written.take(), [0x1000, 0x2000].into());
        assert!(written.take().is_empty());
    }
}
