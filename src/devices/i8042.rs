//! The keyboard controller (Intel 8042 as the PC/AT and PS/2 have it) with a keyboard whose keys
//! nobody presses, as a pure register machine: enough for a driver to probe it in good order, and
//! for a guest to reset the machine or to believe that it has switched the A20 line.
//!
//! There is no auxiliary port: its test reports a clock line that is stuck, and what is to be
//! looped back through it comes as the keyboard's. The sources are IBM's PS/2 Hardware Interface
//! Technical Reference, "Keyboard and Auxiliary Device Controller", and the PC/AT's, "Keyboard".

use std::collections::VecDeque;

use crate::devices::GuestEnd;

/// Data: from the controller and the keyboard, and to them.
pub const I8042_DATA: u64 = 0x60;
/// Status on reading, commands on writing.
pub const I8042_COMMAND: u64 = 0x64;
/// The keyboard's interrupt line.
pub const KEYBOARD_IRQ: u32 = 1;

/// Bytes that wait to be read; a guest that sends more than it reads loses answers, as with the
/// keyboard's own buffer.
const OUTPUT_CAPACITY: usize = 16;
/// The controller's own RAM, of which byte 0 is the command byte.
const RAM_LEN: usize = 32;

/// The status register.
mod status {
    /// There is something to read.
    pub const OUTPUT_FULL: u8 = 1 << 0;
    /// The power-on test has passed: a copy of the command byte's bit.
    pub const SYSTEM: u8 = 1 << 2;
    /// The last write was a command, not data.
    pub const COMMAND: u8 = 1 << 3;
    /// The keyboard is not locked by its key.
    pub const UNLOCKED: u8 = 1 << 4;
}

/// The command byte.
mod mode {
    pub const KEYBOARD_INTERRUPT: u8 = 1 << 0;
    pub const SYSTEM: u8 = 1 << 2;
    pub const KEYBOARD_OFF: u8 = 1 << 4;
    pub const AUX_OFF: u8 = 1 << 5;
    pub const TRANSLATE: u8 = 1 << 6;
}

/// Commands to the controller.
mod command {
    pub const READ_RAM: u8 = 0x20;
    pub const WRITE_RAM: u8 = 0x60;
    pub const AUX_OFF: u8 = 0xa7;
    pub const AUX_ON: u8 = 0xa8;
    pub const TEST_AUX: u8 = 0xa9;
    pub const SELF_TEST: u8 = 0xaa;
    pub const TEST_KEYBOARD: u8 = 0xab;
    pub const KEYBOARD_OFF: u8 = 0xad;
    pub const KEYBOARD_ON: u8 = 0xae;
    pub const READ_INPUT_PORT: u8 = 0xc0;
    pub const READ_OUTPUT_PORT: u8 = 0xd0;
    pub const WRITE_OUTPUT_PORT: u8 = 0xd1;
    pub const LOOP_KEYBOARD: u8 = 0xd2;
    pub const LOOP_AUX: u8 = 0xd3;
    pub const TO_AUX: u8 = 0xd4;
    /// Not IBM's, but common: the A20 line off and on.
    pub const A20_OFF: u8 = 0xdd;
    pub const A20_ON: u8 = 0xdf;
    /// From here on: pulse those lines of the output port whose bits are 0.
    pub const PULSE: u8 = 0xf0;
}

/// Commands to the keyboard, and its answers.
mod keyboard {
    pub const SET_LEDS: u8 = 0xed;
    pub const ECHO: u8 = 0xee;
    pub const SCAN_CODE_SET: u8 = 0xf0;
    pub const IDENTIFY: u8 = 0xf2;
    pub const SET_RATE: u8 = 0xf3;
    pub const ENABLE: u8 = 0xf4;
    pub const DISABLE: u8 = 0xf5;
    pub const DEFAULTS: u8 = 0xf6;
    pub const RESET: u8 = 0xff;

