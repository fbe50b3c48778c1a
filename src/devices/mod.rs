//! The devices of the VM behind their bus. A device is a pure register machine in a file of
//! its own; this file splits accesses for devices that are one byte wide, tells the devices the
//! time, drives their pins, and answers for addresses where nothing is. The address map is
//! `map.rs`; how accesses get here is `queue.rs`; what becomes of the output is `thread.rs`.
//!
//! [`DeviceSet`] is guarded by the queue's mutex and used by whichever thread holds it.

mod access;
pub mod acpi_pm;
pub mod clock;
pub mod debug_console;
mod end_watch;
pub mod exit_port;
pub mod fw_cfg;
pub mod i8042;
pub mod ioapic;
mod map;
pub mod pci;
pub mod pic8259;
mod pins;
pub mod pit8254;
pub mod post_code;
mod posting;
pub mod power;
pub mod queue;
pub mod rtc;
pub mod serial;
pub mod setup;
pub mod split_irqchip;
pub mod system_control;
pub mod test_device;
pub mod thread;
pub mod timer_irq;
pub mod uart16550;
pub mod unknown;
pub mod watch;

use std::sync::Arc;
use std::time::Instant;

use crate::bus::{Bus, BusError};
use crate::exit::{Access, AddressSpace, Direction, VcpuId};
use crate::irq::{IrqLine, NullIrq, Wiring};
use acpi_pm::AcpiPm;
use clock::Clock;
use fw_cfg::FwCfg;
use i8042::I8042;
use map::{COM_LEN, Device};
use pci::PciConfig;
use pins::Pins;
use pit8254::Pit8254;
use post_code::PostCode;
use power::BochsShutdown;
use queue::{Busy, Serve};
use rtc::{CMOS_LEN, Rtc};
use serial::SerialPort;
use setup::DeviceSetup;
use split_irqchip::SplitIrqChip;
use system_control::SystemControl;
use test_device::TestDevice;
use unknown::UnknownAccesses;

pub use map::{COM1_BASE, COM1_IRQ, com_place};
pub use posting::PostPolicy;

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

/// What is left of a run in the devices when they are reset.
#[derive(Debug, Default)]
pub struct Leftover {
    /// What the guest has sent, if that is kept; its end, if it was much.
    pub output: Vec<u8>,
    /// The last POST code that it has written.
    pub post_code: Option<PostCode>,
}

/// All devices, and where each one is.
#[derive(Debug)]
pub struct DeviceSet {
    pio: Bus<Device>,
    mmio: Bus<Device>,
    com1: SerialPort,
    /// The serial ports besides COM1, with their first addresses.
    ports: Vec<(u64, SerialPort)>,
    rest: Registers,
    /// What the CMOS memory holds after a reset.
    cmos: [u8; CMOS_LEN],
    fw_cfg: FwCfg,
    test: Option<TestDevice>,
    pins: Pins,
    /// The interrupt controllers that are not in the kernel.
    irqchip: Option<Arc<SplitIrqChip>>,
    clock: Clock,
    unknown: UnknownAccesses,
    /// Until then the device thread need not come back, as far as it knows.
    known_deadline: Option<Instant>,
}

/// The devices that are always there and that a reset makes anew.
#[derive(Debug)]
struct Registers {
    rtc: Rtc,
    acpi: AcpiPm,
    pit: Pit8254,
    i8042: I8042,
    system_control: SystemControl,
    pci: PciConfig,
    bochs_shutdown: BochsShutdown,
    post_code: Option<PostCode>,
}

impl Registers {
    fn new(clock: &Clock, cmos: [u8; CMOS_LEN]) -> Self {
        let now = clock.now();
        Self {
            rtc: Rtc::new(clock.unix_at(now), now, cmos),
            acpi: AcpiPm::new(now),
            pit: Pit8254::new(),
            i8042: I8042::new(),
            system_control: SystemControl::default(),
            pci: PciConfig::default(),
            bochs_shutdown: BochsShutdown::default(),
            post_code: None,
        }
    }
}

impl DeviceSet {
    /// The platform's devices as `setup` has them; `line` makes the interrupt lines that they use,
    /// by their numbers (GSI).
    ///
    /// # Errors
    ///
    /// [`BusError`] if two of them claim one address.
    pub fn new(
        setup: DeviceSetup,
        line: &mut dyn FnMut(u32) -> Box<dyn IrqLine>,
    ) -> Result<Self, BusError> {
        let (pio, mmio) = map::buses(&setup)?;
        let mut wiring = Wiring::new(line);
        let mut com1 = SerialPort::new(wiring.connect(COM1_IRQ), setup.input_limit);
        if setup.keep_output {
            com1.keep_output();
        }
        let ports = setup.ports.iter().map(|&(port, writes)| {
            let (base, irq) = map::com_place(port);
            let mut serial = SerialPort::new(wiring.connect(irq), 0);
            if !writes {
                serial.discard_output();
            }
            (base, serial)
        });
        let ports = ports.collect();
        let clock = Clock::start();
        let cmos = rtc::cmos::first_contents(setup.ram, setup.vcpus);
        Ok(Self {
            pio,
            mmio,
            com1,
            ports,
            rest: Registers::new(&clock, cmos),
            cmos,
            fw_cfg: FwCfg::new(setup.vcpus, setup.ram.size().bytes(), setup.files),
            test: setup.test_device.then(TestDevice::default),
            pins: Pins::new(&mut wiring, setup.test_device, setup.irqchip.clone()),
            irqchip: setup.irqchip,
            clock,
            unknown: UnknownAccesses::default(),
            known_deadline: None,
        })
    }

