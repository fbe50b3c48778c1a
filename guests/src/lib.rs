//! The demo and test guests of minivmm, assembled at build time and found by name.

/// The CPU mode that a guest is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit real mode.
    Real,
    /// 32-bit protected mode.
    Protected,
    /// 64-bit mode, ring 0.
    Long,
    /// 64-bit mode, ring 3.
    User,
}

/// A guest that is part of the program.
#[derive(Debug, PartialEq, Eq)]
pub struct Guest {
    /// The name that `--demo` takes.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// The mode it is written for.
    pub mode: Mode,
    /// The flat image, linked for guest address 0x1000.
    pub image: &'static [u8],
}

/// All guests, in the order in which `--list-demos` prints them.
pub const GUESTS: &[Guest] = &[];

/// The guest of this name.
pub fn find(name: &str) -> Option<&'static Guest> {
    GUESTS.iter().find(|guest| guest.name == name)
}
