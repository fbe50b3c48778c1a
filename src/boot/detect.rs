//! Which format an image has: by its content, unless the user says otherwise.
//!
//! In this order, for one file may be several things: a Linux kernel by its setup header; a
//! Multiboot kernel by its header, which most have in an ELF file; an ELF file with the note of a
//! PVH entry point; one with a note of Linux's own, a vmlinux; any other ELF file. All else is a
//! flat image.

use super::BootError;
use super::elf::{self, Elf};
use super::file::GuestFile;
use super::linux::LinuxError;
use super::linux::header::{self, Kernel};
use super::multiboot::{self, MultibootError};
use super::pvh;
use crate::config::ImageFormat;

/// The owner of the notes that only a Linux kernel has (Linux, include/linux/elfnote-lto.h and
/// include/linux/build-salt.h).
const LINUX_NOTE: &[u8] = b"Linux";

/// An image whose format is known, with what was read of it for that.
#[derive(Debug)]
pub(super) enum Recognised {
    Flat,
    Elf(Elf),
    Multiboot(multiboot::Header),
    Pvh(Elf),
    BzImage(Kernel),
    Vmlinux(Elf),
}

impl Recognised {
    /// The format that the user knows it by.
    pub(super) fn format(&self) -> ImageFormat {
        match self {
            Self::Flat => ImageFormat::Flat,
            Self::Elf(_) => ImageFormat::Elf,
            Self::Multiboot(_) => ImageFormat::Multiboot,
            Self::Pvh(_) => ImageFormat::Pvh,
            Self::BzImage(_) | Self::Vmlinux(_) => ImageFormat::Linux,
        }
    }
}

/// Looks at an image whose first bytes are `head`.
///
/// # Errors
///
/// If what it is recognised as is not in order.
pub(super) fn recognise(file: &GuestFile, head: &[u8]) -> Result<Recognised, BootError> {
    if header::is_kernel(head) {
        return Ok(Recognised::BzImage(Kernel::parse(file, head)?));
    }
    if let Some(header) = multiboot::find(head) {
        return Ok(Recognised::Multiboot(header));
    }
    if !elf::is_elf(head) {
        return Ok(Recognised::Flat);
    }
    let elf = Elf::parse(file, head)?;
    // One of Linux's notes may come before that of the entry point.
    let mut of_linux = false;
    let has_entry = elf.find_note(file, |note| {
        of_linux |= note.name == LINUX_NOTE;
        pvh::entry_note(note)
    })?;
    Ok(match has_entry {
        Some(_) => Recognised::Pvh(elf),
        None if of_linux => Recognised::Vmlinux(elf),
        None => Recognised::Elf(elf),
    })
}

/// Takes an image for what the user says it is.
///
/// # Errors
///
/// If it is not.
pub(super) fn expect(
    format: ImageFormat,
    file: &GuestFile,
    head: &[u8],
) -> Result<Recognised, BootError> {
    Ok(match format {
        ImageFormat::Flat => Recognised::Flat,
        ImageFormat::Elf => Recognised::Elf(Elf::parse(file, head)?),
        ImageFormat::Multiboot => {
            Recognised::Multiboot(multiboot::find(head).ok_or(MultibootError::NoHeader)?)
        }
        ImageFormat::Pvh => Recognised::Pvh(Elf::parse(file, head)?),
        ImageFormat::Linux if header::is_kernel(head) => {
            Recognised::BzImage(Kernel::parse(file, head)?)
        }
        ImageFormat::Linux if elf::is_elf(head) => Recognised::Vmlinux(Elf::parse(file, head)?),
        ImageFormat::Linux => return Err(LinuxError::NotLinux.into()),
    })
}

#[cfg(test)]
mod tests;
