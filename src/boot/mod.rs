//! From a guest image and a configuration to a guest that can start: its memory filled and the
//! state of each vCPU known.
//!
//! There is one file for each image format and each CPU mode. A format's file says what goes where
//! (`layout.rs`) and with which registers vCPUs start (`entry.rs`); that is the [`BootPlan`], in
//! which everything is checked, and only then is there memory to copy it to. All of it is plain
//! data and arithmetic; nothing here names KVM, whose own forms of this are made in
//! `kvm/entry.rs`. Runs on the main thread, before any vCPU exists.

pub mod beside;
mod bios;
mod detect;
pub mod elf;
pub mod entry;
pub mod file;
mod flat;
mod gdt;
#[cfg(test)]
mod hostile_tests;
pub mod layout;
pub mod linux;
mod long;
mod memory_map;
pub mod multiboot;
mod options;
pub mod paging;
mod protected;
pub mod pvh;
mod real;
pub mod stacks;
pub mod state;
#[cfg(test)]
mod synthetic;
pub mod tables;

use std::ops::Range;

use thiserror::Error;

use crate::config::{
    CpuMode, ImageFormat, IrqChip, MemorySize, PlatformConfig, StartVcpus, TopologyError, VmConfig,
};
use crate::exit::VcpuId;
use crate::memory::{BOOT_AREA, GuestMemory, MemoryError, RamLayout};
use detect::Recognised;
use elf::ElfError;
pub use entry::EntryPlan;
use entry::{EntryError, Start};
use file::{FileError, GuestFile};
use layout::{Layout, LayoutError, WriteError};
use linux::LinuxError;
use multiboot::MultibootError;
use options::OptionError;
use paging::PagingError;
use pvh::PvhError;
use tables::{Tables, TablesError};

/// Why a guest cannot be started; each is one line that says what failed, and the value.
#[derive(Debug, Error)]
pub enum BootError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// An option that does not go with the image's format.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// What goes where.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An ELF file.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A Multiboot kernel.
    #[error(transparent)]
    Multiboot(#[from] MultibootError),
    /// A PVH guest.
    #[error(transparent)]
    Pvh(#[from] PvhError),
    /// A Linux kernel.
    #[error(transparent)]
    Linux(#[from] LinuxError),
    /// The entry point or the stacks.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The page tables.
    #[error(transparent)]
    Paging(#[from] PagingError),
    /// The tables that describe the machine.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The arrangement of the vCPUs that they describe.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No vCPU can send INIT and SIPI.
    #[error(
        "with --start bsp the other vCPUs wait for an interrupt, and --irqchip none has nothing \
         that could send it"
    )]
    NobodyToStart,
    /// The BIOS waits for the timer in a HLT, which would be the end of the vCPU.
    #[error(
        "a kernel that is entered in real mode has a BIOS, and that needs a timer's interrupt: \
         expected another --irqchip than none"
    )]
    BiosWithoutTimer,
}

impl BootError {
    /// Whether options do not go together, or with the image.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Option(_) | Self::NobodyToStart | Self::BiosWithoutTimer => true,
            Self::Elf(error) => error.is_usage(),
            Self::Linux(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// The machine that a guest finds: what the user asked for, or else what the format of its image
/// expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Where the interrupt controllers are.
    pub irqchip: IrqChip,
    /// Which vCPUs start by themselves.
    pub start: StartVcpus,
}

impl Platform {
    /// The machine for an image of this format.
    ///
    /// # Errors
    ///
    /// If vCPUs are to wait for an interrupt that nothing can send.
    pub fn new(format: ImageFormat, config: &PlatformConfig) -> Result<Self, BootError> {
        let (irqchip, start) = match format {
            ImageFormat::Flat | ImageFormat::Elf => (IrqChip::None, StartVcpus::All),
            ImageFormat::Multiboot | ImageFormat::Pvh | ImageFormat::Linux => {
                (IrqChip::Kernel, StartVcpus::Bsp)
            }
        };
        let irqchip = config.irqchip.unwrap_or(irqchip);
        let start = config.start.unwrap_or(match irqchip {
            IrqChip::None => StartVcpus::All,
            _ => start,
        });
        if (irqchip, start) == (IrqChip::None, StartVcpus::Bsp) {
            return Err(BootError::NobodyToStart);
        }
        Ok(Self { irqchip, start })
    }

    /// Whether vCPU `id` starts by itself.
    pub fn starts(self, id: VcpuId) -> bool {
        self.start == StartVcpus::All || id.0 == 0
    }

