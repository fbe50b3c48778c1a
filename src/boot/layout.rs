//! What goes where in guest memory: the pieces of an image and what is loaded beside it, each at
//! an address that nothing else has.
//!
//! A `Layout` is made before there is any guest memory: everything that can be wrong with
//! addresses and sizes is an error here. What a header of an image says is taken for no more than a
//! claim; only ranges that lie in RAM and do not overlap get in. Then `Layout::write` copies.
//! Plain arithmetic on the main thread.

use std::collections::BTreeMap;
use std::ops::Range;

use thiserror::Error;

use super::file::{FileError, GuestFile};
use crate::exit::Gpa;
use crate::memory::{
    CONVENTIONAL_END, EXTENDED_START, GuestMemory, MemoryError, RamLayout, TABLES,
};

/// The first address that is given to anything whose address we choose: below it are, on a PC,
/// the real-mode interrupt table and the BIOS data area, and where guests like to put the code
/// that their other vCPUs start with.
const FIRST_FREE: u64 = 0x9000;

/// Why something has no place in guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Not every byte of it would be in RAM.
    #[error("{what} of {len} bytes at {gpa} does not fit in {ram}")]
    DoesNotFit {
        /// What it is.
        what: String,
        /// Its length, in bytes.
        len: u64,
        /// Its address.
        gpa: Gpa,
        /// The guest's RAM.
        ram: RamLayout,
    },
    /// Something else is there.
    #[error(
        "{what} at {:#x}-{:#x} overlaps {other} at {:#x}-{:#x}",
        range.start, range.end - 1, taken.start, taken.end - 1
    )]
    Overlap {
        /// What it is.
        what: String,
        /// Its addresses.
        range: Range<u64>,
        /// What is there.
        other: String,
        /// Where that is.
        taken: Range<u64>,
    },
    /// Too long for all that is left.
    #[error(
        "no room for {what} of {len} bytes between {:#x} and {:#x} in {ram}",
        within.start, within.end
    )]
    NoRoom {
        /// What it is.
        what: String,
        /// Its length, in bytes.
        len: u64,
        /// Where it may be.
        within: Range<u64>,
        /// The guest's RAM.
        ram: RamLayout,
    },
}

/// One of the files of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(usize);

/// The guest's image: the first of all files.
pub(super) const IMAGE: FileId = FileId(0);

/// Whether what is to be placed goes as low or as high as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preference {
    Low,
    High,
}

/// What memory will hold; see the module's text.
#[derive(Debug)]
pub(super) struct Layout {
    ram: RamLayout,
    tables: bool,
    files: Vec<GuestFile>,
    /// By its first address: the address after its last, and what it is.
    taken: BTreeMap<u64, (u64, String)>,
    pieces: Vec<Piece>,
}

/// Bytes to copy; memory behind them, up to the end of their place, stays zero.
#[derive(Debug)]
struct Piece {
    gpa: Gpa,
    len: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Part { file: FileId, offset: u64 },
    Bytes(Vec<u8>),
}

impl Layout {
    /// Nothing yet but what nothing may be placed over: where the tables that describe the machine
    /// go, if it has `tables`.
    pub(super) fn new(image: GuestFile, ram: RamLayout, tables: bool) -> Self {
        let mut taken = BTreeMap::new();
        if tables {
            taken.insert(TABLES.start, (TABLES.end, "the machine's tables".to_owned()));
        }
        Self { ram, tables, files: vec![image], taken, pieces: Vec::new() }
    }

    /// The guest's RAM.
    pub(super) fn ram(&self) -> RamLayout {
        self.ram
    }

    /// Whether the machine has tables that describe it.
    pub(super) fn tables(&self) -> bool {
        self.tables
    }

    /// The guest's image.
    pub(super) fn image(&self) -> &GuestFile {
        &self.files[IMAGE.0]
    }

    /// Adds a file that has no place yet; with it comes its length.
    pub(super) fn add_file(&mut self, file: GuestFile) -> (FileId, u64) {
        let len = file.size();
        self.files.push(file);
        (FileId(self.files.len() - 1), len)
    }

    /// The addresses that are taken, in their order.
    pub(super) fn taken(&self) -> impl DoubleEndedIterator<Item = Range<u64>> {
        self.taken.iter().map(|(start, (end, _))| *start..*end)
    }

