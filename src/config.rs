//! What a user asks of a VM, as values that cannot be wrong: a bad number of vCPUs, size or
//! CPU list has no representation here, so no later code checks again.
//!
//! Every type that a user writes as text has `FromStr` and `Display`, each the inverse of the
//! other, and the defaults are here and nowhere else. Which option sets which value is
//! `cli.rs`; what depends on the host, such as how many vCPUs its KVM allows, is checked where
//! the VM is built. Plain data, made on the main thread and only read after that.

mod boot;
mod cpu;
mod devices;
mod files;
mod memory_size;
mod pinning;
mod platform;
mod register;
mod serial;
#[cfg(test)]
mod tests;
mod topology;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::exit::Gpa;
use crate::number::{NumberError, parse_u64};
use crate::stress::config::StressConfig;
use crate::trace::config::TraceConfig;

pub use boot::{BootConfig, ImageFormat, Module, ModuleArgsError, UnknownImageFormat};
pub use cpu::{
    CpuChange, CpuChanges, CpuChangesError, CpuFeature, CpuidBit, CpuidRegister, UnknownCpuFeature,
};
pub use devices::{
    ComPort, DeviceConfig, DeviceConfigError, DeviceRequest, DeviceRequestError, FwCfgItem,
    FwCfgItemError, FwCfgName, PortOutput,
};
pub use files::{SameFileError, is_same_file};
pub use memory_size::{MemorySize, MemorySizeError};
pub use pinning::{CpuList, CpuListError, Pinning};
pub use platform::{Assist, IrqChip, PlatformConfig, StartVcpus, UnknownIrqChip};
pub use register::{Register, UnknownRegister};
pub use serial::{SerialConfig, SerialConfigError};
pub use topology::{ApicId, Topology, TopologyError};

/// Where a flat image goes unless the user says otherwise: the second page, which leaves the
/// real-mode interrupt table in the first one alone.
pub const DEFAULT_LOAD_ADDR: Gpa = Gpa(0x1000);

/// Everything `Vmm` needs to know to build and run one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// The guest image.
    pub guest: GuestSource,
    /// How it is loaded, and what beside it.
    pub boot: BootConfig,
    /// The machine around the vCPUs.
    pub platform: PlatformConfig,
    /// How many vCPUs.
    pub vcpus: VcpuCount,
    /// How much guest memory.
    pub memory: MemorySize,
    /// The CPU mode in which vCPUs start; what the image's format has if not given.
    pub mode: Option<CpuMode>,
    /// Where a flat image goes, if not to [`DEFAULT_LOAD_ADDR`].
    pub load_addr: Option<Gpa>,
    /// Where the vCPUs of a flat image start; the load address if not given.
    pub entry: Option<Gpa>,
    /// Register values that replace the defaults, on every vCPU, in the order given.
    pub regs: Vec<(Register, u64)>,
    /// The longest the guest may run.
    pub timeout: Option<Duration>,
    /// Where the UART is connected.
    pub serial: SerialConfig,
    /// Which host CPUs the vCPU threads are bound to.
    pub pin: Option<Pinning>,
    /// What is recorded of the VM's exits.
    pub trace: TraceConfig,
    /// The guest is run again and again.
    pub stress: Option<StressConfig>,
}

impl VmConfig {
    /// The defaults for a guest: one vCPU, 128 MiB, the image's own mode and place, the UART on
    /// standard output and input, no time-out and no pinning.
    pub fn new(guest: GuestSource) -> Self {
        Self {
            guest,
            boot: BootConfig::default(),
            platform: PlatformConfig::default(),
            vcpus: VcpuCount::default(),
            memory: MemorySize::default(),
            mode: None,
            load_addr: None,
            entry: None,
            regs: Vec::new(),
            timeout: None,
            serial: SerialConfig::default(),
            pin: None,
            trace: TraceConfig::default(),
            stress: None,
        }
    }

    /// How the vCPUs are arranged.
    ///
    /// # Errors
    ///
    /// If that is not for as many as there are.
    pub fn topology(&self) -> Result<Topology, TopologyError> {
        match self.platform.topology {
            None => Ok(Topology::flat(self.vcpus)),
            Some(topology) if topology.vcpus() == self.vcpus.get() => Ok(topology),
            Some(topology) => Err(TopologyError::Mismatch { topology, vcpus: self.vcpus }),
        }
    }

