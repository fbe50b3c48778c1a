//! The PC's two 8259A interrupt controllers, the second on input 2 of the first, as a pure register
//! machine: inputs and the vector are values, and nobody is told of anything. Who drives the
//! inputs and takes the vector is in `split_irqchip.rs`. With the controllers in the kernel this is
//! not used.
//!
//! The source is Intel's 8259A datasheet (order number 231468), in the 8086 mode, which is the only
//! one of a PC. Two things are as in KVM's own model, so that a guest finds the same with either:
//! an edge stays latched when its input goes low before the interrupt is acknowledged (a chip would
//! then give its input 7), and so does the second controller's request at the first.

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// Inputs 0 to 7; its output is INTR.
    Master,
    /// Inputs 8 to 15; its output is input 2 of the master.
    Slave,
}

/// A register of one of them, as the guest addresses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// A0 = 0: ICW1, OCW2, OCW3; reads IRR, ISR or the poll's answer.
    Command,
    /// A0 = 1: ICW2 to ICW4, OCW1; reads IMR.
    Data,
    /// ELCR, the chip set's: which inputs are level-triggered (82371AB datasheet, section 4.2.6).
    Trigger,
}

/// The input to which the slave leads.
const CASCADE: u8 = 2;
/// The input whose vector is given when there is no request any more.
const SPURIOUS: u8 = 7;

/// Bits of the command words (datasheet, figures 7 and 8).
mod word {
    /// A0 = 0: ICW1; else, OCW3 if the other is on, or OCW2.
    pub const ICW1: u8 = 1 << 4;
    pub const OCW3: u8 = 1 << 3;
    /// ICW1: ICW4 comes; there is one controller, and so no ICW3.
    pub const IC4: u8 = 1 << 0;
    pub const SNGL: u8 = 1 << 1;
    /// ICW4: end of interrupt by itself; special fully nested mode.
    pub const AEOI: u8 = 1 << 1;
    pub const SFNM: u8 = 1 << 4;
    /// OCW3: the next read returns ISR (or IRR), if it says anything of it; the next read polls;
    /// special mask mode goes on (or off), if it says anything of it.
    pub const RIS: u8 = 1 << 0;
    pub const RR: u8 = 1 << 1;
    pub const POLL: u8 = 1 << 2;
    pub const SMM: u8 = 1 << 5;
    pub const ESMM: u8 = 1 << 6;
    /// A poll's answer: there is an interrupt.
    pub const POLLED: u8 = 1 << 7;
}

/// What the next write with A0 = 1 is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// OCW1: the chip works.
    #[default]
    Ocw1,
    Icw2,
    Icw3,
    Icw4,
}

/// One controller.
#[derive(Clone, Copy, Debug, Default)]
struct Pic {
    /// The levels of the inputs.
    inputs: u8,
    /// IRR, IMR and ISR.
    requests: u8,
    mask: u8,
    in_service: u8,
    /// The inputs that are level-triggered.
    level: u8,
    /// The upper five bits of the vectors.
    base: u8,
    /// The input of the highest priority; the others follow in turn.
    highest: u8,
    reads_isr: bool,
    poll: bool,
    special_mask: bool,
    special_nested: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    next: Next,
    /// What ICW1 has said about those to come.
    icw1: u8,
}

impl Pic {
    fn set_input(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        let rises = high && self.inputs & bit == 0;
        self.inputs = if high { self.inputs | bit } else { self.inputs & !bit };
        if self.level & bit != 0 {
            self.requests = self.requests & !bit | self.inputs & bit;
        } else if rises {
            self.requests |= bit;
        }
    }

    fn set_level(&mut self, level: u8) {
        self.level = level;
        self.requests = self.requests & !level | self.inputs & level;
    }

    /// How high the priority of the first of `inputs` is, from 0, the highest.
    fn rank(&self, inputs: u8) -> Option<u8> {
        let turned = inputs.rotate_right(self.highest.into());
        (inputs != 0).then(|| turned.trailing_zeros().to_le_bytes()[0])
    }

    fn input_of(&self, rank: u8) -> u8 {
        (rank + self.highest) & 7
    }

    /// The input for which the output is active.
    fn request(&self) -> Option<u8> {
        if self.next != Next::Ocw1 {
            return None;
        }
        let rank = self.rank(self.requests & !self.mask)?;
        let mut barring = self.in_service;
        if self.special_mask {
            barring &= !self.mask;
        }
        if self.special_nested {
            barring &= !(1 << CASCADE);
        }
        self.rank(barring).is_none_or(|barred| rank < barred).then(|| self.input_of(rank))
    }

    /// The interrupt of `input` is taken.
    fn take(&mut self, input: u8) {
        let bit = 1 << input;
        self.requests &= !bit | self.level;
        if !self.auto_eoi {
            self.in_service |= bit;
        } else if self.rotate_on_auto_eoi {
            self.highest = (input + 1) & 7;
        }
    }

    fn vector(&self, input: u8) -> u8 {
        self.base | input
    }

    fn begin_initialisation(&mut self, icw1: u8) {
        // Inputs, ELCR and the vectors stay. A request by an edge needs a new edge. ISR the
        // datasheet does not mention; here it is cleared, for nobody would end what it says.
        *self = Self {
            inputs: self.inputs,
            requests: self.inputs & self.level,
            level: self.level,
            base: self.base,
            next: Next::Icw2,
            icw1,
            ..Self::default()
        };
    }