    pub const ACK: u8 = 0xfa;
    pub const RESEND: u8 = 0xfe;
    pub const SELF_TEST_PASSED: u8 = 0xaa;
    /// A keyboard of the MF2 kind, ...
    pub const ID: [u8; 2] = [0xab, 0x83];
    /// ... as a controller that translates shows it.
    pub const ID_TRANSLATED: [u8; 2] = [0xab, 0x41];
    /// The scan code set that it uses, and again as translated.
    pub const SET_2: u8 = 2;
    pub const SET_2_TRANSLATED: u8 = 0x41;
}

const SELF_TEST_PASSED: u8 = 0x55;
const LINES_GOOD: u8 = 0;
/// The clock line is stuck low.
const CLOCK_STUCK: u8 = 1;
/// The input port: the keyboard is not locked, and all switches are as on a PC/AT with a colour
/// display.
const INPUT_PORT: u8 = 0x80;
/// The output port: 0 in this bit resets the machine, ...
const NO_RESET: u8 = 1 << 0;
/// ... and 1 in this one has the address line A20 work.
const A20: u8 = 1 << 1;
/// The rest of the output port: the keyboard's clock and data lines are idle.
const OUTPUT_PORT_IDLE: u8 = 0xcc;

/// Whom the next byte of data is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// The keyboard, as a command.
    Command,
    /// The keyboard, as the argument of this command.
    Argument(u8),
    /// This byte of the controller's RAM.
    Ram(u8),
    OutputPort,
    /// To be read back.
    Loop,
    /// The auxiliary device, which does not exist.
    Aux,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct I8042 {
    ram: [u8; RAM_LEN],
    output: VecDeque<u8>,
    /// What the data port last gave, which it gives again when there is nothing new.
    last: u8,
    expects: Expects,
    a20: bool,
    command_last: bool,
}

impl Default for I8042 {
    fn default() -> Self {
        Self::new()
    }
}

impl I8042 {
    /// The state in which a BIOS leaves it, A20 being on.
    pub fn new() -> Self {
        let mut ram = [0; RAM_LEN];
        ram[0] = mode::KEYBOARD_INTERRUPT | mode::SYSTEM | mode::AUX_OFF | mode::TRANSLATE;
        Self {
            ram,
            output: VecDeque::with_capacity(OUTPUT_CAPACITY),
            last: 0,
            expects: Expects::Command,
            a20: true,
            command_last: true,
        }
    }

    /// The guest reads the status.
    pub fn read_status(&self) -> u8 {
        let bit = |on, bit| if on { bit } else { 0 };
        bit(!self.output.is_empty(), status::OUTPUT_FULL)
            | bit(self.ram[0] & mode::SYSTEM != 0, status::SYSTEM)
            | bit(self.command_last, status::COMMAND)
            | status::UNLOCKED
    }

    /// The guest reads the data port.
    pub fn read_data(&mut self) -> u8 {
        self.last = self.output.pop_front().unwrap_or(self.last);
        self.last
    }

    /// The level of the keyboard's interrupt pin. After each byte that is read it is to be low for
    /// a moment, so that the next byte is an edge; that is up to the owner.
    pub fn irq_level(&self) -> bool {
        self.ram[0] & mode::KEYBOARD_INTERRUPT != 0 && !self.output.is_empty()
    }

