//! Flat images: bytes that go into guest memory as they are, at an address the user chooses.
//!
//! What happens here is finding the image, making sure it fits, and copying it; where the vCPUs
//! then start is `entry.rs`. A file is read straight into guest memory, never into a buffer of
//! this process. Runs on the main thread, before any vCPU exists.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::GuestSource;
use crate::exit::Gpa;
use crate::memory::{GuestMemory, MemoryError, RamLayout};

/// Why a flat image cannot be loaded.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be opened; the source has the reason.
    #[error("cannot open guest image '{}'", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A directory, a device, a FIFO or a socket: nothing that has a size and an end.
    #[error("guest image '{}' is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// There is nothing in it to run.
    #[error("guest image '{name}' is empty")]
    Empty {
        /// The file, or the demo's name.
        name: String,
    },
    /// Not every byte of it would be in RAM.
    #[error("image of {len} bytes at {gpa} does not fit in {ram}")]
    DoesNotFit {
        /// The image's length, in bytes.
        len: u64,
        /// The load address.
        gpa: Gpa,
        /// The guest's RAM.
        ram: RamLayout,
    },
    /// It could be opened but not copied.
    #[error("cannot read guest image '{name}'")]
    Read {
        /// The file, or the demo's name.
        name: String,
        /// What went wrong.
        source: MemoryError,
    },
}

/// A flat image that exists, can be opened and has a length, but is not in memory yet.
#[derive(Debug)]
pub struct FlatImage {
    name: String,
    bytes: ImageBytes,
    len: u64,
}

#[derive(Debug)]
enum ImageBytes {
    File(File),
    Memory(&'static [u8]),
}

impl FlatImage {
    /// Finds the image and its length.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, is not a regular file or is empty.
    pub fn open(source: &GuestSource) -> Result<Self, ImageError> {
        let image = match source {
            GuestSource::File(path) => Self::open_file(path)
                .map_err(|source| ImageError::Open { path: path.clone(), source })?
                .ok_or_else(|| ImageError::NotAFile { path: path.clone() })?,
            GuestSource::Demo(guest) => Self {
                name: guest.name.to_owned(),
                bytes: ImageBytes::Memory(guest.image),
                len: guest.image.len() as u64,
            },
        };
        if image.len == 0 { Err(ImageError::Empty { name: image.name }) } else { Ok(image) }
    }

    /// Opens a file, or nothing if it is not a regular one. That is asked before opening: to
    /// open a FIFO waits for a writer, and to open a device may do something to it.
    fn open_file(path: &Path) -> io::Result<Option<Self>> {
        if !fs::metadata(path)?.is_file() {
            return Ok(None);
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let name = path.display().to_string();
        Ok(Some(Self { name, bytes: ImageBytes::File(file), len }))
    }

    /// The addresses the image takes when loaded at `gpa`.
    ///
    /// # Errors
    ///
    /// If they are not all RAM.
    pub fn place(&self, gpa: Gpa, ram: RamLayout) -> Result<Range<u64>, ImageError> {
        if ram.contains(gpa, self.len) {
            Ok(gpa.0..gpa.0 + self.len)
        } else {
            Err(ImageError::DoesNotFit { len: self.len, gpa, ram })
        }
    }

    /// Copies the image into guest memory at `gpa`.
    ///
    /// # Errors
    ///
    /// If it does not fit, or the file cannot be read or has become shorter than it was.
    pub fn load(self, gpa: Gpa, memory: &GuestMemory) -> Result<(), ImageError> {
        let ram = memory.layout();
        self.place(gpa, ram)?;
        let copied = match self.bytes {
            ImageBytes::Memory(bytes) => memory.write_slice(gpa, bytes),
            ImageBytes::File(mut file) => {
                let len = usize::try_from(self.len).map_err(|_| ImageError::DoesNotFit {
                    len: self.len,
                    gpa,
                    ram,
                })?;
                memory.read_file(gpa, &mut file, len)
            }
        };
        copied.map_err(|source| ImageError::Read { name: self.name, source })
    }
}

#[cfg(test)]
mod tests;
