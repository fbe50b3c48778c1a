//! [`SerialConfig`]: where the UART is connected, and how users write it.
//!
//! Nothing is opened here; `console.rs` does that.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where the UART's bytes go and come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SerialConfig {
    /// Standard output and standard input.
    #[default]
    Stdio,
    /// Nowhere: output is discarded, there is no input.
    Null,
    /// Output to this file, which is created or emptied; there is no input.
    File(PathBuf),
    /// A new pseudo-terminal, whose path is printed on standard error.
    Pty,
    /// Output is kept in memory for as long as an iteration of a campaign lasts, the last 64 KiB
    /// of it, and shown if the iteration fails; there is no input.
    Kept,
}

/// Why a text is no [`SerialConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SerialConfigError {
    /// None of the known words.
    #[error("'{0}' is not a serial connection: expected stdio, null, pty, kept or file:PATH")]
    Unknown(String),
    /// `file:` and nothing after it.
    #[error("file: needs a path after it")]
    EmptyPath,
}

impl SerialConfig {
    /// Reads `stdio`, `null`, `pty`, `kept` or `file:PATH`, where the path need not be UTF-8.
    pub fn from_os_str(text: &OsStr) -> Result<Self, SerialConfigError> {
        match text.as_bytes() {
            b"stdio" => Ok(Self::Stdio),
            b"null" => Ok(Self::Null),
            b"pty" => Ok(Self::Pty),
            b"kept" => Ok(Self::Kept),
            b"file:" => Err(SerialConfigError::EmptyPath),
            bytes => match bytes.strip_prefix(b"file:") {
                Some(path) => Ok(Self::File(OsStr::from_bytes(path).into())),
                None => Err(SerialConfigError::Unknown(text.to_string_lossy().into_owned())),
            },
        }
    }
}

impl fmt::Display for SerialConfig {
    /// The text that [`SerialConfig::from_os_str`] reads, as far as the path is UTF-8.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::Null => f.write_str("null"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Pty => f.write_str("pty"),
            Self::Kept => f.write_str("kept"),
        }
    }
}

impl FromStr for SerialConfig {
    type Err = SerialConfigError;

    fn from_str(text: &str) -> Result<Self, SerialConfigError> {
        Self::from_os_str(OsStr::new(text))
    }
}