    fn write_command(&mut self, value: u8) {
        if value & word::ICW1 != 0 {
            self.begin_initialisation(value);
        } else if value & word::OCW3 != 0 {
            if value & word::RR != 0 {
                self.reads_isr = value & word::RIS != 0;
            }
            self.poll |= value & word::POLL != 0;
            if value & word::ESMM != 0 {
                self.special_mask = value & word::SMM != 0;
            }
        } else {
            self.write_ocw2(value >> 5, value & 7);
        }
    }

    /// The end of an interrupt, and rotation: `command` is R, SL and EOI.
    fn write_ocw2(&mut self, command: u8, input: u8) {
        match command {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b001 | 0b101 => {
                // In special mask mode a masked input is not the one meant.
                let hidden = if self.special_mask { self.mask } else { 0 };
                if let Some(rank) = self.rank(self.in_service & !hidden) {
                    self.end(self.input_of(rank), command == 0b101);
                }
            }
            0b011 | 0b111 => self.end(input, command == 0b111),
            0b110 => self.highest = (input + 1) & 7,
            _ => {}
        }
    }

    fn end(&mut self, input: u8, rotate: bool) {
        self.in_service &= !(1 << input);
        if rotate {
            self.highest = (input + 1) & 7;
        }
    }

    fn write_data(&mut self, value: u8) {
        let has = |bit| self.icw1 & bit != 0;
        let after_icw3 = if has(word::IC4) { Next::Icw4 } else { Next::Ocw1 };
        self.next = match self.next {
            Next::Ocw1 => {
                self.mask = value;
                Next::Ocw1
            }
            Next::Icw2 => {
                self.base = value & 0xf8;
                if has(word::SNGL) { after_icw3 } else { Next::Icw3 }
            }
            // How the two are connected is fixed.
            Next::Icw3 => after_icw3,
            Next::Icw4 => {
                self.special_nested = value & word::SFNM != 0;
                self.auto_eoi = value & word::AEOI != 0;
                Next::Ocw1
            }
        };
    }

    fn read(&self, register: Register) -> u8 {
        match register {
            Register::Command if self.reads_isr => self.in_service,
            Register::Command => self.requests,
            Register::Data => self.mask,
            Register::Trigger => self.level,
        }
    }
}

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct PicPair {
    master: Pic,
    slave: Pic,
}

impl PicPair {
    /// Inputs that have an ELCR bit: not those of the PIT, the keyboard, the cascade, the RTC and
    /// the coprocessor (82371AB datasheet, section 4.2.6).
    const CAN_BE_LEVEL: [u8; 2] = [0xf8, 0xde];

    fn chip(&mut self, chip: Chip) -> &mut Pic {
        match chip {
            Chip::Master => &mut self.master,
            Chip::Slave => &mut self.slave,
        }
    }

    /// Interrupt request `irq`, 0 to 15 but for 2, goes to `high`.
    pub fn set_input(&mut self, irq: u8, high: bool) {
        let chip = if irq < 8 { &mut self.master } else { &mut self.slave };
        chip.set_input(irq & 7, high);
        self.settle();
    }

    /// The guest reads a register; a poll takes the interrupt.
    pub fn read(&mut self, chip: Chip, register: Register) -> u8 {
        let pic = self.chip(chip);
        if register == Register::Trigger || !std::mem::take(&mut pic.poll) {
            return pic.read(register);
        }
        let answer = pic.request().inspect(|input| pic.take(*input));
        if chip == Chip::Slave {
            // Its output goes low, and up again if it has another.
            self.master.requests &= !(1 << CASCADE);
        }
        self.settle();
        answer.map_or(SPURIOUS, |input| input | word::POLLED)
    }

    /// The guest writes a register.
    pub fn write(&mut self, chip: Chip, register: Register, value: u8) {
        let can_be_level = match chip {
            Chip::Master => Self::CAN_BE_LEVEL[0],
            Chip::Slave => Self::CAN_BE_LEVEL[1],
        };
        let pic = self.chip(chip);
        match register {
            Register::Command => pic.write_command(value),
            Register::Data => pic.write_data(value),
            Register::Trigger => pic.set_level(value & can_be_level),
        }
        // Only a master has a slave that it could not bar.
        self.slave.special_nested = false;
        self.settle();
    }

    /// The level of INTR, which leads to the CPU.
    pub fn intr(&self) -> bool {
        self.master.request().is_some()
    }

    /// The CPU acknowledges the interrupt, with both of its INTA cycles; returns the vector.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.request() {
            Some(CASCADE) => {
                self.master.take(CASCADE);
                let input = self.slave.request().inspect(|input| self.slave.take(*input));
                self.slave.vector(input.unwrap_or(SPURIOUS))
            }
            Some(input) => {
                self.master.take(input);
                self.master.vector(input)
            }
            None => self.master.vector(SPURIOUS),
        };
        self.settle();
        vector
    }

    /// Whether an edge at `irq`, one of the master's, would be one too many: the last one has not
    /// been taken, or its handler has not come to its end. One that is masked waits for nobody.
    pub fn is_busy(&self, irq: u8) -> bool {
        let Pic { requests, in_service, mask, .. } = self.master;
        (requests & !mask | in_service) & (1 << irq) != 0
    }

    fn settle(&mut self) {
        if self.slave.request().is_some() {
            self.master.requests |= 1 << CASCADE;
        }
    }
}

#[cfg(test)]
mod tests;
