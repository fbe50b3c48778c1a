//! Why an ELF file cannot be loaded: one line for each reason, with the value.

use thiserror::Error;

use super::{Class, MAX_NOTES};
use crate::boot::file::FileError;
use crate::boot::layout::LayoutError;
use crate::config::CpuMode;
use crate::exit::Gpa;

/// Why an ELF file cannot be loaded.
#[derive(Debug, Error)]
pub enum ElfError {
    /// There is no such file here.
    #[error("the image is not an ELF file: it does not begin with 0x7f 'ELF'")]
    NotElf,
    /// The file ends too early.
    #[error(
        "the ELF file is truncated: its {what} would end at {end:#x}, and it has {len:#x} bytes"
    )]
    Truncated {
        /// What is not all there.
        what: String,
        /// Where that would end.
        end: u128,
        /// The length of the file.
        len: u64,
    },
    /// Neither ELF32 nor ELF64.
    #[error("the ELF file is of class {0}: expected 1 (ELF32) or 2 (ELF64)")]
    Class(u8),
    /// Not of this CPU's byte order.
    #[error("the ELF file has data encoding {0}: expected 1 (little-endian)")]
    ByteOrder(u8),
    /// A version of ELF that does not exist.
    #[error("the ELF file has version {0}: expected 1")]
    Version(u8),
    /// For another CPU.
    #[error(
        "the {class} file is for machine {machine}: expected {} ({})",
        class.machine().0, class.name_of_machine()
    )]
    Machine {
        /// ELF32 or ELF64.
        class: Class,
        /// e_machine.
        machine: u16,
    },
    /// An object file, a library, a core.
    #[error("the ELF file has type {0}: expected 2 (ET_EXEC) or 3 (ET_DYN), an executable")]
    Type(u16),
    /// It wants a dynamic linker.
    #[error("the ELF executable asks for an interpreter (PT_INTERP): link it with -static")]
    Interpreter,
    /// It wants to be relocated.
    #[error(
        "the ELF executable has dynamic linking information (PT_DYNAMIC): link it with -static \
         and -no-pie"
    )]
    Dynamic,
    /// Program headers of another size.
    #[error("the ELF file has program headers of {found} bytes: expected {expected}")]
    HeaderSize {
        /// e_phentsize.
        found: u16,
        /// What it is for this class.
        expected: usize,
    },
    /// More program headers than e_phnum can count.
    #[error("the ELF file has more than 65534 program headers")]
    TooManyHeaders,
    /// Nothing to load.
    #[error("the ELF file has no segment to load")]
    NothingToLoad,
    /// More in the file than in memory.
    #[error("ELF segment {index} has {file:#x} bytes in the file and only {memory:#x} in memory")]
    FileLarger {
        /// The number of its program header.
        index: usize,
        /// p_filesz.
        file: u64,
        /// p_memsz.
        memory: u64,
    },
    /// It cannot start there.
    #[error("the ELF entry point {0:#x} is in no executable segment that is loaded")]
    Entry(u64),
    /// The entry point is out of reach.
    #[error("the entry point {0} is not below 4 GiB, as far as 32-bit code reaches")]
    EntryTooHigh(Gpa),
    /// Notes without an end.
    #[error("the ELF file has {0:#x} bytes of notes, more than the limit of {MAX_NOTES:#x}")]
    NotesTooLong(u64),
    /// A note that says it is longer than it can be.
    #[error(
        "the ELF note at {offset:#x} of the file does not end within its segment, which ends at \
         {end:#x}"
    )]
    Note {
        /// Where it begins in the file.
        offset: u64,
        /// Where its segment ends in the file.
        end: u64,
    },
    /// `--mode` says something else.
    #[error("an {class} executable cannot start in {mode} mode: expected {}", class.modes())]
    Mode {
        /// ELF32 or ELF64.
        class: Class,
        /// The mode asked for.
        mode: CpuMode,
    },
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The addresses.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl ElfError {
    /// Whether it is an option that does not go with the image.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Mode { .. })
    }
}