    /// Whether there are tables that describe the machine: without interrupt controllers there is
    /// nothing to describe.
    pub fn has_tables(self) -> bool {
        self.irqchip != IrqChip::None
    }
}

impl From<WriteError> for BootError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::File(error) => Self::File(error),
            WriteError::Memory(error) => Self::Memory(error),
        }
    }
}

/// A guest in memory, and how its vCPUs start.
#[derive(Debug)]
pub struct BootedGuest {
    /// The guest's memory, with the image and the boot area in it.
    pub memory: GuestMemory,
    /// The state of each vCPU at entry.
    pub entry: EntryPlan,
    /// The machine that it finds.
    pub platform: Platform,
    /// The addresses in memory that are not zero: the image and what was loaded with it, the tables
    /// and the boot area, as far as there are such.
    pub loaded: Vec<Range<u64>>,
}

/// A guest that can be loaded: everything that can be wrong with its image, the addresses and the
/// sizes has been looked for.
#[derive(Debug)]
pub struct BootPlan {
    format: ImageFormat,
    platform: Platform,
    memory: MemorySize,
    layout: Layout,
    tables: Option<Tables>,
    start: Start,
    entry: EntryPlan,
}

/// Finds out what the guest that `config` asks for needs, and whether it can have it.
///
/// # Errors
///
/// One that says what is wrong.
pub fn plan(config: &VmConfig) -> Result<BootPlan, BootError> {
    let file = GuestFile::image(&config.guest)?;
    let head = match config.boot.format {
        Some(ImageFormat::Flat) => Vec::new(),
        _ => file.head()?,
    };
    let image = match config.boot.format {
        Some(format) => detect::expect(format, &file, &head)?,
        None => detect::recognise(&file, &head)?,
    };
    let format = image.format();
    options::check(format, config)?;
    let platform = Platform::new(format, &config.platform)?;
    let ram = RamLayout::new(config.memory);
    let tables = match platform.has_tables() {
        true => {
            let ports: Vec<_> =
                config.platform.devices.ports().iter().map(|(port, _)| *port).collect();
            Some(Tables::new(config.topology()?, &ports, ram)?)
        }
        false => None,
    };
    let mut layout = Layout::new(file, ram, tables.is_some());
    let (boot, mode) = (&config.boot, config.mode);
    let start = match image {
        Recognised::Flat => flat::plan(config, &mut layout)?,
        Recognised::Elf(elf) => elf::plan(&elf, mode, &mut layout)?,
        Recognised::Multiboot(header) => multiboot::plan(header, &head, boot, &mut layout)?,
        Recognised::Pvh(elf) => pvh::plan(&elf, boot, &mut layout)?,
        Recognised::BzImage(kernel) => linux::plan_bzimage(&kernel, mode, boot, &mut layout)?,
        Recognised::Vmlinux(elf) => linux::plan_vmlinux(&elf, mode, boot, &mut layout)?,
    };
    let has_bios = (format, start.mode()) == (ImageFormat::Linux, CpuMode::Real);
    if has_bios && platform.irqchip == IrqChip::None {
        return Err(BootError::BiosWithoutTimer);
    }
    let entry = EntryPlan::new(config, &start)?;
    log::debug!(
        target: "minivmm::boot",
        "{} image, starting in {} mode at {:#x}",
        format, start.mode(), entry.entry_point()
    );
    Ok(BootPlan { format, platform, memory: config.memory, layout, tables, start, entry })
}

impl BootPlan {
    /// The format of the image.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// The machine that the guest finds.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// The mode in which vCPUs start.
    pub fn mode(&self) -> CpuMode {
        self.start.mode()
    }

    /// Makes the guest's memory and loads the guest; `gib_pages` says whether the guest's CPU has
    /// pages of 1 GiB (CPUID leaf 0x80000001, EDX bit 26).
    ///
    /// # Errors
    ///
    /// The host does not have the memory, or a file cannot be read.
    pub fn load(self, gib_pages: bool) -> Result<BootedGuest, BootError> {
        let boot_area = self.start.boot_area(RamLayout::new(self.memory), gib_pages)?;
        let memory = GuestMemory::new(self.memory, &boot_area)?;
        let mut loaded = self.layout.write(&memory)?;
        if let Some(tables) = &self.tables {
            loaded.extend(tables.write(&memory)?);
        }
        loaded.push(BOOT_AREA.0..BOOT_AREA.0 + boot_area.len() as u64);
        Ok(BootedGuest { memory, entry: self.entry, platform: self.platform, loaded })
    }
}

/// [`plan`], and then [`BootPlan::load`].
///
/// # Errors
///
/// Theirs.
pub fn load(config: &VmConfig, gib_pages: bool) -> Result<BootedGuest, BootError> {
    plan(config)?.load(gib_pages)
}

#[cfg(test)]
mod tests;
