//! The ports by which a guest takes part in a campaign: it gets random numbers and reports
//! outcomes, assertions and its end (docs/guest-abi.md). They are the run loop's and no device's:
//! each vCPU has its own, so that a report needs no lock and is no matter of order.

use std::collections::BTreeMap;
use std::mem;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

use crate::exit::{Direction, PioExit, VcpuId};
use crate::stress::histogram::{Label, Outcome};
use crate::stress::iteration::Iteration;
use crate::stress::purpose::Purpose;

/// The first of them; they end below 0x600.
pub const FIRST: u16 = 0x5e4;
const RANDOM: u16 = 0x5e4;
const OUTCOME_LOW: u16 = 0x5e8;
const OUTCOME_HIGH: u16 = 0x5ec;
const LABEL: u16 = 0x5f0;
const COUNT: u16 = 0x5f4;
const ASSERTION: u16 = 0x5f8;
const PROGRESS: u16 = 0x5fc;

/// What is written to the port [`PROGRESS`]: the vCPU waits for another one.
const YIELD: u8 = 0;
/// Or it is done.
const DONE: u8 = 1;

/// The longest text of an assertion, in bytes.
const ASSERTION_MAX: usize = 256;
/// The most states that a vCPU may report in one iteration; others are only counted.
const STATES_MAX: usize = 4096;

/// What an access to one of the ports makes the run loop do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Go on.
    None,
    /// Go on, when others that want the host CPU have had it: the vCPU waits for another one.
    Yield,
    /// The vCPU is done, as by HLT.
    Done,
    /// The guest has found an error: the iteration has failed.
    Assertion(String),
}

/// Outcomes reported in one iteration by one vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// How often each.
    pub states: BTreeMap<Outcome, u64>,
    /// Reports of states beyond `STATES_MAX`.
    pub other: u64,
}

impl Reported {
    fn add(&mut self, outcome: Outcome, count: u64) {
        let full = self.states.len() >= STATES_MAX;
        match self.states.get_mut(&outcome) {
            Some(total) => *total = total.saturating_add(count),
            None if full => self.other = self.other.saturating_add(count),
            None => drop(self.states.insert(outcome, count)),
        }
    }
}

/// One vCPU's ports.
#[derive(Debug)]
pub struct StressPorts {
    id: VcpuId,
    iteration: Iteration,
    random: Xoshiro256PlusPlus,
    high: u32,
    /// How often the next report counts, if that was said.
    count: Option<u32>,
    label: Vec<u8>,
    /// The label is complete: a further byte begins another one.
    label_ended: bool,
    text: Vec<u8>,
    reported: Reported,
}

impl StressPorts {
    /// The ports of vCPU `id`, in an iteration with the seed 0.
    pub fn new(id: VcpuId) -> Self {
        Self {
            id,
            iteration: Iteration::default(),
            random: Purpose::Guest(id).stream(Iteration::default()),
            high: 0,
            count: None,
            label: Vec::new(),
            label_ended: false,
            text: Vec::new(),
            reported: Reported::default(),
        }
    }

    /// An iteration begins: nothing of the one before is left.
    pub fn begin(&mut self, iteration: Iteration) {
        let random = Purpose::Guest(self.id).stream(iteration);
        *self = Self { iteration, random, ..Self::new(self.id) };
    }

    /// What was reported in this iteration.
    pub fn take_reported(&mut self) -> Reported {
        mem::take(&mut self.reported)
    }

    /// Whether `pio` is an access that these ports answer, which is one of the right size.
    pub fn answers(pio: PioExit) -> bool {
        matches!(
            (pio.port.0, pio.size),
            (RANDOM | OUTCOME_LOW | OUTCOME_HIGH | COUNT, 4) | (LABEL | ASSERTION | PROGRESS, 1)
        )
    }

    /// Serves such an access; `data` is that of the exit, one or more elements.
    pub fn access(&mut self, pio: PioExit, data: &mut [u8]) -> Effect {
        let mut result = Effect::None;
        for element in data.chunks_exact_mut(usize::from(pio.size).max(1)) {
            match pio.direction {
                Direction::Read => {
                    let value = self.read(pio.port.0).to_le_bytes();
                    element.copy_from_slice(&value[..element.len()]);
                }
                Direction::Write => {
                    let mut value = [0; 4];
                    value[..element.len()].copy_from_slice(element);
                    match self.write(pio.port.0, u32::from_le_bytes(value)) {
                        Effect::None => {}
                        Effect::Yield => result = Effect::Yield,
                        end => return end,
                    }
                }
            }
        }
        result
    }

    fn read(&mut self, port: u16) -> u32 {
        match port {
            RANDOM => self.random.next_u32(),
            OUTCOME_LOW => low_half(self.iteration.seed.0),
            OUTCOME_HIGH => low_half(self.iteration.seed.0 >> 32),
            COUNT => low_half(self.iteration.number),
            _ => u32::MAX,
        }
    }

    fn write(&mut self, port: u16, value: u32) -> Effect {
        let [byte, ..] = value.to_le_bytes();
        match port {
            OUTCOME_LOW => self.report(value),
            OUTCOME_HIGH => self.high = value,
            COUNT => self.count = Some(value),
            LABEL => self.add_to_label(byte),
            ASSERTION => return self.add_to_assertion(byte),
            PROGRESS if byte == YIELD => return Effect::Yield,
            PROGRESS if byte == DONE => return Effect::Done,
            // A read-only port.
            _ => {}
        }
        Effect::None
    }

    fn report(&mut self, low: u32) {
        let value = u64::from(mem::take(&mut self.high)) << 32 | u64::from(low);
        let count = self.count.take().unwrap_or(1);
        let label = Label::new(&String::from_utf8_lossy(&mem::take(&mut self.label)));
        self.label_ended = false;
        log::debug!(target: "minivmm::stress", "{} reports {value:#x} {label}", self.id);
        if count > 0 {
            self.reported.add(Outcome { value, label }, count.into());
        }
    }

    fn add_to_label(&mut self, byte: u8) {
        if mem::replace(&mut self.label_ended, is_end(byte)) {
            self.label.clear();
        }
        if !is_end(byte) && self.label.len() < Label::MAX_BYTES {
            self.label.push(byte);
        }
    }

    fn add_to_assertion(&mut self, byte: u8) -> Effect {
        if !is_end(byte) {
            if self.text.len() < ASSERTION_MAX {
                self.text.push(byte);
            }
            return Effect::None;
        }
        // It may go to a terminal.
        let text = String::from_utf8_lossy(&mem::take(&mut self.text)).escape_debug().to_string();
        Effect::Assertion(text)
    }
}

fn is_end(byte: u8) -> bool {
    matches!(byte, 0 | b'\n')
}

fn low_half(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
