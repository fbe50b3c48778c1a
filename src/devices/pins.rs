//! The interrupt pins of the devices that are no serial ports, each at the level that its device
//! computes. Part of the set of all devices.

use super::Registers;
use super::acpi_pm::SCI;
use super::i8042::KEYBOARD_IRQ;
use super::rtc::RTC_IRQ;
use super::test_device::IRQ_LINES;
use crate::irq::{Pin, Wiring};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pins {
    rtc: Pin,
    sci: Pin,
    keyboard: Pin,
    /// The test device's, one for each line, if it is there.
    test: Vec<Pin>,
}

impl Pins {
    pub(super) fn new(wiring: &mut Wiring<'_>, test_device: bool) -> Self {
        let mut pin = |gsi| Pin::new(wiring.connect(gsi));
        Self {
            rtc: pin(RTC_IRQ),
            sci: pin(SCI),
            keyboard: pin(KEYBOARD_IRQ),
            test: if test_device { (0..IRQ_LINES).map(pin).collect() } else { Vec::new() },
        }
    }

    /// The pins go where the devices have them.
    pub(super) fn follow(&mut self, devices: &Registers) {
        self.rtc.set(devices.rtc.irq_level());
        self.sci.set(devices.acpi.irq_level());
        self.keyboard.set(devices.i8042.irq_level());
    }

    /// A byte was read from the keyboard controller: if there is another one, its interrupt is a
    /// new one.
    pub(super) fn lower_keyboard(&mut self) {
        self.keyboard.set(false);
    }

    /// The test device's pin at `line` goes to `high`.
    pub(super) fn set_test(&mut self, line: u64, high: bool) {
        let pin = usize::try_from(line).ok().and_then(|line| self.test.get_mut(line));
        if let Some(pin) = pin {
            pin.set(high);
        }
    }

    /// All pins are low, as after a reset of their devices.
    pub(super) fn reset(&mut self) {
        let Self { rtc, sci, keyboard, test } = self;
        for pin in [rtc, sci, keyboard].into_iter().chain(test) {
            pin.set(false);
        }
    }
}
