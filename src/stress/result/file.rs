//! Results as JSON.
//!
//! A name ends with its unit; one without is a count. Seeds and values are text, `0x2a`, because
//! many readers of JSON have no numbers of 64 bits. What is read is checked, so that a file that
//! was changed by hand adds nothing impossible; names that are not known are passed over.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;
use thiserror::Error;

use crate::stress::printable::Printable;
use crate::stress::result::CampaignResult;
use crate::stress::result::form::{FORMAT, Form, Impossible, VERSION};

/// The longest file that is read, in bytes: many times what a result can have.
const MAX_FILE: u64 = 1 << 30;

/// Why a file has no result.
#[derive(Debug, Error)]
pub enum ResultError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has something else.
    #[error("{path} {source}", path = path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormError,
    },
}

/// Why bytes are no result.
#[derive(Debug, Error)]
pub enum FormError {
    /// Not JSON.
    #[error("is not JSON: {0}")]
    Syntax(serde_json::Error),
    /// More than any result.
    #[error("is no result of a campaign: it is longer than {MAX_FILE} bytes")]
    TooLong,
    /// JSON of another program, or of something else of this one.
    #[error(
        "is no result of a campaign: its format is {found}, not \"{FORMAT}\"",
        found = Printable(.0)
    )]
    Foreign(String),
    /// Of a minivmm to come.
    #[error("has version {0} of the format, and this minivmm knows those up to {VERSION}")]
    Newer(u64),
    /// A name is missing, or has a value of the wrong kind.
    #[error("is no whole result: {0}")]
    Names(serde_json::Error),
    /// Values that are not possible together.
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

/// The names that are looked at first. Of any kind: it may be anybody's JSON.
#[derive(Deserialize)]
struct Head {
    format: Option<Value>,
    version: Option<Value>,
}

impl CampaignResult {
    /// The result as JSON, with a newline at the end.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write_json(&self, mut out: impl io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, &Form::of(self))?;
        out.write_all(b"\n")
    }

    /// What [`CampaignResult::write_json`] has written.
    ///
    /// # Errors
    ///
    /// If the bytes are something else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, FormError> {
        let head: Head = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            Category::Data => FormError::Foreign("none".to_owned()),
            _ => FormError::Syntax(error),
        })?;
        match head.format {
            Some(Value::String(format)) if format == FORMAT => {}
            format => {
                let found = format.map_or_else(|| "none".to_owned(), |format| format.to_string());
                return Err(FormError::Foreign(found));
            }
        }
        // What else may be there is the newer version's to say.
        match head.version.as_ref().and_then(Value::as_u64) {
            Some(version) if version > VERSION.into() => return Err(FormError::Newer(version)),
            _ => {}
        }
        let form: Form = serde_json::from_slice(bytes).map_err(FormError::Names)?;
        Ok(form.into_result()?)
    }

    /// Writes the result to a file, which is replaced if it is there.
    ///
    /// # Errors
    ///
    /// [`ResultError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), ResultError> {
        let mut json = Vec::new();
        let written = self.write_json(&mut json).and_then(|()| fs::write(path, json));
        written.map_err(|source| ResultError::Write { path: path.to_owned(), source })
    }

    /// Reads the result in a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read or has something else.
    pub fn read(path: &Path) -> Result<Self, ResultError> {
        let mut json = Vec::new();
        let file = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut json));
        let read = file.map_err(|source| ResultError::Read { path: path.to_owned(), source })?;
        let result = match u64::try_from(read) {
            Ok(0..=MAX_FILE) => Self::from_json(&json),
            _ => Err(FormError::TooLong),
        };
        result.map_err(|source| ResultError::Form { path: path.to_owned(), source })
    }
}
