//! The IOAPIC as a pure register machine: 24 pins, each with an entry that says which message goes
//! to the local APICs. Pins are driven and ends of interrupts told; messages go to a function that
//! the caller gives, which says whether a local APIC took them. With the IOAPIC in the kernel this
//! is not used.
//!
//! The source is Intel's 82093AA datasheet (order number 290566). As in KVM's own model, a pin's
//! polarity is that of its wire and so does not matter, an entry that becomes edge-triggered
//! forgets its remote IRR (which is how Linux ends an interrupt at an IOAPIC of this version), and
//! ExtINT messages reach nobody.

use crate::irq::Message;

/// Where it is on every PC (section 3.0).
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// The page that it answers in.
pub const IOAPIC_LEN: u64 = 0x100;
/// Its pins.
pub const PINS: usize = 24;

/// The two registers that are mapped: the index of another one, and that one (section 3.1).
const REGISTER_SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

/// Those that they lead to (section 3.2).
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const FIRST_ENTRY: u8 = 0x10;

/// The version of KVM's IOAPIC, and the number of the last pin.
const VERSION_VALUE: u32 = 0x11 | LAST_PIN << 16;
const LAST_PIN: u32 = 23;
const ID_BITS: u32 = 0xf << 24;

/// A redirection table entry (section 3.2.4).
mod entry {
    pub const VECTOR: u64 = 0xff;
    pub const DELIVERY_MODE: u64 = 7 << 8;
    pub const LOGICAL: u64 = 1 << 11;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const DESTINATION: u64 = 0xff << 56;
    /// What the guest writes; with the polarity, bit 13.
    pub const WRITABLE: u64 =
        VECTOR | DELIVERY_MODE | LOGICAL | 1 << 13 | LEVEL | MASKED | DESTINATION;
}

/// Parts of a [`Message`].
mod message {
    pub const ADDRESS: u32 = 0xfee0_0000;
    pub const DESTINATION_SHIFT: u32 = 12;
    pub const LOGICAL: u32 = 1 << 2;
    pub const ASSERT: u32 = 1 << 14;
    pub const LEVEL: u32 = 1 << 15;
}

/// The message of an entry.
fn message_of(bits: u64) -> Message {
    let [vector, mode, .., destination] = bits.to_le_bytes();
    let has = |bit| bits & bit != 0;
    let logical = if has(entry::LOGICAL) { message::LOGICAL } else { 0 };
    let level = if has(entry::LEVEL) { message::LEVEL } else { 0 };
    Message {
        address: message::ADDRESS | u32::from(destination) << message::DESTINATION_SHIFT | logical,
        data: u32::from(vector) | u32::from(mode & 7) << 8 | message::ASSERT | level,
    }
}

/// What a write has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// No entry.
    Register,
    /// The entry of the pin that is selected.
    Entry,
    /// The same, and with it [`level_messages`](IoApic::level_messages): whoever reports ends is to
    /// know before the entry is served.
    LevelMessage,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct IoApic {
    entries: [u64; PINS],
    /// The levels of the pins.
    pins: u32,
    select: u8,
    id: u32,
}

impl IoApic {
    /// The state after a reset: every pin is masked.
    pub fn new() -> Self {
        Self { entries: [entry::MASKED; PINS], pins: 0, select: 0, id: 0 }
    }

