//! The names of exit reasons.

use std::fmt;

use crate::exit::{Direction, VmExit};

/// The names of exit reasons, as traces, filters and summaries write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named like the exit that it stands for")]
pub enum Reason {
    IoOut,
    IoIn,
    MmioWrite,
    MmioRead,
    Hlt,
    Shutdown,
    FailEntry,
    InternalError,
    SystemEvent,
    Interrupted,
    SetTpr,
    IrqWindowOpen,
    IoapicEoi,
    Debug,
    Unhandled,
}

impl Reason {
    /// All of them, in the order in which summaries list them.
    pub const ALL: [Self; 15] = [
        Self::IoOut,
        Self::IoIn,
        Self::MmioWrite,
        Self::MmioRead,
        Self::Hlt,
        Self::Shutdown,
        Self::FailEntry,
        Self::InternalError,
        Self::SystemEvent,
        Self::Interrupted,
        Self::SetTpr,
        Self::IrqWindowOpen,
        Self::IoapicEoi,
        Self::Debug,
        Self::Unhandled,
    ];

    /// The reason of an exit.
    pub fn of(exit: &VmExit) -> Self {
        match exit {
            VmExit::Pio(pio) if pio.direction == Direction::Write => Self::IoOut,
            VmExit::Pio(_) => Self::IoIn,
            VmExit::Mmio(mmio) if mmio.direction == Direction::Write => Self::MmioWrite,
            VmExit::Mmio(_) => Self::MmioRead,
            VmExit::Hlt => Self::Hlt,
            VmExit::Shutdown => Self::Shutdown,
            VmExit::FailEntry { .. } => Self::FailEntry,
            VmExit::InternalError { .. } => Self::InternalError,
            VmExit::SystemEvent { .. } => Self::SystemEvent,
            VmExit::Interrupted => Self::Interrupted,
            VmExit::SetTpr => Self::SetTpr,
            VmExit::IrqWindowOpen => Self::IrqWindowOpen,
            VmExit::IoapicEoi { .. } => Self::IoapicEoi,
            VmExit::Debug => Self::Debug,
            VmExit::Unhandled { .. } => Self::Unhandled,
        }
    }

    /// Its name: lower case, words joined by hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoOut => "io-out",
            Self::IoIn => "io-in",
            Self::MmioWrite => "mmio-write",
            Self::MmioRead => "mmio-read",
            Self::Hlt => "hlt",
            Self::Shutdown => "shutdown",
            Self::FailEntry => "fail-entry",
            Self::InternalError => "internal-error",
            Self::SystemEvent => "system-event",
            Self::Interrupted => "interrupted",
            Self::SetTpr => "set-tpr",
            Self::IrqWindowOpen => "irq-window-open",
            Self::IoapicEoi => "ioapic-eoi",
            Self::Debug => "debug",
            Self::Unhandled => "unhandled",
        }
    }

    /// The reason of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_name_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), Some(reason));
        }
        assert_eq!(Reason::named("io"), None);
    }
}
