//! From a guest image and a configuration to a guest that can start: its memory filled and the
//! state of each vCPU known.
//!
//! There is one file for each image format and each CPU mode. All of it is plain data and
//! arithmetic; nothing here names KVM, whose own forms of this are made in `kvm/entry.rs`. Runs
//! on the main thread, before any vCPU exists.

pub mod entry;
pub mod flat;
mod gdt;
mod long;
pub mod paging;
mod protected;
mod real;
pub mod stacks;
pub mod state;
pub mod tables;

use std::ops::Range;

use thiserror::Error;

use crate::config::{ImageFormat, IrqChip, PlatformConfig, StartVcpus, TopologyError, VmConfig};
use crate::exit::VcpuId;
use crate::memory::{BOOT_AREA, GuestMemory, MemoryError, RamLayout};
use entry::EntryError;
pub use entry::EntryPlan;
use flat::{FlatImage, ImageError};
use paging::PagingError;
use tables::{Tables, TablesError};

/// Why a guest cannot be started; each is one line that says what failed, and the value.
#[derive(Debug, Error)]
pub enum BootError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
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

    /// Whether there are tables that describe it ([`tables`]).
    pub fn has_tables(self) -> bool {
        self.irqchip != IrqChip::None
    }

    /// Whether vCPU `id` starts by itself.
    pub fn starts(self, id: VcpuId) -> bool {
        self.start == StartVcpus::All || id.0 == 0
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
    /// The addresses in memory that are not zero: the image, the tables and the boot area, as far
    /// as there are such.
    pub loaded: Vec<Range<u64>>,
}

/// Makes the guest's memory and loads the guest that `config` asks for; `gib_pages` says
/// whether the guest's CPU has pages of 1 GiB (CPUID leaf 0x80000001, EDX bit 26).
///
/// # Errors
///
/// Everything that can be wrong with the image, the addresses and the sizes is found before
/// there is any guest memory.
pub fn load(config: &VmConfig, gib_pages: bool) -> Result<BootedGuest, BootError> {
    let platform = Platform::new(ImageFormat::Flat, &config.platform)?;
    let ram = RamLayout::new(config.memory);
    let image = FlatImage::open(&config.guest)?;
    let place = image.place(config.load_addr, ram)?;
    let tables = tables(config, platform, &place)?;
    let entry = EntryPlan::new(config, &place, platform.has_tables())?;
    let boot_area = entry::boot_area(config.mode, ram, gib_pages)?;
    let memory = GuestMemory::new(config.memory, &boot_area)?;
    image.load(config.load_addr, &memory)?;
    let mut loaded = vec![place, BOOT_AREA.0..BOOT_AREA.0 + boot_area.len() as u64];
    if let Some(tables) = tables {
        loaded.extend(tables.write(&memory)?);
    }
    Ok(BootedGuest { memory, entry, platform, loaded })
}

/// The tables of this machine, if it has some, beside an image at `image`.
fn tables(
    config: &VmConfig,
    platform: Platform,
    image: &Range<u64>,
) -> Result<Option<Tables>, BootError> {
    if !platform.has_tables() {
        return Ok(None);
    }
    tables::check_image(image)?;
    Ok(Some(Tables::new(config.topology()?, RamLayout::new(config.memory))?))
}

#[cfg(test)]
mod tests;
