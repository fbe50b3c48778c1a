//! One access that a device takes whole: which of the devices' functions it is, and the pins after
//! it. Part of the set of all devices.

use super::map::{Device, TestPart};
use super::post_code::PostCode;
use super::{DeviceSet, Reply, all_ones, debug_console, exit_port};

impl DeviceSet {
    pub(super) fn read(&mut self, device: Device, offset: u64, size: u8) -> u64 {
        if device == Device::Com1 {
            return self.com1.read(register(offset)).into();
        }
        let Self { rest, fw_cfg, test, pins, clock, irqchip, .. } = self;
        let now = clock.now();
        let value = match device {
            Device::Pic(base) => {
                irqchip.as_ref().map_or(u8::MAX, |chip| chip.read_pic(base + offset)).into()
            }
            Device::IoApic => {
                let value = irqchip.as_ref().map_or(u32::MAX, |chip| chip.read_ioapic(offset));
                u64::from(value) & all_ones(size)
            }
            Device::Com(index) => match self.ports.get_mut(usize::from(index)) {
                Some((_, port)) => port.read(register(offset)).into(),
                None => all_ones(size),
            },
            Device::KeyboardData => {
                let value = rest.i8042.read_data();
                pins.lower_keyboard();
                value.into()
            }
            Device::KeyboardCommand => rest.i8042.read_status().into(),
            Device::Rtc => rest.rtc.read(offset, now).into(),
            Device::Acpi => rest.acpi.read(offset, size, now),
            Device::Pit => rest.pit.read(offset, now).into(),
            Device::SystemControlA => rest.system_control.read_a().into(),
            Device::SystemControlB => {
                rest.system_control.read_b(rest.pit.output_2(now), now).into()
            }
            Device::Pci => rest.pci.read(offset, size),
            Device::FwCfg => fw_cfg.read(offset, size),
            Device::DebugConsole => debug_console::PRESENT.into(),
            Device::Test(part) => test.as_ref().map_or(all_ones(size), |test| match part {
                TestPart::Scratch | TestPart::ScratchBytes => test.read_scratch(offset, size),
                TestPart::Memory => test.read_memory(offset, size),
                TestPart::Flush | TestPart::IrqLines => all_ones(size),
            }),
            Device::Com1
            | Device::ExitPort
            | Device::BochsShutdown
            | Device::PostCode
            | Device::IoDelay => all_ones(size),
        };
        pins.follow(rest, now);
        value
    }

    pub(super) fn write(&mut self, device: Device, offset: u64, size: u8, value: u64) -> Reply {
        let [low, ..] = value.to_le_bytes();
        if device == Device::Com1 {
            self.com1.write(register(offset), low);
            return Reply::Value(0);
        }
        let Self { rest, pins, clock, .. } = self;
        let now = clock.now();
        let end = match device {
            Device::ExitPort => Some(exit_port::write(value)),
            Device::Acpi => rest.acpi.write(offset, size, value, now),
            Device::BochsShutdown => rest.bochs_shutdown.write(low),
            Device::KeyboardData => rest.i8042.write_data(low),
            Device::KeyboardCommand => rest.i8042.write_command(low),
            Device::SystemControlA => rest.system_control.write_a(low),
            Device::Pci => rest.pci.write(offset, size, value),
            _ => {
                self.write_value(device, offset, size, value);
                return Reply::Value(0);
            }
        };
        pins.follow(rest, now);
        end.map_or(Reply::Value(0), Reply::End)
    }

    /// A write to a device that cannot end the VM.
    fn write_value(&mut self, device: Device, offset: u64, size: u8, value: u64) {
        let Self { rest, fw_cfg, test, pins, clock, irqchip, .. } = self;
        let now = clock.now();
        let [low, second, third, fourth, ..] = value.to_le_bytes();
        match device {
            Device::Pic(base) => {
                if let Some(irqchip) = irqchip {
                    irqchip.write_pic(base + offset, low);
                }
            }
            Device::IoApic => {
                if let Some(irqchip) = irqchip {
                    let value = u32::from_le_bytes([low, second, third, fourth]);
                    irqchip.write_ioapic(offset, value);
                }
            }
            Device::Com(index) => {
                if let Some((_, port)) = self.ports.get_mut(usize::from(index)) {
                    port.write(register(offset), low);
                }
            }
            Device::DebugConsole => self.com1.bypass(low),
            Device::PostCode => rest.post_code = Some(PostCode(low)),
            Device::Rtc => rest.rtc.write(offset, low, now),
            Device::Pit => {
                // What was due before this is not lost by it.
                rest.pit.advance(now);
                pins.follow(rest, now);
                rest.pit.write(offset, low, now);
            }
            Device::SystemControlB => {
                rest.system_control.write_b(low);
                rest.pit.set_gate_2(rest.system_control.timer_2_gate(), now);
            }
            Device::FwCfg => fw_cfg.write(offset, size, value),
            Device::Test(TestPart::IrqLines) => pins.set_test(offset, low != 0),
            Device::Test(part) => {
                if let Some(test) = test {
                    match part {
                        TestPart::Memory => test.write_memory(offset, size, value),
                        TestPart::Flush | TestPart::IrqLines => {}
                        _ => test.write_scratch(offset, size, value),
                    }
                }
            }
            _ => {}
        }
        pins.follow(rest, now);
    }
}

/// A register of a UART, from an offset that the bus has found to be below 8.
fn register(offset: u64) -> u8 {
    offset.to_le_bytes()[0]
}