    /// The mode in which a flat image starts.
    pub fn flat_mode(&self) -> CpuMode {
        self.mode.unwrap_or_else(|| self.guest.default_mode())
    }

    /// Where a flat image goes.
    pub fn flat_load_addr(&self) -> Gpa {
        self.load_addr.unwrap_or(DEFAULT_LOAD_ADDR)
    }
}

/// Where the guest image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestSource {
    /// A file.
    File(PathBuf),
    /// A guest that is part of the program.
    Demo(&'static minivmm_guests::Guest),
}

impl fmt::Display for GuestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Demo(guest) => write!(f, "demo {}", guest.name),
        }
    }
}

impl GuestSource {
    /// Whether it is known to report outcomes, so that a single run of it is a campaign of one
    /// iteration.
    pub fn reports_outcomes(&self) -> bool {
        matches!(self, Self::Demo(guest) if guest.kind == minivmm_guests::Kind::Stress)
    }

    /// The mode a flat guest starts in unless the user says otherwise: real mode, in which a CPU
    /// comes out of reset, for a file, and the mode it was written for for a demo.
    pub fn default_mode(&self) -> CpuMode {
        match self {
            Self::File(_) => CpuMode::Real,
            Self::Demo(guest) => guest.mode.into(),
        }
    }
}

/// A number of vCPUs: 1 to [`VcpuCount::MAX`]. How many the host's KVM allows is a smaller
/// number, known only when the VM is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuCount(u32);

/// Why a number is no [`VcpuCount`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VcpuCountError {
    /// No vCPU at all.
    #[error("at least 1 vCPU is needed")]
    Zero,
    /// More than any KVM has.
    #[error("{count} vCPUs are more than the limit of {}", VcpuCount::MAX)]
    TooMany {
        /// The number asked for.
        count: u64,
    },
    /// The text is not a number.
    #[error(transparent)]
    Number(#[from] NumberError),
}

impl VcpuCount {
    /// The most that can be asked for: far above KVM's own limit, and low enough that nothing
    /// that is counted per vCPU overflows.
    pub const MAX: u32 = 65_535;

    /// The count, if it is in range.
    pub fn new(count: u32) -> Result<Self, VcpuCountError> {
        match count {
            0 => Err(VcpuCountError::Zero),
            1..=Self::MAX => Ok(Self(count)),
            _ => Err(VcpuCountError::TooMany { count: count.into() }),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for VcpuCount {
    /// One vCPU.
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for VcpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VcpuCount {
    type Err = VcpuCountError;

    fn from_str(text: &str) -> Result<Self, VcpuCountError> {
        let count = parse_u64(text)?;
        Self::new(u32::try_from(count).map_err(|_| VcpuCountError::TooMany { count })?)
    }
}

/// The CPU mode at entry; docs/guest-abi.md has each one's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuMode {
    /// 16-bit real mode.
    Real,
    /// 32-bit protected mode with flat segments and no paging.
    Protected,
    /// 64-bit mode, ring 0, all memory identity-mapped.
    Long,
    /// 64-bit mode, ring 3 with IOPL 3, all memory identity-mapped.
    User,
}

/// A name that is no [`CpuMode`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a CPU mode: expected real, protected, long or user")]
pub struct UnknownCpuMode(
    /// The name.
    pub String,
);

impl CpuMode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Real, Self::Protected, Self::Long, Self::User];

    /// The name that `--mode` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Protected => "protected",
            Self::Long => "long",
            Self::User => "user",
        }
    }
}

impl fmt::Display for CpuMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CpuMode {
    type Err = UnknownCpuMode;

    fn from_str(text: &str) -> Result<Self, UnknownCpuMode> {
        let named = |mode: &Self| mode.name().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownCpuMode(text.to_owned()))
    }
}

impl From<minivmm_guests::Mode> for CpuMode {
    fn from(mode: minivmm_guests::Mode) -> Self {
        use minivmm_guests::Mode;

        match mode {
            Mode::Real => Self::Real,
            Mode::Protected => Self::Protected,
            Mode::Long => Self::Long,
            Mode::User => Self::User,
        }
    }
}
