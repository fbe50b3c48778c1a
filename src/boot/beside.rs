//! What is loaded beside the image: the initial RAM disk and the modules.
//!
//! Which of them a format has, and where they may go, is in the files of the formats.

use std::ops::Range;

use thiserror::Error;

use super::file::{FileError, GuestFile};
use super::layout::{Layout, LayoutError, Preference};
use crate::config::{BootConfig, MemorySize};

/// Why such a file cannot be loaded.
#[derive(Debug, Error)]
pub enum BesideError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its place.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// A file in memory beside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) range: Range<u64>,
    /// What the guest is told with it.
    pub(super) args: String,
}

/// Places the initial RAM disk, if there is one, and then the modules, each on pages of its own.
pub(super) fn place(
    boot: &BootConfig,
    within: Range<u64>,
    preference: Preference,
    layout: &mut Layout,
) -> Result<Vec<Beside>, BesideError> {
    let mut placed = Vec::new();
    let initrd = boot.initrd.iter().map(|path| ("initial RAM disk", path, ""));
    let modules = boot.modules.iter().map(|m| ("module", &m.path, m.args.as_str()));
    for (what, path, args) in initrd.chain(modules) {
        let (file, len) = layout.add_file(GuestFile::open(what, path)?);
        let range = layout.find(what, len, MemorySize::PAGE, within.clone(), preference)?;
        layout.fill_from(&range, file, 0, len);
        placed.push(Beside { range, args: args.to_owned() });
    }
    Ok(placed)
}
