//! [`Register`]: the registers whose value at entry a user may choose, by name.
//!
//! What they hold otherwise depends on the CPU mode and is decided in `boot/`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A register that `--reg` can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the architecture")]
pub enum Register {
    Rax,
    Rbx,
    Rcx,
    Rdx,
    Rsi,
    Rdi,
    Rsp,
    Rbp,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    Rip,
    Rflags,
}

impl Register {
    /// All registers, in the order of declaration.
    pub const ALL: [Self; 18] = [
        Self::Rax,
        Self::Rbx,
        Self::Rcx,
        Self::Rdx,
        Self::Rsi,
        Self::Rdi,
        Self::Rsp,
        Self::Rbp,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
        Self::Rip,
        Self::Rflags,
    ];

    /// The architecture's name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rax => "rax",
            Self::Rbx => "rbx",
            Self::Rcx => "rcx",
            Self::Rdx => "rdx",
            Self::Rsi => "rsi",
            Self::Rdi => "rdi",
            Self::Rsp => "rsp",
            Self::Rbp => "rbp",
            Self::R8 => "r8",
            Self::R9 => "r9",
            Self::R10 => "r10",
            Self::R11 => "r11",
            Self::R12 => "r12",
            Self::R13 => "r13",
            Self::R14 => "r14",
            Self::R15 => "r15",
            Self::Rip => "rip",
            Self::Rflags => "rflags",
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Register {
    type Err = UnknownRegister;

    /// Reads a name in either case.
    fn from_str(text: &str) -> Result<Self, UnknownRegister> {
        let named = |register: &Self| register.name().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownRegister(text.to_owned()))
    }
}

/// A name that is no [`Register`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a register: expected {known}",
    known = Register::ALL.map(Register::name).join(", ")
)]
pub struct UnknownRegister(
    /// The name.
    pub String,
);
