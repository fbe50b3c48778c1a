//! What goes to the guest from outside: its image, an initial RAM disk, modules. Each is a file or
//! bytes that are part of the program, and looks the same from here on.
//!
//! What a file's contents mean is the business of the image formats. A file is read straight into
//! guest memory; only its headers ever get into a buffer of this process, and those are small. Runs
//! on the main thread, before any vCPU exists.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::GuestSource;
use crate::exit::Gpa;
use crate::memory::{GuestMemory, MemoryError};

/// How much of an image is looked at to recognise its format: as far as a Multiboot header may
/// be (Multiboot 0.6.96, section 3.1).
pub const HEAD_LEN: usize = 8192;

/// Why a file cannot be given to the guest.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file cannot be opened; the source has the reason.
    #[error("cannot open {what} '{}'", path.display())]
    Open {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A directory, a device, a FIFO or a socket: nothing that has a size and an end.
    #[error("{what} '{}' is not a regular file", path.display())]
    NotAFile {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{what} '{name}' is empty")]
    Empty {
        /// What it is for.
        what: &'static str,
        /// The file, or the demo's name.
        name: String,
    },
    /// Its headers cannot be read.
    #[error("cannot read {what} '{name}'")]
    Head {
        /// What it is for.
        what: &'static str,
        /// The file, or the demo's name.
        name: String,
        /// What the host said.
        source: io::Error,
    },
    /// It could be opened but not copied.
    #[error("cannot read {what} '{name}'")]
    Read {
        /// What it is for.
        what: &'static str,
        /// The file, or the demo's name.
        name: String,
        /// What went wrong.
        source: MemoryError,
    },
}

/// A file that exists, can be opened and has a length, but is not in memory yet.
#[derive(Debug)]
pub struct GuestFile {
    what: &'static str,
    name: String,
    bytes: FileBytes,
    len: u64,
}

#[derive(Debug)]
enum FileBytes {
    File(File),
    Memory(&'static [u8]),
}

impl GuestFile {
    /// Finds the guest's image and its length.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, is not a regular file or is empty.
    pub fn image(source: &GuestSource) -> Result<Self, FileError> {
        let what = "guest image";
        match source {
            GuestSource::File(path) => Self::open(what, path),
            GuestSource::Demo(guest) => Self {
                what,
                name: guest.name.to_owned(),
                bytes: FileBytes::Memory(guest.image),
                len: guest.image.len() as u64,
            }
            .not_empty(),
        }
    }

    /// Finds a file and its length. That it is a regular one is asked before opening: to open a
    /// FIFO waits for a writer, and to open a device may do something to it.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, is not a regular file or is empty.
    pub fn open(what: &'static str, path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Open { what, path: path.to_owned(), source };
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(FileError::NotAFile { what, path: path.to_owned() });
        }
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let name = path.display().to_string();
        Self { what, name, bytes: FileBytes::File(file), len }.not_empty()
    }

    fn not_empty(self) -> Result<Self, FileError> {
        if self.len > 0 {
            return Ok(self);
        }
        Err(FileError::Empty { what: self.what, name: self.name })
    }

    /// The file, or the demo's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes there are; at least one.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The first bytes, [`HEAD_LEN`] at most.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn head(&self) -> Result<Vec<u8>, FileError> {
        let len = usize::try_from(self.len).unwrap_or(HEAD_LEN).min(HEAD_LEN);
        self.read(0, len)
    }

    /// The `len` bytes from `offset` on, which the caller has checked to be in the file, and to be
    /// few enough to be held here.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has become shorter than it was.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, FileError> {
        let bytes = match &self.bytes {
            FileBytes::Memory(bytes) => usize::try_from(offset)
                .ok()
                .and_then(|start| bytes.get(start..)?.get(..len))
                .map(<[u8]>::to_vec)
                .ok_or(io::ErrorKind::UnexpectedEof.into()),
            FileBytes::File(file) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, offset).map(|()| bytes)
            }
        };
        bytes.map_err(|source| FileError::Head { what: self.what, name: self.name.clone(), source })
    }

    /// Copies the `len` bytes from `offset` on into guest memory at `gpa`.
    ///
    /// # Errors
    ///
    /// If they do not fit, or the file cannot be read or has become shorter than it was.
    pub fn copy(
        &mut self,
        offset: u64,
        len: u64,
        gpa: Gpa,
        memory: &GuestMemory,
    ) -> Result<(), FileError> {
        let (what, name) = (self.what, &self.name);
        let head = |source| FileError::Head { what, name: name.clone(), source };
        let short = || head(io::ErrorKind::UnexpectedEof.into());
        let size = usize::try_from(len).map_err(|_| short())?;
        let copied = match &mut self.bytes {
            FileBytes::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| short())?;
                let part = bytes.get(start..).and_then(|rest| rest.get(..size));
                memory.write_slice(gpa, part.ok_or_else(short)?)
            }
            FileBytes::File(file) => {
                file.seek(SeekFrom::Start(offset)).map_err(head)?;
                memory.read_file(gpa, file, size)
            }
        };
        copied.map_err(|source| FileError::Read { what, name: name.clone(), source })
    }
}

#[cfg(test)]
mod tests;