    /// The same, with every line leading nowhere.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn unconnected(setup: DeviceSetup) -> Result<Self, BusError> {
        Self::new(setup, &mut |_| Box::new(NullIrq))
    }

    /// COM1.
    pub fn com1(&mut self) -> &mut SerialPort {
        &mut self.com1
    }

    /// The ports besides COM1 whose output the device thread writes.
    pub fn written_ports(&mut self) -> impl Iterator<Item = &mut SerialPort> {
        self.ports.iter_mut().map(|(_, port)| port).filter(|port| port.is_written())
    }

    /// Puts all devices back to their state after a reset; returns what the run has left in them.
    /// The host's time goes on.
    ///
    /// # Errors
    ///
    /// [`Busy`] while output has to wait for the host.
    pub fn reset(&mut self) -> Result<Leftover, Busy> {
        for (_, port) in &mut self.ports {
            port.reset()?;
        }
        let left = Leftover { output: self.com1.reset()?, post_code: self.rest.post_code };
        self.rest = Registers::new(&self.clock, self.cmos);
        self.fw_cfg.reset();
        if let Some(test) = &mut self.test {
            *test = TestDevice::default();
        }
        self.pins.reset();
        if let Some(irqchip) = &self.irqchip {
            irqchip.reset();
        }
        Ok(left)
    }

    /// Accesses that met no device.
    pub fn unknown(&mut self) -> &mut UnknownAccesses {
        &mut self.unknown
    }

    /// The last POST code that the guest has written.
    pub fn post_code(&self) -> Option<PostCode> {
        self.rest.post_code
    }

    /// Tells the devices that time has passed; returns when they want to hear again. For the
    /// device thread, which has to come back by then.
    pub fn tick(&mut self) -> Option<Instant> {
        self.com1.tick();
        self.ports.iter_mut().for_each(|(_, port)| port.tick());
        let now = self.clock.now();
        self.rest.rtc.advance(now);
        self.rest.acpi.advance(now);
        self.rest.pit.advance(now);
        self.pins.follow(&mut self.rest, now);
        self.pins.look_after_ends(now);
        self.known_deadline = self.deadline();
        self.known_deadline
    }

    fn deadline(&self) -> Option<Instant> {
        let serial = self.ports.iter().filter_map(|(_, port)| port.deadline());
        let timer = self.pins.deadline(&self.rest);
        let ends = self.pins.ends_deadline();
        let rest = [self.rest.rtc.deadline(), self.rest.acpi.deadline(), timer, ends];
        let rest = rest.into_iter().flatten().filter_map(|due| self.clock.instant(due));
        self.com1.deadline().into_iter().chain(serial).chain(rest).min()
    }

    /// Which writes a vCPU may post.
    pub fn post_policy(&self) -> PostPolicy {
        PostPolicy {
            com1_interrupts: self.com1.interrupts_enabled(),
            debug_console: self.test.is_none(),
        }
    }

    fn bus(&self, space: AddressSpace) -> &Bus<Device> {
        match space {
            AddressSpace::Pio => &self.pio,
            AddressSpace::Mmio => &self.mmio,
        }
    }

    /// True if the access would send a byte that a serial port has no room for.
    fn is_busy(&self, access: &Access) -> bool {
        if access.space != AddressSpace::Pio || access.direction != Direction::Write {
            return false;
        }
        let touches =
            |port: u64| access.addr <= port && port - access.addr < u64::from(access.size);
        (touches(COM1_BASE) && !self.com1.can_write(0))
            || (touches(debug_console::DEBUG_CONSOLE) && !self.com1.can_bypass())
            || self.ports.iter().any(|(base, port)| touches(*base) && !port.can_write(0))
    }

    /// Serves an access that no device refuses: as one if a device takes it whole, byte by
    /// byte if it is wider than the device or leaves its range.
    fn dispatch(&mut self, vcpu: VcpuId, access: &Access) -> Reply {
        let bus = self.bus(access.space);
        match bus.find_whole(access.addr, access.size) {
            Some((device, offset)) if access.size == 1 || !device.is_byte_wide() => {
                self.transfer(device, offset, access)
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

    /// An access that `device` takes whole.
    fn transfer(&mut self, device: Device, offset: u64, access: &Access) -> Reply {
        match access.direction {
            Direction::Read => Reply::Value(self.read(device, offset, access.size)),
            Direction::Write => self.write(device, offset, access.size, access.data),
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
}

impl Serve for DeviceSet {
    type Reply = Reply;

    fn serve(&mut self, vcpu: VcpuId, access: &Access) -> Result<Reply, Busy> {
        if self.is_busy(access) {
            return Err(Busy);
        }
        // Nearly all accesses are a byte's to COM1, and so have a shorter way.
        let offset = access.addr.wrapping_sub(COM1_BASE);
        if offset < COM_LEN && access.size == 1 && access.space == AddressSpace::Pio {
            return Ok(self.transfer(Device::Com1, offset, access));
        }
        Ok(self.dispatch(vcpu, access))
    }

    fn needs_thread(&self) -> bool {
        let is_news = |due: Instant| self.known_deadline.is_none_or(|known| due < known);
        self.com1.output_len() > 0
            || self.com1.calls_for_input()
            || self.unknown.has_notices()
            || self.ports.iter().any(|(_, port)| port.output_len() > 0)
            || self.deadline().is_some_and(is_news)
            || self.pins.has_new_wait_for_end()
    }

    /// The timer's interrupt, if the thread knows of no deadline as early.
    fn is_urgent(&self) -> bool {
        let due = self.pins.deadline(&self.rest).and_then(|due| self.clock.instant(due));
        due.is_some_and(|due| self.known_deadline.is_none_or(|known| due < known))
    }
}

fn all_ones(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

#[cfg(test)]
mod tests;
