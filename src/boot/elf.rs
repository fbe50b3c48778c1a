//! ELF executables: their program headers, and where their segments go.
//!
//! This is what all formats in an ELF file have in common: such a guest as it is (`--format elf`),
//! PVH, Multiboot and vmlinux. A segment goes to its physical address, p_paddr. Only an executable
//! that runs where it is loaded, as it is, is taken: there is nothing here that links or relocates.
//! What is in the file is hostile until checked. The `object` crate knows the layout of the
//! structures; the loaders of linux-loader are not used, for they know ELF64 only, check neither
//! machine nor overlaps, and write to memory before they have seen all of the file.
//!
//! The source is the System V ABI, edition 4.1, chapters 4 and 5, and its supplements for the
//! i386 and x86-64.

mod error;

use std::ops::Range;

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, pod};

use super::entry::Start;
use super::file::GuestFile;
use super::flat::no_stacks_at;
use super::layout::{IMAGE, Layout, LayoutError};
use crate::config::CpuMode;
use crate::exit::Gpa;
pub use error::ElfError;

/// The longest that all notes together may be: they are read into memory, and those of a Linux
/// kernel have some hundred bytes.
const MAX_NOTES: u64 = 1 << 20;

/// What an ELF file begins with.
const MAGIC: [u8; 4] = *b"\x7fELF";

/// The two classes of ELF files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 32-bit.
    Elf32,
    /// 64-bit.
    Elf64,
}

impl Class {
    /// The only machine that this class can be for.
    const fn machine(self) -> elf::Machine {
        match self {
            Self::Elf32 => elf::EM_386,
            Self::Elf64 => elf::EM_X86_64,
        }
    }

    const fn name_of_machine(self) -> &'static str {
        match self {
            Self::Elf32 => "i386",
            Self::Elf64 => "x86-64",
        }
    }

    const fn modes(self) -> &'static str {
        match self {
            Self::Elf32 => "protected",
            Self::Elf64 => "long or user",
        }
    }

    /// The mode in which such an executable starts.
    ///
    /// # Errors
    ///
    /// If the user has asked for one in which it cannot run.
    pub(super) fn mode(self, asked: Option<CpuMode>) -> Result<CpuMode, ElfError> {
        match (self, asked) {
            (Self::Elf32, None | Some(CpuMode::Protected)) => Ok(CpuMode::Protected),
            (Self::Elf64, None | Some(CpuMode::Long)) => Ok(CpuMode::Long),
            (Self::Elf64, Some(CpuMode::User)) => Ok(CpuMode::User),
            (class, Some(mode)) => Err(ElfError::Mode { class, mode }),
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Elf32 => "ELF32",
            Self::Elf64 => "ELF64",
        })
    }
}

/// A program header that matters, in the width of either class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    index: usize,
    kind: elf::ProgramType,
    executable: bool,
    offset: u64,
    file_len: u64,
    memory_len: u64,
    virtual_addr: u64,
    physical_addr: u64,
    align: u64,
}

/// An ELF executable whose headers are in order.
#[derive(Debug)]
pub(super) struct Elf {
    pub(super) class: Class,
    entry: u64,
    /// What is to be loaded: none is empty.
    segments: Vec<Segment>,
    notes: Vec<Segment>,
}

/// A note (System V ABI, "Note Section").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note<'a> {
    /// Whose it is, without the NUL at its end.
    pub(super) name: &'a [u8],
    pub(super) kind: u32,
    pub(super) desc: &'a [u8],
}

/// Gives an executable's segments their places, and says how it starts: in the mode of ours that is
/// for its class.
// Not a part of what every guest needs: layout.ld.
#[inline(never)]
pub(super) fn plan(
    elf: &Elf,
    mode: Option<CpuMode>,
    layout: &mut Layout,
) -> Result<Start, ElfError> {
    let mode = elf.class.mode(mode)?;
    let entry = elf.entry()?;
    elf.place(layout)?;
    Ok(Start::Own { mode, entry, taken: no_stacks_at(layout) })
}

/// Whether this is the beginning of an ELF file.
pub(super) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(&MAGIC)
}

