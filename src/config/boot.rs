//! How the guest's image is to be loaded, and what is loaded beside it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// What a user asks of the loader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootConfig {
    /// The format of the image; recognised by its content if not given.
    pub format: Option<ImageFormat>,
    /// The guest's command line.
    pub cmdline: Option<String>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Further files, for those formats that have modules.
    pub modules: Vec<Module>,
}

/// A file that is loaded beside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file.
    pub path: PathBuf,
    /// What the guest is told with it.
    pub args: String,
}

/// The arguments of a module are not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the arguments '{0}' are not UTF-8")]
pub struct ModuleArgsError(
    /// The arguments, with something else for what is not.
    pub String,
);

impl Module {
    /// Reads `FILE` or `FILE=ARGS`, of which the path need not be UTF-8.
    ///
    /// # Errors
    ///
    /// The arguments are not UTF-8.
    pub fn from_os_str(text: &OsStr) -> Result<Self, ModuleArgsError> {
        let mut parts = text.as_bytes().splitn(2, |byte| *byte == b'=');
        let [path, args] = [(); 2].map(|()| parts.next().unwrap_or_default());
        let args = str::from_utf8(args)
            .map_err(|_| ModuleArgsError(String::from_utf8_lossy(args).into_owned()))?;
        Ok(Self { path: OsStr::from_bytes(path).into(), args: args.to_owned() })
    }
}

/// The formats of guest images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// Bytes that go to memory as they are.
    Flat,
    /// An ELF executable, of 32 or 64 bits, that is entered at its entry point.
    Elf,
    /// A Multiboot 1 kernel.
    Multiboot,
    /// An ELF executable with a Xen note for the PVH entry point.
    Pvh,
    /// A Linux kernel: bzImage or vmlinux.
    Linux,
}

impl ImageFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Flat, Self::Elf, Self::Multiboot, Self::Pvh, Self::Linux];

    /// The name that `--format` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Elf => "elf",
            Self::Multiboot => "multiboot",
            Self::Pvh => "pvh",
            Self::Linux => "linux",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no [`ImageFormat`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not an image format: expected flat, elf, multiboot, pvh or linux")]
pub struct UnknownImageFormat(
    /// The name.
    pub String,
);

impl FromStr for ImageFormat {
    type Err = UnknownImageFormat;

    fn from_str(text: &str) -> Result<Self, UnknownImageFormat> {
        let named = |format: &Self| format.name() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownImageFormat(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_a_path_and_what_is_behind_the_first_equals_sign() {
        let module = |bytes| Module::from_os_str(OsStr::from_bytes(bytes));
        let expected = |path: &[u8], args: &str| {
            Ok(Module { path: OsStr::from_bytes(path).into(), args: args.into() })
        };
        assert_eq!(module(b"file"), expected(b"file", ""));
        assert_eq!(module(b"file=a=b c"), expected(b"file", "a=b c"));
        assert_eq!(module(b"\xff=a"), expected(b"\xff", "a"));
        assert_eq!(module(b""), expected(b"", ""));
        let error = module(b"file=a\xff").unwrap_err();
        assert_eq!(error.to_string(), "the arguments 'a\u{fffd}' are not UTF-8");
    }
}
