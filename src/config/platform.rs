//! The machine around the vCPUs: its interrupt controllers, and which vCPUs start by themselves.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{CpuChanges, DeviceConfig, Topology};

/// What a user asks of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformConfig {
    /// The interrupt controllers; those that the image's format expects if not given.
    pub irqchip: Option<IrqChip>,
    /// Which vCPUs start; those that the image's format expects if not given.
    pub start: Option<StartVcpus>,
    /// How the vCPUs are arranged; if not given, each is a core of the only socket.
    pub topology: Option<Topology>,
    /// What is different about the CPU.
    pub cpu: CpuChanges,
    /// The devices that are there only when asked for.
    pub devices: DeviceConfig,
    /// Whether instructions that KVM cannot emulate are completed here.
    pub assist: Assist,
}

/// What is done about an instruction that KVM cannot emulate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assist {
    /// It is completed, if it is one that is known.
    #[default]
    On,
    /// It is a failure.
    Off,
}

/// Where the interrupt controllers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IrqChip {
    /// There are none: no vCPU has a local APIC, and HLT ends a vCPU.
    None,
    /// All in the kernel: local APICs, IOAPIC, both PICs and the PIT.
    Kernel,
    /// The local APICs in the kernel, the rest in minivmm.
    Split,
}

impl IrqChip {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::None, Self::Kernel, Self::Split];

    /// The name that `--irqchip` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kernel => "kernel",
            Self::Split => "split",
        }
    }
}

impl fmt::Display for IrqChip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no [`IrqChip`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a place for the interrupt controllers: expected none, kernel or split")]
pub struct UnknownIrqChip(
    /// The name.
    pub String,
);

impl FromStr for IrqChip {
    type Err = UnknownIrqChip;

    fn from_str(text: &str) -> Result<Self, UnknownIrqChip> {
        let named = |chip: &Self| chip.name() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownIrqChip(text.to_owned()))
    }
}

/// Which vCPUs run the guest from its entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartVcpus {
    /// Every one.
    All,
    /// vCPU 0, the boot vCPU; the others wait for INIT and SIPI, as on a PC.
    Bsp,
}