impl Elf {
    /// Reads the headers of an executable, which begins with `head`.
    pub(super) fn parse(file: &GuestFile, head: &[u8]) -> Result<Self, ElfError> {
        if !is_elf(head) {
            return Err(ElfError::NotElf);
        }
        match (head.get(4), head.get(5), head.get(6)) {
            (Some(class @ (0 | 3..)), ..) => Err(ElfError::Class(*class)),
            (_, Some(order @ (0 | 2..)), _) => Err(ElfError::ByteOrder(*order)),
            (.., Some(version @ (0 | 2..))) => Err(ElfError::Version(*version)),
            (Some(1), ..) => {
                Self::read::<elf::FileHeader32<LittleEndian>>(file, head, Class::Elf32)
            }
            _ => Self::read::<elf::FileHeader64<LittleEndian>>(file, head, Class::Elf64),
        }
    }

    fn read<H>(file: &GuestFile, head: &[u8], class: Class) -> Result<Self, ElfError>
    where
        H: FileHeader<Endian = LittleEndian>,
    {
        let end = LittleEndian;
        let (header, _) = pod::from_bytes::<H>(head)
            .map_err(|()| truncated(file, "header", 0, size_of::<H>() as u64))?;
        let machine = header.e_machine(end);
        if machine != class.machine() {
            return Err(ElfError::Machine { class, machine: machine.0 });
        }
        // One that is position-independent may run where it is linked, if nothing is left to link.
        match header.e_type(end) {
            elf::ET_EXEC | elf::ET_DYN => {}
            other => return Err(ElfError::Type(other.0)),
        }
        let entry = header.e_entry(end).into();
        let mut this = Self { class, entry, segments: Vec::new(), notes: Vec::new() };
        for segment in program_headers(file, header)? {
            this.add(file, segment)?;
        }
        if this.segments.is_empty() {
            return Err(ElfError::NothingToLoad);
        }
        Ok(this)
    }

    /// Takes note of a program header, if it matters.
    fn add(&mut self, file: &GuestFile, segment: Segment) -> Result<(), ElfError> {
        let Segment { index, kind, offset, file_len, memory_len, .. } = segment;
        match kind {
            elf::PT_INTERP => return Err(ElfError::Interpreter),
            elf::PT_DYNAMIC => return Err(ElfError::Dynamic),
            elf::PT_LOAD | elf::PT_NOTE => {}
            _ => return Ok(()),
        }
        if offset.checked_add(file_len).is_none_or(|end| end > file.size()) {
            return Err(truncated(file, &format!("segment {index}"), offset, file_len));
        }
        if kind == elf::PT_NOTE {
            self.notes.push(segment);
        } else if file_len > memory_len {
            return Err(ElfError::FileLarger { index, file: file_len, memory: memory_len });
        } else if memory_len > 0 {
            self.segments.push(segment);
        }
        Ok(())
    }

    /// Gives every segment its place, and says which addresses they are.
    pub(super) fn place(&self, layout: &mut Layout) -> Result<Vec<Range<u64>>, LayoutError> {
        let place = |segment: &Segment| {
            let what = format!("ELF segment {}", segment.index);
            let range = layout.take(&what, Gpa(segment.physical_addr), segment.memory_len)?;
            layout.fill_from(&range, IMAGE, segment.offset, segment.file_len);
            Ok(range)
        };
        self.segments.iter().map(place).collect()
    }

    /// The physical address of the entry point.
    ///
    /// By the ABI e_entry is a virtual address; it is taken to be the same place of the same
    /// segment. Some link an executable for high virtual addresses and give a physical address:
    /// that is what it is taken for if it is no virtual one.
    pub(super) fn entry(&self) -> Result<Gpa, ElfError> {
        let into = |start: u64, len: u64| self.entry.checked_sub(start).filter(|into| *into < len);
        let code = || self.segments.iter().filter(|segment| segment.executable);
        let by_virtual = code()
            .find_map(|s| Some(s.physical_addr.wrapping_add(into(s.virtual_addr, s.memory_len)?)));
        let by_physical = || {
            let is_in = |s: &&Segment| into(s.physical_addr, s.memory_len).is_some();
            code().find(is_in).map(|_| self.entry)
        };
        by_virtual.or_else(by_physical).map(Gpa).ok_or(ElfError::Entry(self.entry))
    }

    /// The entry point, which must be where 32-bit code can be.
    pub(super) fn entry_below_4_gib(&self) -> Result<Gpa, ElfError> {
        let entry = self.entry()?;
        if entry.0 < 1 << 32 { Ok(entry) } else { Err(ElfError::EntryTooHigh(entry)) }
    }