    /// The guest reads at `offset`, whatever the size.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            REGISTER_SELECT => self.select.into(),
            WINDOW => self.read_selected(),
            _ => 0,
        }
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_VALUE,
            _ => match self.selected_pin() {
                Some(pin) => {
                    let upper = self.select & 1 != 0;
                    halves(self.entries[pin])[usize::from(upper)]
                }
                None => u32::MAX,
            },
        }
    }

    fn selected_pin(&self) -> Option<usize> {
        let pin = usize::from(self.select.checked_sub(FIRST_ENTRY)? / 2);
        (pin < PINS).then_some(pin)
    }

    /// The guest writes at `offset`; an access narrower than the register clears the rest of it. If
    /// that was an entry, the caller has it [served](Self::serve).
    pub fn write(&mut self, offset: u64, value: u32) -> Written {
        match offset {
            REGISTER_SELECT => self.select = value.to_le_bytes()[0],
            WINDOW if self.select == ID => self.id = value & ID_BITS,
            WINDOW => {
                if let Some(pin) = self.selected_pin() {
                    return self.write_entry(pin, value);
                }
            }
            _ => {}
        }
        Written::Register
    }

    fn write_entry(&mut self, pin: usize, value: u32) -> Written {
        let before = self.entries[pin];
        let [lower, upper] = halves(before);
        let written = match self.select & 1 {
            0 => u64::from(value) | u64::from(upper) << 32,
            _ => u64::from(lower) | u64::from(value) << 32,
        };
        let mut now = written & entry::WRITABLE;
        if now & entry::LEVEL != 0 {
            now |= before & entry::REMOTE_IRR;
        }
        self.entries[pin] = now;
        match level_message(before) == level_message(now) {
            true => Written::Entry,
            false => Written::LevelMessage,
        }
    }

    /// Of each pin whose entry is level-triggered, the message, masked or not: the local APICs'
    /// ends of these interrupts are to be [told](Self::end).
    pub fn level_messages(&self) -> [Option<Message>; PINS] {
        self.entries.map(level_message)
    }

    /// After an entry was written: if a level waited for that, it is sent.
    pub fn serve(&mut self, send: impl FnMut(Message) -> bool) {
        if let Some(pin) = self.selected_pin()
            && self.entries[pin] & entry::LEVEL != 0
            && self.pins & 1 << pin != 0
        {
            self.send(pin, send);
        }
    }

    /// Pin `pin` goes to `high`. An edge at a masked pin is lost.
    pub fn set_pin(&mut self, pin: usize, high: bool, send: impl FnMut(Message) -> bool) {
        if pin >= PINS {
            return;
        }
        let before = self.pins;
        self.pins = if high { before | 1 << pin } else { before & !(1 << pin) };
        if high && self.pins != before {
            self.send(pin, send);
        }
    }

    /// A local APIC was told the end of the level-triggered interrupt `vector`. Every pin with this
    /// vector that is still high is sent again.
    pub fn end(&mut self, vector: u8, mut send: impl FnMut(Message) -> bool) {
        for pin in 0..PINS {
            let bits = &mut self.entries[pin];
            if *bits & entry::LEVEL != 0 && *bits & entry::VECTOR == u64::from(vector) {
                *bits &= !entry::REMOTE_IRR;
                if self.pins & 1 << pin != 0 {
                    self.send(pin, &mut send);
                }
            }
        }
    }

    /// Whether a pin is high whose interrupt has not come to its end: until then it makes no other.
    pub fn awaits_end(&self) -> bool {
        (0..PINS).any(|pin| {
            let bits = self.entries[pin] & (entry::MASKED | entry::REMOTE_IRR);
            bits == entry::REMOTE_IRR && self.pins & 1 << pin != 0
        })
    }

    /// Sends the message of `pin`, unless it is masked or, a level, not at its end.
    fn send(&mut self, pin: usize, mut send: impl FnMut(Message) -> bool) {
        let bits = &mut self.entries[pin];
        if *bits & (entry::MASKED | entry::REMOTE_IRR) != 0 {
            return;
        }
        let taken = send(message_of(*bits));
        if taken && *bits & entry::LEVEL != 0 {
            *bits |= entry::REMOTE_IRR;
        }
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

fn level_message(bits: u64) -> Option<Message> {
    (bits & entry::LEVEL != 0).then(|| message_of(bits))
}

/// The lower and the upper 32 bits.
fn halves(bits: u64) -> [u32; 2] {
    let [a, b, c, d, upper @ ..] = bits.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(upper)]
}

#[cfg(test)]
mod tests;
