//! [`Symbols`]: names for the guest's addresses, from the ELF file that the guest was built as.
//!
//! The function and the offset into it come from the symbol table, the source line from DWARF if
//! the file has it. Code that was inlined has the name of the function that it is in, and the
//! line of where it was written. Addresses are those that the file was linked for, which for a
//! guest without paging, or with all memory mapped to itself, are the ones in RIP.
//!
//! The file is read once and belongs to the user; nothing in it, however broken, does more harm
//! than a missing or a wrong name. Compressed debug sections count as missing. Used by the
//! thread that writes the trace.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::Context;
use gimli::{EndianArcSlice, RunTimeEndian};
use object::{
    Architecture, FileKind, Object, ObjectKind, ObjectSection, ObjectSymbol, SectionKind,
    SymbolKind,
};
use thiserror::Error;

use crate::trace::format::Symbolize;

/// Names that are remembered; when there are more, all are forgotten.
const CACHE: usize = 1 << 16;

/// How many functions are looked at for an address. They lie one after the other; only a few
/// in assembly are inside others, and not deep.
const NESTED: usize = 8;

/// Why an ELF file has no symbols for us.
#[derive(Debug, Error)]
pub enum SymbolsError {
    /// It cannot be read; the source has the reason.
    #[error("cannot read symbols from '{}'", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A directory, a device, a FIFO or a socket: nothing that has an end.
    #[error("cannot read symbols from '{}': not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Something else than ELF: such as a flat image, from which the symbols are gone.
    #[error("'{}' is not an ELF file, and only they have symbols", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// It begins like an ELF file but does not go on like one.
    #[error("'{}' is not a valid ELF file", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: object::Error,
    },
    /// Not for x86.
    #[error("'{}' is an ELF file for another machine than x86", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
    },
    /// An object file, whose addresses are not final.
    #[error("'{}' is not linked, so its addresses are not known", path.display())]
    NotLinked {
        /// The file.
        path: PathBuf,
    },
    /// No symbol names any code.
    #[error("'{}' has no symbols: it may have been stripped", path.display())]
    Stripped {
        /// The file.
        path: PathBuf,
    },
}

/// The bytes of a debug section: shared, so that they can go to another thread.
type Bytes = EndianArcSlice<RunTimeEndian>;

/// The names of a guest's code.
pub struct Symbols {
    /// By their start, which no two have in common.
    functions: Vec<Function>,
    lines: Option<Context<Bytes>>,
    cache: HashMap<u64, Option<String>>,
}

/// A function, or a stretch of assembly from one label to the next.
#[derive(Debug)]
struct Function {
    start: u64,
    /// The first address after it.
    end: u64,
    /// As the linker has it: it is made readable only for addresses that are asked for.
    name: String,
}

impl Symbols {
    /// Reads the symbols of an ELF file for x86, of 32 or 64 bits.
    ///
    /// # Errors
    ///
    /// [`SymbolsError`] if it is none, or names no code. Debug information that cannot be read
    /// is no error; names are then without lines.
    pub fn load(path: &Path) -> Result<Self, SymbolsError> {
        use Architecture::{I386, X86_64, X86_64_X32};

        let bytes = read_file(path)?;
        let path = || path.to_owned();
        if !matches!(FileKind::parse(&*bytes), Ok(FileKind::Elf32 | FileKind::Elf64)) {
            return Err(SymbolsError::NotElf { path: path() });
        }
        let elf = object::File::parse(&*bytes)
            .map_err(|source| SymbolsError::Invalid { path: path(), source })?;
        if !matches!(elf.architecture(), I386 | X86_64 | X86_64_X32) {
            return Err(SymbolsError::Machine { path: path() });
        }
        if elf.kind() == ObjectKind::Relocatable {
            return Err(SymbolsError::NotLinked { path: path() });
        }
        let functions = functions(&elf);
        if functions.is_empty() {
            return Err(SymbolsError::Stripped { path: path() });
        }
        Ok(Self { functions, lines: lines(&elf), cache: HashMap::new() })
    }

    /// The name of the code at a guest-virtual address: `main+0x12`, or `main+0x12 (main.c:7)`
    /// where the source line is known. `None` if no function is there.
    pub fn name(&mut self, address: u64) -> Option<String> {
        if let Some(name) = self.cache.get(&address) {
            return name.clone();
        }
        let name = self.find(address);
        if self.cache.len() == CACHE {
            self.cache.clear();
        }
        self.cache.insert(address, name.clone());
        name
    }