    /// Whether a physical address is in a segment with code.
    pub(super) fn is_code(&self, gpa: Gpa) -> bool {
        let is_in = |s: &Segment| {
            s.executable && gpa.0.checked_sub(s.physical_addr).is_some_and(|at| at < s.memory_len)
        };
        self.segments.iter().any(is_in)
    }

    /// Looks at all notes, and returns the first thing that `look` makes of one.
    pub(super) fn find_note<T>(
        &self,
        file: &GuestFile,
        mut look: impl FnMut(Note<'_>) -> Option<T>,
    ) -> Result<Option<T>, ElfError> {
        let mut left = MAX_NOTES;
        for segment in &self.notes {
            left = left
                .checked_sub(segment.file_len)
                .ok_or(ElfError::NotesTooLong(MAX_NOTES - left + segment.file_len))?;
            let len = usize::try_from(segment.file_len).unwrap_or(0);
            let bytes = file.read(segment.offset, len)?;
            let mut at = 0;
            // What is left after the last one may be padding.
            while bytes.get(at..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
                let (note, next) = note_at(&bytes, at, segment.align).ok_or(ElfError::Note {
                    offset: segment.offset + at as u64,
                    end: segment.offset + segment.file_len,
                })?;
                if let Some(found) = look(note) {
                    return Ok(Some(found));
                }
                at = next;
            }
        }
        Ok(None)
    }
}

/// The note at an offset, and the offset of the next one. Names and descriptors are padded to
/// multiples of 4 bytes, or of 8 where the segment is aligned so.
fn note_at(bytes: &[u8], at: usize, align: u64) -> Option<(Note<'_>, usize)> {
    let align = if align == 8 { 8 } else { 4 };
    let word = |index: usize| {
        let start = at.checked_add(index * 4)?;
        Some(u32::from_le_bytes(bytes.get(start..start + 4)?.try_into().ok()?))
    };
    let len = |index| usize::try_from(word(index)?).ok();
    let (name_len, desc_len, kind) = (len(0)?, len(1)?, word(2)?);
    let name_start = at + 12;
    let name_end = name_start.checked_add(name_len)?;
    let desc_start = name_end.checked_next_multiple_of(align)?;
    let desc_end = desc_start.checked_add(desc_len)?;
    let name = bytes.get(name_start..name_end)?;
    let desc = if desc_len == 0 { &[] } else { bytes.get(desc_start..desc_end)? };
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    Some((Note { name, kind, desc }, desc_end.checked_next_multiple_of(align)?))
}

fn program_headers<H>(file: &GuestFile, header: &H) -> Result<Vec<Segment>, ElfError>
where
    H: FileHeader<Endian = LittleEndian>,
{
    let end = LittleEndian;
    let (found, expected) = (header.e_phentsize(end), size_of::<H::ProgramHeader>());
    let count = header.e_phnum(end);
    if count == 0 {
        return Err(ElfError::NothingToLoad);
    }
    if count == elf::PN_XNUM {
        return Err(ElfError::TooManyHeaders);
    }
    if usize::from(found) != expected {
        return Err(ElfError::HeaderSize { found, expected });
    }
    let (offset, len) = (header.e_phoff(end).into(), usize::from(count) * expected);
    let short = || truncated(file, "table of program headers", offset, len as u64);
    if offset.checked_add(len as u64).is_none_or(|end| end > file.size()) {
        return Err(short());
    }
    let bytes = file.read(offset, len)?;
    let (headers, _) =
        pod::slice_from_bytes::<H::ProgramHeader>(&bytes, count.into()).map_err(|()| short())?;
    let segment = |(index, header): (usize, &H::ProgramHeader)| Segment {
        index,
        kind: header.p_type(end),
        executable: header.p_flags(end).0 & elf::PF_X.0 != 0,
        offset: header.p_offset(end).into(),
        file_len: header.p_filesz(end).into(),
        memory_len: header.p_memsz(end).into(),
        virtual_addr: header.p_vaddr(end).into(),
        physical_addr: header.p_paddr(end).into(),
        align: header.p_align(end).into(),
    };
    Ok(headers.iter().enumerate().map(segment).collect())
}

fn truncated(file: &GuestFile, what: &str, offset: u64, len: u64) -> ElfError {
    let end = u128::from(offset) + u128::from(len);
    ElfError::Truncated { what: what.to_owned(), end, len: file.size() }
}

#[cfg(test)]
mod tests;
