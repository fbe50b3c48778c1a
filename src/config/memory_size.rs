//! [`MemorySize`]: a size of guest memory, and how users write one.
//!
//! Only the number lives here. Where in the guest's address space the memory goes, and
//! whether the host has that much, is the business of `memory.rs`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::number::{NumberError, parse_u64};

/// The units a size is written in, largest first: the letter, and the power of two.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// A size of guest memory in bytes: at least one 4 KiB page, whole pages, and at most
/// [`MemorySize::MAX_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

/// Why a number or a text is no [`MemorySize`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemorySizeError {
    /// No memory at all.
    #[error("at least one page of 4 KiB is needed")]
    Zero,
    /// The last page would be a part of one.
    #[error("{bytes} bytes are not a whole number of 4 KiB pages")]
    PartialPage {
        /// The size asked for.
        bytes: u64,
    },
    /// More than [`MemorySize::MAX_BYTES`].
    #[error("{bytes} bytes are more than the limit of {}", MemorySize(MemorySize::MAX_BYTES))]
    TooLarge {
        /// The size asked for; a text can ask for more than 64 bits can count.
        bytes: u128,
    },
    /// What comes after the number is no unit.
    #[error("'{0}' is not a unit of memory: expected K, M, G or T")]
    Unit(String),
    /// The text is not a number with a unit.
    #[error(transparent)]
    Number(#[from] NumberError),
}

impl MemorySize {
    /// The size of a page, in bytes.
    pub const PAGE: u64 = 4096;

    /// The largest size: 2^46 bytes, the most physical memory that Linux itself manages with
    /// 4-level page tables, so more cannot be meant.
    pub const MAX_BYTES: u64 = 1 << 46;

    /// The size, if it is in range and whole pages.
    pub fn from_bytes(bytes: u64) -> Result<Self, MemorySizeError> {
        if bytes == 0 {
            Err(MemorySizeError::Zero)
        } else if bytes > Self::MAX_BYTES {
            Err(MemorySizeError::TooLarge { bytes: bytes.into() })
        } else if !bytes.is_multiple_of(Self::PAGE) {
            Err(MemorySizeError::PartialPage { bytes })
        } else {
            Ok(Self(bytes))
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// The size in pages of 4 KiB.
    pub fn pages(self) -> u64 {
        self.0 / Self::PAGE
    }
}

impl Default for MemorySize {
    /// 128 MiB.
    fn default() -> Self {
        Self(128 << 20)
    }
}

impl fmt::Display for MemorySize {
    /// The size in the largest unit in which it is a whole number: `128 MiB`, `1536 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, shift) in UNITS {
            if self.0.trailing_zeros() >= shift {
                return write!(f, "{} {letter}iB", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    /// Reads a decimal number of bytes, or one with the unit K, M, G or T (powers of 1024) in
    /// either case, with `B` or `iB` after it or not, and with a space before it or not.
    fn from_str(text: &str) -> Result<Self, MemorySizeError> {
        let is_number = |c: char| c.is_ascii_digit() || c == '_';
        let (number, unit) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
        if number.is_empty() {
            return Err(NumberError::Invalid(text.to_owned()).into());
        }
        let shift = unit_shift(unit.strip_prefix(' ').unwrap_or(unit))
            .ok_or_else(|| MemorySizeError::Unit(unit.to_owned()))?;
        let bytes = u128::from(parse_u64(number)?) << shift;
        Self::from_bytes(u64::try_from(bytes).map_err(|_| MemorySizeError::TooLarge { bytes })?)
    }
}

/// The power of two that a unit such as `M`, `MB`, `MiB`, `B` or none at all stands for.
fn unit_shift(unit: &str) -> Option<u32> {
    let mut chars = unit.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    let Some(&(_, shift)) = UNITS.iter().find(|(letter, _)| Some(*letter) == first) else {
        return (unit.is_empty() || unit.eq_ignore_ascii_case("B")).then_some(0);
    };
    let rest = chars.as_str();
    let known = ["", "B", "iB"].iter().any(|suffix| suffix.eq_ignore_ascii_case(rest));
    known.then_some(shift)
}
