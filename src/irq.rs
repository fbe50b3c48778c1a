//! Where a device's interrupt pin leads. A device computes its pin's level as a value; the
//! owner of the device passes each change on to an [`IrqLine`], through a [`Pin`]. Which pins
//! share a line is [`Wiring`]'s, when the devices are made. Messages of an IOAPIC go to
//! [`LocalApics`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// One interrupt line of the platform.
///
/// `set_level` is called with the devices held, so that the levels arrive in the order in
/// which they came about; it must not block, nor wait for a lock that is held across anything that
/// may.
pub trait IrqLine: fmt::Debug + Send {
    /// The pin goes to `high`.
    fn set_level(&mut self, high: bool);
}

/// A pin that is not connected: there is no interrupt controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullIrq;

impl IrqLine for NullIrq {
    fn set_level(&mut self, _high: bool) {}
}

/// An interrupt message, in the form of an MSI (Intel SDM vol. 3, section 12.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Where to: the destination in bits 12 to 19, its mode in bit 2.
    pub address: u32,
    /// What: the vector, the delivery mode, whether it was a level.
    pub data: u32,
}

/// The local APICs, for an IOAPIC that is not where they are. As [`IrqLine`], it must not block.
pub trait LocalApics: fmt::Debug + Send {
    /// Sends a message to those whom it addresses; whether any took it.
    fn send(&mut self, message: Message) -> bool;

    /// From now on the ends of the interrupts that these messages make, one for each pin of the
    /// IOAPIC, are reported, by the vCPU that was interrupted.
    fn report_ends(&mut self, messages: &[Option<Message>]);
}

/// The vCPUs, which tell the ends of interrupts that their local APICs have reported.
pub trait AskForEnds: fmt::Debug + Send + Sync {
    /// Has each vCPU tell what was not told because it sleeps in a HLT. As [`IrqLine`], it must not
    /// block.
    fn ask(&self);
}

/// A device's pin: low at first, and its line is told of changes only.
#[derive(Debug)]
pub struct Pin {
    line: Box<dyn IrqLine>,
    high: bool,
}

impl Pin {
    /// A pin that leads to `line`.
    pub fn new(line: Box<dyn IrqLine>) -> Self {
        Self { line, high: false }
    }

    /// The pin's level is `high`.
    pub fn set(&mut self, high: bool) {
        if high != self.high {
            self.high = high;
            self.line.set_level(high);
        }
    }
}

/// Makes the lines of a platform, each once, and connects pins to them. Several pins of one line
/// are ORed, as the pins of an ISA bus are: the line is high while any of them is.
pub struct Wiring<'a> {
    make: &'a mut dyn FnMut(u32) -> Box<dyn IrqLine>,
    lines: BTreeMap<u32, Arc<Mutex<SharedLine>>>,
}

impl<'a> Wiring<'a> {
    /// Lines that `make` makes by their number (GSI).
    pub fn new(make: &'a mut dyn FnMut(u32) -> Box<dyn IrqLine>) -> Self {
        Self { make, lines: BTreeMap::new() }
    }

    /// What a pin that leads to line `gsi` is connected to.
    pub fn connect(&mut self, gsi: u32) -> Box<dyn IrqLine> {
        let line = self.lines.entry(gsi).or_insert_with(|| {
            Arc::new(Mutex::new(SharedLine { line: (self.make)(gsi), high_pins: 0 }))
        });
        Box::new(Connection { line: Arc::clone(line), high: false })
    }
}

impl fmt::Debug for Wiring<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring").field("lines", &self.lines).finish_non_exhaustive()
    }
}

/// A line and how many of the pins at it are high.
#[derive(Debug)]
struct SharedLine {
    line: Box<dyn IrqLine>,
    high_pins: u32,
}

/// One pin's connection to a line. The lock is never waited for: all pins are driven by whoever
/// holds the devices.
#[derive(Debug)]
struct Connection {
    line: Arc<Mutex<SharedLine>>,
    high: bool,
}

impl IrqLine for Connection {
    fn set_level(&mut self, high: bool) {
        if high == self.high {
            return;
        }
        self.high = high;
        let shared = &mut *self.line.lock();
        let before = shared.high_pins;
        shared.high_pins = if high { before + 1 } else { before - 1 };
        if (before == 0) != (shared.high_pins == 0) {
            shared.line.set_level(high);
        }
    }
}

/// For tests: lines that note every change of every one of them.
#[cfg(test)]
pub mod recording {
    use super::*;

    /// The changes of all lines, in order: which, and to what level.
    #[derive(Clone, Debug, Default)]
    pub struct Changes(Arc<Mutex<Vec<(u32, bool)>>>);

    #[derive(Debug)]
    struct Line(u32, Changes);

    impl IrqLine for Line {
        fn set_level(&mut self, high: bool) {
            self.1.0.lock().push((self.0, high));
        }
    }

    impl Changes {
        /// A line whose changes are noted here.
        pub fn line(&self, gsi: u32) -> Box<dyn IrqLine> {
            Box::new(Line(gsi, self.clone()))
        }

        /// The changes since the last call.
        pub fn take(&self) -> Vec<(u32, bool)> {
            std::mem::take(&mut self.0.lock())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::recording::Changes;
    use super::*;

    #[test]
    fn a_pin_tells_of_changes_only() {
        let changes = Changes::default();
        let mut pin = Pin::new(changes.line(4));
        pin.set(false);
        assert_eq!(changes.take(), []);
        for high in [true, true, false, false, true] {
            pin.set(high);
        }
        assert_eq!(changes.take(), [(4, true), (4, false), (4, true)]);
    }

    #[test]
    fn a_line_is_high_while_any_of_its_pins_is() {
        let changes = Changes::default();
        let mut make = |gsi| changes.line(gsi);
        let mut wiring = Wiring::new(&mut make);
        let [mut first, mut second, mut other] = [4, 4, 3].map(|gsi| wiring.connect(gsi));
        first.set_level(true);
        assert_eq!(changes.take(), [(4, true)]);
        second.set_level(true);
        other.set_level(true);
        first.set_level(false);
        assert_eq!(changes.take(), [(3, true)]);
        second.set_level(false);
        // A pin that says the same again counts once.
        second.set_level(false);
        first.set_level(true);
        assert_eq!(changes.take(), [(4, false), (4, true)]);
    }
}
