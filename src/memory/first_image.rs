//! What guest memory held before the guest ran, to put it back page by page.

use std::ops::Range;

use super::{GuestMemory, MemoryError};
use crate::exit::Gpa;

/// A page, as KVM's log of dirty pages counts.
pub const PAGE: usize = 4096;

/// The first contents of guest memory: some stretches, and zeros all around them.
#[derive(Debug)]
pub struct FirstImage {
    stretches: Vec<(u64, Vec<u8>)>,
}

impl FirstImage {
    /// Copies these stretches of memory, which has zeros everywhere else.
    ///
    /// # Errors
    ///
    /// They are not all memory.
    pub fn of(memory: &GuestMemory, stretches: &[Range<u64>]) -> Result<Self, MemoryError> {
        let copy = |stretch: &Range<u64>| {
            let mut bytes = vec![0; usize::try_from(stretch.end - stretch.start).unwrap_or(0)];
            memory.read_slice(Gpa(stretch.start), &mut bytes)?;
            Ok((stretch.start, bytes))
        };
        Ok(Self { stretches: stretches.iter().map(copy).collect::<Result<_, _>>()? })
    }

    /// Puts the page at `gpa` back, a multiple of its size.
    ///
    /// # Errors
    ///
    /// It is not memory.
    pub fn put_back(&self, memory: &GuestMemory, gpa: Gpa) -> Result<(), MemoryError> {
        memory.write_slice(gpa, &self.page(gpa.0))
    }

    fn page(&self, gpa: u64) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        for (start, bytes) in &self.stretches {
            // How far into the page the stretch begins, or into the stretch the page.
            let into =
                |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).unwrap_or(PAGE);
            let (at, skip) = (into(gpa, *start), into(*start, gpa));
            let (Some(to), Some(from)) = (page.get_mut(at..), bytes.get(skip..)) else { continue };
            let len = to.len().min(from.len());
            to[..len].copy_from_slice(&from[..len]);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemorySize;

    #[test]
    fn pages_come_back_as_they_were() {
        let memory = GuestMemory::new(MemorySize::from_bytes(16 << 12).unwrap(), &[]).unwrap();
        let image: Vec<u8> = (1..=250).cycle().take(9000).collect();
        // From within page 1 to within page 3.
        memory.write_slice(Gpa(0x1800), &image).unwrap();
        let first =
            FirstImage::of(&memory, std::slice::from_ref(&(0x1800..0x1800 + 9000))).unwrap();
        let mut before = vec![0; 16 << 12];
        memory.read_slice(Gpa(0), &mut before).unwrap();
        memory.write_slice(Gpa(0), &vec![0xee; 16 << 12]).unwrap();
        for page in 0..16 {
            first.put_back(&memory, Gpa(page << 12)).unwrap();
        }
        let mut after = vec![0; 16 << 12];
        memory.read_slice(Gpa(0), &mut after).unwrap();
        assert!(before == after);
    }
}
