//! The interrupt controllers of `--irqchip split`, wired as on a PC: a line of the platform leads
//! to an input of the 8259s and to a pin of the IOAPIC, the 8259s lead to the boot vCPU's INTR, and
//! the IOAPIC's messages to the local APICs, which are in the kernel.
//!
//! Shared by the devices, which hold it for an access or a change of a line, and by the vCPUs' run
//! loops, which acknowledge an interrupt and tell its end without the devices. Lock order: the
//! devices, then `chips`, then the kicker of the boot vCPU; nobody takes another lock or waits with
//! `chips` held, so that it is as good as free.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::devices::ioapic::{IoApic, PINS, Written};
use crate::devices::pic8259::{Chip, PicPair, Register};
use crate::irq::{AskForEnds, IrqLine, LocalApics, Pin};

/// Where the master's two registers are, the slave's, and the two ELCRs.
pub const PIC_PORTS: [u64; 3] = [0x20, 0xa0, 0x4d0];
/// Each of them is of so many ports.
pub const PIC_PORTS_LEN: u64 = 2;

/// The line of the timer, and the pin of the IOAPIC that it leads to: pin 0 is the 8259s' (Intel MP
/// specification 1.4, section 3.6.2.2 and appendix E).
pub const TIMER_IRQ: u32 = 0;
const TIMER_PIN: usize = 2;
const INTR_PIN: usize = 0;
/// Lines of the 8259s; line 2 is their own.
const PIC_LINES: u32 = 16;
const CASCADE_LINE: u32 = 2;

/// See the module's text.
#[derive(Debug)]
pub struct SplitIrqChip {
    chips: Mutex<Chips>,
    vcpus: Box<dyn AskForEnds>,
}

#[derive(Debug)]
struct Chips {
    pics: PicPair,
    ioapic: IoApic,
    apics: Box<dyn LocalApics>,
    intr: Pin,
    /// Ends that were told.
    ends: u64,
}

impl Chips {
    fn set_pin(&mut self, pin: usize, high: bool) {
        let Self { ioapic, apics, .. } = self;
        ioapic.set_pin(pin, high, |message| apics.send(message));
    }

    fn set_line(&mut self, gsi: u32, high: bool) {
        if gsi < PIC_LINES && gsi != CASCADE_LINE {
            let [irq, ..] = gsi.to_le_bytes();
            self.pics.set_input(irq, high);
        }
        match gsi {
            TIMER_IRQ => self.set_pin(TIMER_PIN, high),
            CASCADE_LINE => {}
            _ => self.set_pin(usize::try_from(gsi).unwrap_or(PINS), high),
        }
    }
}

impl SplitIrqChip {
    /// Controllers after a reset, which lead to `apics` and to `intr`, the boot vCPU's pin; `vcpus`
    /// may be asked for ends that were not told.
    pub fn new(
        apics: Box<dyn LocalApics>,
        intr: Box<dyn IrqLine>,
        vcpus: Box<dyn AskForEnds>,
    ) -> Self {
        let (pics, ioapic, intr) = (PicPair::default(), IoApic::new(), Pin::new(intr));
        Self { chips: Mutex::new(Chips { pics, ioapic, apics, intr, ends: 0 }), vcpus }
    }

    /// The line of interrupt `gsi`.
    pub fn line(self: &Arc<Self>, gsi: u32) -> Box<dyn IrqLine> {
        Box::new(Line { irqchip: Arc::clone(self), gsi })
    }

    /// Changes something and has INTR follow.
    fn change<R>(&self, change: impl FnOnce(&mut Chips) -> R) -> R {
        let mut chips = self.chips.lock();
        let result = change(&mut chips);
        let high = chips.pics.intr();
        chips.set_pin(INTR_PIN, high);
        // With the lock held, so that the levels arrive in the order in which they came about.
        chips.intr.set(high);
        result
    }

    /// The boot vCPU acknowledges the interrupt that INTR asks for: its vector, if it still does.
    pub fn acknowledge(&self) -> Option<u8> {
        self.change(|chips| chips.pics.intr().then(|| chips.pics.acknowledge()))
    }

    /// A local APIC was told the end of an interrupt whose ends are reported.
    pub fn end(&self, vector: u8) {
        let chips = &mut *self.chips.lock();
        chips.ends += 1;
        chips.ioapic.end(vector, |message| chips.apics.send(message));
    }

    /// If a line waits for the end of its interrupt, how many ends had been told before. That one
    /// begins to wait happens with the devices held: an end has it go on waiting, but for a line of
    /// the same vector whose message nobody had taken, of which the device thread hears with the
    /// next access.
    pub fn awaits_end(&self) -> Option<u64> {
        let chips = self.chips.lock();
        chips.ioapic.awaits_end().then_some(chips.ends)
    }

    /// Asks the vCPUs whether there are ends that they have not told.
    pub fn ask_for_ends(&self) {
        self.vcpus.ask();
    }

    /// Whether an edge of the timer would be one too many ([`PicPair::is_busy`]).
    pub fn is_timer_busy(&self) -> bool {
        self.chips.lock().pics.is_busy(0)
    }

    /// The guest reads a port of the 8259s.
    pub fn read_pic(&self, port: u64) -> u8 {
        let (chip, register) = pic_register(port);
        self.change(|chips| chips.pics.read(chip, register))
    }

    /// The guest writes a port of the 8259s.
    pub fn write_pic(&self, port: u64, value: u8) {
        let (chip, register) = pic_register(port);
        self.change(|chips| chips.pics.write(chip, register, value));
    }

    /// The guest reads the IOAPIC.
    pub fn read_ioapic(&self, offset: u64) -> u32 {
        self.chips.lock().ioapic.read(offset)
    }

    /// The guest writes the IOAPIC. Ends are reported before the first interrupt is sent.
    pub fn write_ioapic(&self, offset: u64, value: u32) {
        let Chips { ioapic, apics, .. } = &mut *self.chips.lock();
        match ioapic.write(offset, value) {
            Written::Register => return,
            Written::Entry => {}
            Written::LevelMessage => apics.report_ends(&ioapic.level_messages()),
        }
        ioapic.serve(|message| apics.send(message));
    }

    /// Puts all back to its state after a reset, when the devices have lowered their lines.
    pub fn reset(&self) {
        self.change(|chips| {
            if chips.ioapic.level_messages().iter().any(Option::is_some) {
                chips.apics.report_ends(&[None; PINS]);
            }
            chips.pics = PicPair::default();
            chips.ioapic = IoApic::new();
        });
    }
}

/// Which register is at one of the [`PIC_PORTS`], or after it.
fn pic_register(port: u64) -> (Chip, Register) {
    let [master, _, trigger] = PIC_PORTS;
    let odd = port & 1 != 0;
    if port & !1 == trigger {
        return (if odd { Chip::Slave } else { Chip::Master }, Register::Trigger);
    }
    let chip = if port & !1 == master { Chip::Master } else { Chip::Slave };
    (chip, if odd { Register::Data } else { Register::Command })
}

/// A line, which several devices may share.
#[derive(Debug)]
struct Line {
    irqchip: Arc<SplitIrqChip>,
    gsi: u32,
}

impl IrqLine for Line {
    fn set_level(&mut self, high: bool) {
        self.irqchip.change(|chips| chips.set_line(self.gsi, high));
    }
}

#[cfg(test)]
mod tests;
