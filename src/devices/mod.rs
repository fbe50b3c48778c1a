//! The devices of the VM behind their bus. A device is a pure register machine in a file of
//! its own; this file has the address map, splits accesses for devices that are one byte
//! wide, and answers for addresses where nothing is. How accesses get here is `queue.rs`;
//! what becomes of the output is `thread.rs`.
//!
//! [`DeviceSet`] is guarded by the queue's mutex and used by whichever thread holds it.

pub mod exit_port;
pub mod power;
pub mod queue;
pub mod reset;
pub mod serial;
pub mod thread;
pub mod uart16550;
pub mod unknown;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bus::{Bus, BusError};
use crate::exit::{Access, AddressSpace, Direction, VcpuId};
use power::BochsShutdown;
use queue::{Busy, Serve};
use serial::SerialPort;
use unknown::UnknownAccesses;

/// COM1: eight registers from here, IRQ 4.
pub const COM1_BASE: u64 = 0x3f8;
const COM1_LEN: u64 = 8;

/// How a guest ends its VM through a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// It wrote this value to the exit port.
    Exit(u32),
    /// It switched the machine off.
    PowerOff,
    /// It asked for a reset.
    Reset,
}

/// What a served access comes back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What a read returned, little-endian, zero above its size; 0 for a write.
    Value(u64),
    /// The access ended the VM.
    End(GuestEnd),
}

/// The names by which the bus knows the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Com1,
    ExitPort,
    AcpiPower,
    BochsShutdown,
    I8042,
    PciConfigAddress,
}

/// All devices, and where each one is.
#[derive(Debug)]
pub struct DeviceSet {
    pio: Bus<Device>,
    mmio: Bus<Device>,
    com1: SerialPort,
    bochs_shutdown: BochsShutdown,
    unknown: UnknownAccesses,
    /// The device thread knows that the serial port wants to be told the time.
    timer_seen: bool,
}

impl DeviceSet {
    /// The platform's devices around `com1`.
    ///
    /// # Errors
    ///
    /// [`BusError`] if two of them claim one address.
    pub fn new(com1: SerialPort) -> Result<Self, BusError> {
        let mut pio = Bus::pio();
        pio.insert(COM1_BASE, COM1_LEN, "COM1", Device::Com1)?;
        pio.insert(exit_port::EXIT_PORT, 4, "exit port", Device::ExitPort)?;
        pio.insert(power::ACPI_PM1A_CNT, 2, "ACPI power-off", Device::AcpiPower)?;
        pio.insert(power::BOCHS_SHUTDOWN, 1, "Bochs shutdown", Device::BochsShutdown)?;
        pio.insert(reset::I8042_COMMAND, 1, "i8042", Device::I8042)?;
        pio.insert(reset::PCI_CONFIG_ADDRESS, 4, "PCI address", Device::PciConfigAddress)?;
        Ok(Self {
            pio,
            mmio: Bus::mmio(),
            com1,
            bochs_shutdown: BochsShutdown::default(),
            unknown: UnknownAccesses::default(),
            timer_seen: false,
        })
    }

    /// The serial port.
    pub fn com1(&mut self) -> &mut SerialPort {
        &mut self.com1
    }

    /// Puts all devices back to their state after a reset; returns what the guest has sent, if that
    /// is kept.
    ///
    /// # Errors
    ///
    /// [`Busy`] while output has to wait for the host.
    pub fn reset(&mut self) -> Result<Vec<u8>, Busy> {
        self.bochs_shutdown = BochsShutdown::default();
        self.com1.reset()
    }

    /// Accesses that met no device.
    pub fn unknown(&mut self) -> &mut UnknownAccesses {
        &mut self.unknown
    }

    /// Tells the devices that time has passed; returns how long until they want to hear again.
    /// For the device thread, which has to come back by then.
    pub fn tick(&mut self) -> Option<std::time::Duration> {
        self.com1.tick();
        let next = self.com1.next_tick();
        self.timer_seen = next.is_some();
        next
    }

    /// Which writes a vCPU may post.
    pub fn post_policy(&self) -> PostPolicy {
        PostPolicy { com1_interrupts: self.com1.interrupts_enabled() }
    }

    fn bus(&self, space: AddressSpace) -> &Bus<Device> {
        match space {
            AddressSpace::Pio => &self.pio,
            AddressSpace::Mmio => &self.mmio,
        }
    }