    /// The guest writes a command to the controller.
    pub fn write_command(&mut self, value: u8) -> Option<GuestEnd> {
        self.command_last = true;
        self.expects = Expects::Command;
        let index = value & 0x1f;
        match value {
            command::READ_RAM..=0x3f => self.answer(&[self.ram[usize::from(index)]]),
            command::WRITE_RAM..=0x7f => self.expects = Expects::Ram(index),
            command::AUX_OFF => self.ram[0] |= mode::AUX_OFF,
            command::AUX_ON => self.ram[0] &= !mode::AUX_OFF,
            command::TEST_AUX => self.answer(&[CLOCK_STUCK]),
            command::SELF_TEST => {
                self.ram[0] |= mode::SYSTEM;
                self.answer(&[SELF_TEST_PASSED]);
            }
            command::TEST_KEYBOARD => self.answer(&[LINES_GOOD]),
            command::KEYBOARD_OFF => self.ram[0] |= mode::KEYBOARD_OFF,
            command::KEYBOARD_ON => self.ram[0] &= !mode::KEYBOARD_OFF,
            command::READ_INPUT_PORT => self.answer(&[INPUT_PORT]),
            command::READ_OUTPUT_PORT => {
                let a20 = if self.a20 { A20 } else { 0 };
                self.answer(&[OUTPUT_PORT_IDLE | NO_RESET | a20]);
            }
            command::WRITE_OUTPUT_PORT => self.expects = Expects::OutputPort,
            command::LOOP_KEYBOARD | command::LOOP_AUX => self.expects = Expects::Loop,
            command::TO_AUX => self.expects = Expects::Aux,
            command::A20_OFF => self.a20 = false,
            command::A20_ON => self.a20 = true,
            command::PULSE.. if value & NO_RESET == 0 => return Some(GuestEnd::Reset),
            _ => {}
        }
        None
    }

    /// The guest writes the data port.
    pub fn write_data(&mut self, value: u8) -> Option<GuestEnd> {
        self.command_last = false;
        match std::mem::replace(&mut self.expects, Expects::Command) {
            Expects::Command => self.command_keyboard(value),
            Expects::Argument(command) => self.answer_argument(command, value),
            Expects::Ram(index) => self.ram[usize::from(index)] = value,
            Expects::OutputPort if value & NO_RESET == 0 => return Some(GuestEnd::Reset),
            Expects::OutputPort => self.a20 = value & A20 != 0,
            Expects::Loop => self.answer(&[value]),
            Expects::Aux => {}
        }
        None
    }

    /// A byte for the keyboard switches its interface on.
    fn command_keyboard(&mut self, value: u8) {
        self.ram[0] &= !mode::KEYBOARD_OFF;
        match value {
            keyboard::RESET => self.answer(&[keyboard::ACK, keyboard::SELF_TEST_PASSED]),
            keyboard::ECHO => self.answer(&[keyboard::ECHO]),
            keyboard::IDENTIFY => {
                let [first, second] = self.translated(keyboard::ID, keyboard::ID_TRANSLATED);
                self.answer(&[keyboard::ACK, first, second]);
            }
            keyboard::SET_LEDS | keyboard::SCAN_CODE_SET | keyboard::SET_RATE => {
                self.expects = Expects::Argument(value);
                self.answer(&[keyboard::ACK]);
            }
            keyboard::ENABLE | keyboard::DISABLE | keyboard::DEFAULTS => {
                self.answer(&[keyboard::ACK]);
            }
            _ => self.answer(&[keyboard::RESEND]),
        }
    }

    fn answer_argument(&mut self, command: u8, value: u8) {
        // An argument has bit 7 clear; another command in its place is obeyed as one.
        if value & 0x80 != 0 {
            return self.command_keyboard(value);
        }
        self.answer(&[keyboard::ACK]);
        if (command, value) == (keyboard::SCAN_CODE_SET, 0) {
            let set = self.translated(keyboard::SET_2, keyboard::SET_2_TRANSLATED);
            self.answer(&[set]);
        }
    }

    fn translated<T>(&self, plain: T, translated: T) -> T {
        if self.ram[0] & mode::TRANSLATE != 0 { translated } else { plain }
    }