    /// The same as a function, for a trace's [`Sink`](crate::trace::format::Sink).
    pub fn into_symbolize(mut self) -> Symbolize {
        Box::new(move |address| self.name(address))
    }

    fn find(&self, address: u64) -> Option<String> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let before = self.functions[..after].iter().rev().take(NESTED);
        let function = before.into_iter().find(|function| address < function.end)?;
        let name = addr2line::demangle_auto(Cow::Borrowed(&function.name), None);
        let mut text = format!("{name}+{:#x}", address - function.start);
        if let Some((file, line)) = self.line(address) {
            text += &format!(" ({file}:{line})");
        }
        // Names go into traces and onto terminals.
        Some(text.replace(char::is_control, "?"))
    }

    /// The source file's name, without its directories, and the line, from 1.
    fn line(&self, address: u64) -> Option<(String, u32)> {
        let location = self.lines.as_ref()?.find_location(address).ok()??;
        let file = location.file?.rsplit('/').next()?.to_owned();
        Some((file, location.line.filter(|&line| line != 0)?))
    }
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols")
            .field("functions", &self.functions.len())
            .field("lines", &self.lines.is_some())
            .finish_non_exhaustive()
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, SymbolsError> {
    let failed = |source| SymbolsError::Read { path: path.to_owned(), source };
    // Before it is opened: a FIFO would make open(2) wait.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SymbolsError::NotAFile { path: path.to_owned() });
    }
    fs::read(path).map_err(failed)
}

/// A symbol that names code.
struct Symbol {
    start: u64,
    /// Bytes; 0 if the file does not say.
    size: u64,
    is_global: bool,
    /// The end of its section, beyond which it cannot reach.
    section_end: u64,
    name: String,
}

/// The functions of an ELF file. A symbol with a size is a function; one without reaches to the
/// next symbol of its section, and if it lies in a function it is only a label there.
fn functions(elf: &object::File<'_>) -> Vec<Function> {
    let mut symbols: Vec<Symbol> =
        elf.symbols().filter_map(|symbol| code_symbol(elf, &symbol)).collect();
    // Of several names of one address, the best one comes first. The last criterion only makes
    // the choice the same each time.
    symbols.sort_by(|a, b| {
        let order = |s: &Symbol| (s.start, s.size == 0, !s.is_global);
        order(a).cmp(&order(b)).then_with(|| a.name.cmp(&b.name))
    });
    symbols.dedup_by_key(|symbol| symbol.start);

    let mut functions: Vec<Function> = Vec::new();
    let mut sized_end = 0;
    let mut symbols = symbols.into_iter().peekable();
    while let Some(Symbol { start, size, section_end, name, .. }) = symbols.next() {
        let end = if size != 0 {
            start.saturating_add(size)
        } else if start < sized_end {
            continue;
        } else {
            symbols.peek().map_or(section_end, |next| next.start.min(section_end))
        };
        if size != 0 {
            sized_end = sized_end.max(end);
        }
        functions.push(Function { start, end, name });
    }
    functions
}

/// What a symbol says, if it names code: a function, or a label in a section with code.
fn code_symbol(elf: &object::File<'_>, symbol: &object::Symbol<'_, '_>) -> Option<Symbol> {
    let section = elf.section_by_index(symbol.section_index()?).ok()?;
    let is_code = match symbol.kind() {
        SymbolKind::Text => true,
        SymbolKind::Unknown => section.kind() == SectionKind::Text,
        _ => false,
    };
    let name = symbol.name_bytes().ok().filter(|name| is_code && !name.is_empty())?;
    let section_end = section.address().saturating_add(section.size());
    Some(Symbol {
        start: symbol.address(),
        size: symbol.size(),
        is_global: symbol.is_global(),
        section_end,
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// The debug information, if there is some that can be read.
fn lines(elf: &object::File<'_>) -> Option<Context<Bytes>> {
    elf.section_by_name(".debug_info")?;
    let endian = if elf.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let section = |id: gimli::SectionId| {
        let data = elf.section_by_name(id.name()).and_then(|s| s.uncompressed_data().ok());
        let data: Arc<[u8]> = data.unwrap_or_default().into();
        Ok::<_, gimli::Error>(Bytes::new(data, endian))
    };
    let dwarf = gimli::Dwarf::load(section).ok()?;
    Context::from_dwarf(dwarf).ok()
}
