//! The interrupt pins of the devices that are no serial ports, each at the level that its device
//! computes. Part of the set of all devices.

use std::sync::Arc;
use std::time::Duration;

use super::Registers;
use super::acpi_pm::SCI;
use super::end_watch::EndWatch;
use super::i8042::KEYBOARD_IRQ;
use super::rtc::RTC_IRQ;
use super::split_irqchip::{SplitIrqChip, TIMER_IRQ};
use super::test_device::IRQ_LINES;
use super::timer_irq::TimerIrq;
use crate::irq::{Pin, Wiring};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pins {
    rtc: Pin,
    sci: Pin,
    keyboard: Pin,
    /// The test device's, one for each line, if it is there.
    test: Vec<Pin>,
    /// If the interrupt controllers are not in the kernel: then neither is the timer.
    split: Option<Split>,
}

#[derive(Debug)]
struct Split {
    irqchip: Arc<SplitIrqChip>,
    timer: TimerIrq,
    ends: EndWatch,
}

impl Pins {
    pub(super) fn new(
        wiring: &mut Wiring<'_>,
        test_device: bool,
        irqchip: Option<Arc<SplitIrqChip>>,
    ) -> Self {
        let mut pin = |gsi| Pin::new(wiring.connect(gsi));
        Self {
            rtc: pin(RTC_IRQ),
            sci: pin(SCI),
            keyboard: pin(KEYBOARD_IRQ),
            split: irqchip.map(|irqchip| Split {
                irqchip,
                timer: TimerIrq::new(pin(TIMER_IRQ)),
                ends: EndWatch::default(),
            }),
            test: if test_device { (0..IRQ_LINES).map(pin).collect() } else { Vec::new() },
        }
    }

    /// The pins go where the devices have them; it is `now`.
    pub(super) fn follow(&mut self, devices: &mut Registers, now: Duration) {
        self.rtc.set(devices.rtc.irq_level());
        self.sci.set(devices.acpi.irq_level());
        self.keyboard.set(devices.i8042.irq_level());
        if let Some(Split { irqchip, timer, .. }) = &mut self.split {
            timer.follow(&mut devices.pit, || irqchip.is_timer_busy(), now);
        }
    }

    /// When the pins have to follow, if nobody uses the devices until then.
    pub(super) fn deadline(&self, devices: &Registers) -> Option<Duration> {
        self.split.as_ref().and_then(|split| split.timer.deadline(&devices.pit))
    }

    /// It is `now`: asks the vCPUs for the end of an interrupt that a line has waited for too long.
    /// For the device thread.
    pub(super) fn look_after_ends(&mut self, now: Duration) {
        if let Some(Split { irqchip, ends, .. }) = &mut self.split
            && ends.follow(irqchip.awaits_end(), now)
        {
            irqchip.ask_for_ends();
        }
    }

    /// When to do so next.
    pub(super) fn ends_deadline(&self) -> Option<Duration> {
        self.split.as_ref()?.ends.deadline()
    }

    /// Whether a line waits for an end, and the device thread does not know it.
    pub(super) fn has_new_wait_for_end(&self) -> bool {
        self.split.as_ref().is_some_and(|Split { irqchip, ends, .. }| {
            !ends.is_watching() && irqchip.awaits_end().is_some()
        })
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
        let Self { rtc, sci, keyboard, test, split } = self;
        if let Some(Split { timer, ends, .. }) = split {
            timer.reset();
            *ends = EndWatch::default();
        }
        for pin in [rtc, sci, keyboard].into_iter().chain(test) {
            pin.set(false);
        }
    }
}