    fn answer(&mut self, bytes: &[u8]) {
        let room = OUTPUT_CAPACITY - self.output.len();
        self.output.extend(&bytes[..bytes.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that there is to read.
    fn answers(controller: &mut I8042) -> Vec<u8> {
        let mut bytes = Vec::new();
        while controller.read_status() & status::OUTPUT_FULL != 0 {
            bytes.push(controller.read_data());
        }
        bytes
    }

    fn command(controller: &mut I8042, value: u8) -> Vec<u8> {
        assert_eq!(controller.write_command(value), None);
        answers(controller)
    }

    fn data(controller: &mut I8042, value: u8) -> Vec<u8> {
        assert_eq!(controller.write_data(value), None);
        answers(controller)
    }

    #[test]
    fn tests_pass_and_the_auxiliary_port_is_not_there() {
        let mut controller = I8042::new();
        assert_eq!(controller.read_status(), 0x1c);
        assert_eq!(command(&mut controller, 0xaa), [0x55]);
        assert_eq!(command(&mut controller, 0xab), [0x00]);
        assert_eq!(command(&mut controller, 0xa9), [0x01]);
        assert!(command(&mut controller, 0xd3).is_empty());
        assert_eq!(data(&mut controller, 0x5a), [0x5a]);
        assert!(command(&mut controller, 0xd4).is_empty());
        assert!(data(&mut controller, 0xff).is_empty());
    }

    #[test]
    fn the_command_byte_is_what_was_written_and_follows_commands() {
        let mut controller = I8042::new();
        assert_eq!(command(&mut controller, 0x20), [0x65]);
        command(&mut controller, 0x60);
        data(&mut controller, 0x41);
        assert_eq!(command(&mut controller, 0x20), [0x41]);
        // The system bit is shown in the status, too.
        assert_eq!(controller.read_status() & status::SYSTEM, 0);
        for (value, mode) in [(0xad, 0x51), (0xa7, 0x71), (0xae, 0x61), (0xa8, 0x41)] {
            command(&mut controller, value);
            assert_eq!(command(&mut controller, 0x20), [mode], "{value:#x}");
        }
        // The other bytes are plain memory.
        command(&mut controller, 0x7f);
        data(&mut controller, 0x99);
        assert_eq!(command(&mut controller, 0x3f), [0x99]);
    }

    #[test]
    fn the_keyboard_answers() {
        let mut controller = I8042::new();
        assert_eq!(data(&mut controller, 0xff), [0xfa, 0xaa]);
        assert_eq!(data(&mut controller, 0xf2), [0xfa, 0xab, 0x41]);
        assert_eq!(data(&mut controller, 0xee), [0xee]);
        assert_eq!(data(&mut controller, 0xed), [0xfa]);
        assert_eq!(data(&mut controller, 0x07), [0xfa]);
        assert_eq!(data(&mut controller, 0xf0), [0xfa]);
        assert_eq!(data(&mut controller, 0x00), [0xfa, 0x41]);
        // A command where an argument should be.
        assert_eq!(data(&mut controller, 0xf3), [0xfa]);
        assert_eq!(data(&mut controller, 0xf4), [0xfa]);
        assert_eq!(data(&mut controller, 0x00), [0xfe]);
        command(&mut controller, 0x60);
        data(&mut controller, 0x00);
        assert_eq!(data(&mut controller, 0xf2), [0xfa, 0xab, 0x83]);
        // The last byte stays in the data register.
        assert_eq!(controller.read_data(), 0x83);
    }

    #[test]
    fn a20_is_kept_and_resets_end_the_vm() {
        let mut controller = I8042::new();
        assert_eq!(command(&mut controller, 0xd0), [0xcf]);
        command(&mut controller, 0xdd);
        assert_eq!(command(&mut controller, 0xd0), [0xcd]);
        command(&mut controller, 0xd1);
        data(&mut controller, 0xdf);
        assert_eq!(command(&mut controller, 0xd0), [0xcf]);
        for value in 0xf0..=0xff {
            let end = (value & 1 == 0).then_some(GuestEnd::Reset);
            assert_eq!(controller.write_command(value), end, "{value:#x}");
        }
        command(&mut controller, 0xd1);
        assert_eq!(controller.write_data(0xde), Some(GuestEnd::Reset));
    }

    #[test]
    fn answers_that_nobody_reads_are_bounded() {
        let mut controller = I8042::new();
        assert!(!controller.irq_level());
        for _ in 0..100 {
            controller.write_data(0xff);
        }
        assert!(controller.irq_level());
        assert_eq!(answers(&mut controller).len(), OUTPUT_CAPACITY);
        assert!(!controller.irq_level());
    }
}
