//! The address map of the platform: which device is where. docs/devices.md has it as a table.

use crate::bus::{Bus, BusError};
use crate::config::ComPort;
use crate::devices::setup::DeviceSetup;
use crate::devices::{
    acpi_pm, debug_console, exit_port, fw_cfg, i8042, ioapic, pci, pit8254, post_code, power, rtc,
    split_irqchip, system_control, test_device,
};

/// COM1: eight registers from here, IRQ 4.
pub const COM1_BASE: u64 = 0x3f8;
/// The line of COM1.
pub const COM1_IRQ: u32 = 4;
pub(super) const COM_LEN: u64 = 8;

/// The names by which the bus knows the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Com1,
    /// A serial port besides COM1, by its index.
    Com(u8),
    ExitPort,
    Acpi,
    BochsShutdown,
    KeyboardData,
    KeyboardCommand,
    Pci,
    Rtc,
    Pit,
    /// The 8259s' ports from here.
    Pic(u64),
    IoApic,
    SystemControlA,
    SystemControlB,
    PostCode,
    IoDelay,
    DebugConsole,
    FwCfg,
    Test(TestPart),
}

/// The parts of the test device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TestPart {
    Scratch,
    ScratchBytes,
    Flush,
    IrqLines,
    Memory,
}

impl Device {
    /// Whether a wider access is one of each of the consecutive addresses.
    pub(super) fn is_byte_wide(self) -> bool {
        match self {
            Self::Com1
            | Self::Com(_)
            | Self::KeyboardData
            | Self::KeyboardCommand
            | Self::Rtc
            | Self::Pit
            | Self::Pic(_)
            | Self::SystemControlA
            | Self::SystemControlB
            | Self::DebugConsole
            | Self::Test(TestPart::ScratchBytes | TestPart::IrqLines) => true,
            Self::ExitPort
            | Self::Acpi
            | Self::BochsShutdown
            | Self::Pci
            | Self::PostCode
            | Self::IoDelay
            | Self::FwCfg
            | Self::IoApic
            | Self::Test(TestPart::Scratch | TestPart::Flush | TestPart::Memory) => false,
        }
    }
}

/// The base of a serial port, and its line.
pub fn com_place(port: ComPort) -> (u64, u32) {
    match port {
        ComPort::Com2 => (0x2f8, 3),
        ComPort::Com3 => (0x3e8, 4),
        ComPort::Com4 => (0x2e8, 3),
    }
}

/// The two address spaces with the devices of `setup`.
///
/// # Errors
///
/// [`BusError`] if two of them claim one address.
pub(super) fn buses(setup: &DeviceSetup) -> Result<(Bus<Device>, Bus<Device>), BusError> {
    let (mut pio, mut mmio) = (Bus::pio(), Bus::mmio());
    pio.insert(pit8254::PIT, pit8254::PIT_LEN, "PIT", Device::Pit)?;
    pio.insert(i8042::I8042_DATA, 1, "i8042 data", Device::KeyboardData)?;
    pio.insert(system_control::PORT_B, 1, "system control B", Device::SystemControlB)?;
    pio.insert(i8042::I8042_COMMAND, 1, "i8042 command", Device::KeyboardCommand)?;
    pio.insert(rtc::RTC_INDEX, rtc::RTC_LEN, "RTC", Device::Rtc)?;
    pio.insert(post_code::POST_PORT, 1, "POST port", Device::PostCode)?;
    pio.insert(system_control::PORT_A, 1, "system control A", Device::SystemControlA)?;
    pio.insert(post_code::IO_DELAY_PORT, 1, "I/O delay port", Device::IoDelay)?;
    pio.insert(exit_port::EXIT_PORT, 4, "exit port", Device::ExitPort)?;
    pio.insert(COM1_BASE, COM_LEN, "COM1", Device::Com1)?;
    pio.insert(fw_cfg::FW_CFG, fw_cfg::FW_CFG_LEN, "fw_cfg", Device::FwCfg)?;
    pio.insert(acpi_pm::ACPI_BASE, acpi_pm::ACPI_LEN, "ACPI registers", Device::Acpi)?;
    pio.insert(pci::PCI_CONFIG, pci::PCI_CONFIG_LEN, "PCI configuration", Device::Pci)?;
    pio.insert(power::BOCHS_SHUTDOWN, 1, "Bochs shutdown", Device::BochsShutdown)?;
    for (index, (port, _)) in (0..).zip(&setup.ports) {
        pio.insert(com_place(*port).0, COM_LEN, port.name(), Device::Com(index))?;
    }
    if setup.irqchip.is_some() {
        for base in split_irqchip::PIC_PORTS {
            pio.insert(base, split_irqchip::PIC_PORTS_LEN, "PICs", Device::Pic(base))?;
        }
        mmio.insert(ioapic::IOAPIC_BASE, ioapic::IOAPIC_LEN, "IOAPIC", Device::IoApic)?;
    }
    if setup.test_device {
        insert_test_device(&mut pio, &mut mmio)?;
    } else {
        pio.insert(debug_console::DEBUG_CONSOLE, 1, "debug console", Device::DebugConsole)?;
    }
    Ok((pio, mmio))
}

/// Its ports take the place of the debug console's.
fn insert_test_device(pio: &mut Bus<Device>, mmio: &mut Bus<Device>) -> Result<(), BusError> {
    let len = test_device::SCRATCH_LEN;
    let bytes = Device::Test(TestPart::ScratchBytes);
    pio.insert(test_device::SCRATCH, len, "test device", Device::Test(TestPart::Scratch))?;
    pio.insert(test_device::FLUSH, len, "test device's flush", Device::Test(TestPart::Flush))?;
    pio.insert(test_device::SCRATCH_BYTES, len, "test device's bytes", bytes)?;
    let lines = u64::from(test_device::IRQ_LINES);
    let device = Device::Test(TestPart::IrqLines);
    pio.insert(test_device::IRQ_PORTS, lines, "test device's lines", device)?;
    let (base, len) = (test_device::MEMORY, test_device::MEMORY_LEN);
    mmio.insert(base, len, "test device's memory", Device::Test(TestPart::Memory))
}