    /// True if the access would send a byte that the serial port has no room for.
    fn is_busy(&self, access: &Access) -> bool {
        access.space == AddressSpace::Pio
            && access.direction == Direction::Write
            && access.addr <= COM1_BASE
            && COM1_BASE - access.addr < u64::from(access.size)
            && !self.com1.can_write(0)
    }

    /// Serves an access that no device refuses: as one if a device takes it whole, byte by
    /// byte if it is wider than the device or leaves its range.
    fn dispatch(&mut self, vcpu: VcpuId, access: &Access) -> Reply {
        let bus = self.bus(access.space);
        match bus.find_whole(access.addr, access.size) {
            Some((device, offset)) if access.size == 1 || device != Device::Com1 => {
                match access.direction {
                    Direction::Read => Reply::Value(self.read(device, offset, access.size)),
                    Direction::Write => self.write(device, offset, access.size, access.data),
                }
            }
            None if access.bytes().all(|byte| bus.find(byte.addr).is_none()) => {
                self.unknown.count(vcpu, access);
                Reply::Value(match access.direction {
                    Direction::Read => all_ones(access.size),
                    Direction::Write => 0,
                })
            }
            _ => self.dispatch_bytes(vcpu, access),
        }
    }

    fn dispatch_bytes(&mut self, vcpu: VcpuId, access: &Access) -> Reply {
        let mut value = 0;
        for (index, byte) in access.bytes().enumerate() {
            match self.dispatch(vcpu, &byte) {
                Reply::Value(read) => value |= read << (8 * index),
                end @ Reply::End(_) => return end,
            }
        }
        Reply::Value(value)
    }

    fn read(&mut self, device: Device, offset: u64, size: u8) -> u64 {
        match device {
            Device::Com1 => u64::from(self.com1.read(register(offset))),
            Device::I8042 => reset::I8042_STATUS,
            Device::ExitPort
            | Device::AcpiPower
            | Device::BochsShutdown
            | Device::PciConfigAddress => all_ones(size),
        }
    }

    fn write(&mut self, device: Device, offset: u64, size: u8, value: u64) -> Reply {
        let [low, ..] = value.to_le_bytes();
        let end = match device {
            Device::Com1 => {
                self.com1.write(register(offset), low);
                None
            }
            Device::ExitPort => Some(exit_port::write(value)),
            Device::AcpiPower => power::write_pm1a_cnt(value << (8 * offset)),
            Device::BochsShutdown => self.bochs_shutdown.write(low),
            Device::I8042 => reset::write_i8042(value),
            Device::PciConfigAddress => reset::write_pci_config_address(offset, size, value),
        };
        end.map_or(Reply::Value(0), Reply::End)
    }
}

impl Serve for DeviceSet {
    type Reply = Reply;

    fn serve(&mut self, vcpu: VcpuId, access: &Access) -> Result<Reply, Busy> {
        if self.is_busy(access) {
            return Err(Busy);
        }
        Ok(self.dispatch(vcpu, access))
    }

    fn needs_thread(&self) -> bool {
        self.com1.output_len() > 0
            || self.com1.calls_for_input()
            || self.unknown.has_notices()
            || (!self.timer_seen && self.com1.next_tick().is_some())
    }
}

/// Which writes need not be waited for: a byte to send while the UART has no interrupt enabled
/// that it could change. Read on the vCPU threads, without the devices.
#[derive(Clone, Debug)]
pub struct PostPolicy {
    com1_interrupts: Arc<AtomicBool>,
}

impl PostPolicy {
    /// Whether `access` may be posted. If another vCPU is just enabling an interrupt either
    /// answer is right: the guest has not ordered the two. If it has, through memory, then the
    /// store of the flag came before the guest's own and x86 keeps the two in order.
    pub fn may_post(&self, access: &Access) -> bool {
        access.addr == COM1_BASE
            && access.size == 1
            && access.direction == Direction::Write
            && access.space == AddressSpace::Pio
            && !self.com1_interrupts.load(Ordering::Relaxed)
    }
}

/// A register of a UART, from an offset that the bus has found to be below 8.
fn register(offset: u64) -> u8 {
    offset.to_le_bytes()[0]
}

fn all_ones(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

#[cfg(test)]
mod tests;