    /// Takes `len` bytes at `gpa` for `what`. Nothing is ever in the way of no bytes.
    pub(super) fn take(
        &mut self,
        what: &str,
        gpa: Gpa,
        len: u64,
    ) -> Result<Range<u64>, LayoutError> {
        if !self.ram.contains(gpa, len) {
            let what = what.to_owned();
            return Err(LayoutError::DoesNotFit { what, len, gpa, ram: self.ram });
        }
        let range = gpa.0..gpa.0 + len;
        if len == 0 {
            return Ok(range);
        }
        if let Some((other, taken)) = self.overlapped(&range) {
            let (what, other) = (what.to_owned(), other.to_owned());
            return Err(LayoutError::Overlap { what, range, other, taken });
        }
        self.taken.insert(range.start, (range.end, what.to_owned()));
        Ok(range)
    }

    /// What has any of these addresses: as ranges do not overlap, it is the last one to begin
    /// before they end, or none.
    fn overlapped(&self, range: &Range<u64>) -> Option<(&str, Range<u64>)> {
        let (start, (end, what)) = self.taken.range(..range.end).next_back()?;
        (*end > range.start).then_some((what.as_str(), *start..*end))
    }

    /// Takes `len` bytes for `what`, whose first address is a multiple of `align`, anywhere
    /// `within` these addresses that is RAM and free, and no part of a PC's own area below 1 MiB.
    pub(super) fn find(
        &mut self,
        what: &str,
        len: u64,
        align: u64,
        within: Range<u64>,
        preference: Preference,
    ) -> Result<Range<u64>, LayoutError> {
        let start = self.free_place(len.max(1), align, &within, preference).ok_or_else(|| {
            let what = what.to_owned();
            LayoutError::NoRoom { what, len, within: within.clone(), ram: self.ram }
        })?;
        self.take(what, Gpa(start), len)
    }

    fn free_place(
        &self,
        len: u64,
        align: u64,
        within: &Range<u64>,
        preference: Preference,
    ) -> Option<u64> {
        let pc_area = CONVENTIONAL_END..EXTENDED_START;
        let mut taken: Vec<_> = self.taken().chain([pc_area]).collect();
        taken.sort_by_key(|range| range.start);
        let bounds = within.start.max(FIRST_FREE)..within.end.min(self.ram.low().end);
        let gaps = gaps(bounds, taken);
        let fits = |gap: Range<u64>| {
            let start = gap.start.checked_next_multiple_of(align)?;
            let last = gap.end.checked_sub(len)? / align * align;
            (start <= last).then_some(match preference {
                Preference::Low => start,
                Preference::High => last,
            })
        };
        let mut places = gaps.into_iter().filter_map(fits);
        match preference {
            Preference::Low => places.next(),
            Preference::High => places.next_back(),
        }
    }

    /// Fills the start of a place that was taken with the `len` bytes of a file from `offset` on.
    pub(super) fn fill_from(&mut self, place: &Range<u64>, file: FileId, offset: u64, len: u64) {
        debug_assert!(len <= place.end - place.start);
        let content = Content::Part { file, offset };
        self.pieces.push(Piece { gpa: Gpa(place.start), len, content });
    }

    /// Fills the start of a place that was taken with `bytes`.
    pub(super) fn fill(&mut self, place: &Range<u64>, bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        debug_assert!(len <= place.end - place.start);
        self.pieces.push(Piece { gpa: Gpa(place.start), len, content: Content::Bytes(bytes) });
    }

    /// Copies everything to its place, and says where that is.
    pub(super) fn write(mut self, memory: &GuestMemory) -> Result<Vec<Range<u64>>, WriteError> {
        let mut written = Vec::with_capacity(self.pieces.len() + 1);
        for Piece { gpa, len, content } in self.pieces {
            match content {
                Content::Part { file, offset } => {
                    self.files[file.0].copy(offset, len, gpa, memory)?;
                }
                Content::Bytes(bytes) => memory.write_slice(gpa, &bytes)?,
            }
            written.push(gpa.0..gpa.0 + len);
        }
        Ok(written)
    }
}

/// The parts of `bounds` that none of the ranges has, which are in the order of their starts.
pub(super) fn gaps(
    bounds: Range<u64>,
    taken: impl IntoIterator<Item = Range<u64>>,
) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut start = bounds.start;
    for range in taken {
        let end = range.start.min(bounds.end);
        if start < end {
            gaps.push(start..end);
        }
        start = start.max(range.end);
    }
    if start < bounds.end {
        gaps.push(start..bounds.end);
    }
    gaps
}

/// An address or a length as guests are told it in 32 bits: what has a place lies in the RAM below
/// the hole.
pub(super) fn below_4_gib(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Why a layout could not be written.
#[derive(Debug, Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

#[cfg(test)]
mod tests;
