//! The UART against another implementation, `vm_superio::Serial`, as an oracle.
//!
//! Where the two differ on purpose, a test below has the difference for its name and asserts
//! both sides of it; the random comparison at the end leaves out exactly those cases, each by
//! that name. vm-superio models what Linux needs of a serial console, ours the datasheet.

use std::cell::Cell;
use std::convert::Infallible;

use minivmm::devices::uart16550::Uart16550;
use minivmm::devices::uart16550::regs::*;
use proptest::prelude::*;
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};

/// Counts vm-superio's interrupts, which are edges; ours is a level.
#[derive(Debug, Default)]
struct Edges(Cell<usize>);

impl Trigger for Edges {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

/// Both UARTs, given the same accesses, and what each has sent so far.
#[derive(Debug)]
struct Pair {
    ours: Uart16550,
    theirs: Serial<Edges, NoEvents, Vec<u8>>,
    sent: Vec<u8>,
}

impl Pair {
    /// Both after reset.
    fn new() -> Self {
        Self {
            ours: Uart16550::new(),
            theirs: Serial::new(Edges::default(), Vec::new()),
            sent: Vec::new(),
        }
    }

    /// Both brought to the same state: what `reset_values` and `fifos_are_always_on` name.
    fn alike() -> Self {
        let mut pair = Self::new();
        pair.write(FCR, fcr::ENABLE);
        pair.write(LCR, lcr::DLAB);
        pair.write(DLL, 12);
        pair.write(DLM, 0);
        pair.write(LCR, 0x03);
        pair.write(MCR, mcr::OUT2);
        pair
    }

    /// Writes to both; the line takes our output at once, as vm-superio's writer does.
    fn write(&mut self, reg: u8, value: u8) {
        assert!(self.ours.can_write(reg));
        self.ours.write(reg, value);
        self.sent.extend(std::iter::from_fn(|| self.ours.pop_tx()));
        self.theirs.write(reg, value).unwrap();
    }

    /// Reads both: ours, theirs.
    fn read(&mut self, reg: u8) -> (u8, u8) {
        (self.ours.read(reg), self.theirs.read(reg))
    }

    fn receive(&mut self, byte: u8) {
        self.ours.receive(byte);
        self.theirs.enqueue_raw_bytes(&[byte]).unwrap();
    }

    fn edges(&self) -> usize {
        self.theirs.interrupt_evt().0.get()
    }
}

// The known differences.

#[test]
fn reset_values() {
    let mut pair = Pair::new();
    assert_eq!(pair.read(LCR), (0, 0x03));
    assert_eq!(pair.read(MCR), (0, mcr::OUT2));
    pair.write(LCR, lcr::DLAB);
    assert_eq!(pair.read(DLL), (0, 12));
    assert_eq!(pair.read(DLM), (0, 0));
}

#[test]
fn fifos_are_always_on() {
    let mut pair = Pair::new();
    assert_eq!(pair.read(IIR), (iir::NONE, iir::FIFOS_ON | iir::NONE));
    pair.write(FCR, fcr::ENABLE);
    assert_eq!(pair.read(IIR).0, iir::FIFOS_ON | iir::NONE);
}

#[test]
fn fcr_is_ignored() {
    let mut pair = Pair::alike();
    pair.write(IER, ier::ERBFI);
    pair.write(FCR, fcr::ENABLE | 1 << fcr::TRIGGER_SHIFT);
    pair.receive(b'x');
    assert_eq!((pair.ours.irq_level(), pair.edges()), (false, 1), "trigger level 4");
    pair.write(FCR, fcr::ENABLE | fcr::CLEAR_RX);
    assert_eq!(pair.read(LSR), (0x60, 0x61), "clearing the receive FIFO");
}

#[test]
fn fifo_size() {
    let pair = Pair::alike();
    assert_eq!((pair.ours.rx_room(), pair.theirs.fifo_capacity()), (16, 64));
}

#[test]
fn overrun() {
    let mut pair = Pair::alike();
    pair.write(MCR, mcr::LOOP);
    for byte in 0..=64 {
        pair.write(THR, byte);
    }
    assert_eq!(pair.read(LSR), (0x61 | lsr::OE, 0x61), "the loss is silent there");
}

#[test]
fn out2_does_not_gate_the_interrupt() {
    let mut pair = Pair::alike();
    pair.write(MCR, 0);
    pair.write(IER, ier::ERBFI);
    pair.receive(b'x');
    assert_eq!((pair.ours.irq_level(), pair.edges()), (false, 1));
}

#[test]
fn mcr_has_all_bits() {
    let mut pair = Pair::alike();
    pair.write(MCR, 0xe8);
    assert_eq!(pair.read(MCR), (0x08, 0xe8));
}

#[test]
fn modem_deltas_and_their_interrupt() {
    let mut pair = Pair::alike();
    pair.write(IER, ier::EDSSI);
    pair.write(MCR, mcr::LOOP | mcr::OUT2);
    assert_eq!((pair.ours.irq_level(), pair.edges()), (true, 0));
    assert_eq!(pair.read(MSR), (msr::DCD | msr::DCTS | msr::DDSR, msr::DCD));
}

#[test]
fn iir_is_an_or_of_bits() {
    let mut pair = Pair::alike();
    pair.write(IER, ier::ERBFI | ier::ETBEI);
    pair.receive(b'x');
    let both = iir::FIFOS_ON | iir::RECEIVED_DATA | iir::THR_EMPTY; // reads as line status
    assert_eq!(pair.read(IIR), (iir::FIFOS_ON | iir::RECEIVED_DATA, both));
}

#[test]
fn reading_iir_resets_every_interrupt() {
    let mut pair = Pair::alike();
    pair.write(IER, ier::ERBFI);
    pair.receive(b'x');
    let received = iir::FIFOS_ON | iir::RECEIVED_DATA;
    assert_eq!(pair.read(IIR), (received, received));
    assert_eq!(pair.read(IIR), (received, iir::FIFOS_ON | iir::NONE));
}

#[test]
fn reading_rbr_resets_the_interrupt_though_data_is_left() {
    let mut pair = Pair::alike();
    pair.write(IER, ier::ERBFI);
    pair.receive(b'x');
    pair.receive(b'y');
    assert_eq!(pair.read(RBR), (b'x', b'x'));
    assert_eq!(pair.read(IIR), (iir::FIFOS_ON | iir::RECEIVED_DATA, iir::FIFOS_ON | iir::NONE));
}

#[test]
fn disabling_an_interrupt_leaves_it_in_iir() {
    let mut pair = Pair::alike();
    pair.write(IER, ier::ETBEI);
    pair.write(IER, 0);
    let thr_empty = iir::FIFOS_ON | iir::THR_EMPTY;
    assert_eq!(pair.read(IIR), (iir::FIFOS_ON | iir::NONE, thr_empty));
}

#[test]
fn thre_interrupt_comes_with_every_ier_write() {
    let mut pair = Pair::alike();
    pair.write(IER, ier::ETBEI);
    pair.read(IIR);
    pair.write(IER, ier::ETBEI);
    let thr_empty = iir::FIFOS_ON | iir::THR_EMPTY;
    assert_eq!(pair.read(IIR), (iir::FIFOS_ON | iir::NONE, thr_empty));
}

#[test]
fn no_thre_interrupt_in_loopback() {
    let mut pair = Pair::alike();
    pair.write(MCR, mcr::LOOP);
    pair.write(IER, ier::ETBEI);
    pair.read(IIR);
    pair.write(THR, b'x');
    let thr_empty = iir::FIFOS_ON | iir::THR_EMPTY;
    assert_eq!(pair.read(IIR), (thr_empty, iir::FIFOS_ON | iir::NONE));
}

#[test]
fn no_break_in_loopback() {
    let mut pair = Pair::alike();
    pair.write(MCR, mcr::LOOP);
    pair.write(LCR, lcr::BREAK | 0x03);
    let with_break = 0x61 | lsr::FIFO_ERROR | lsr::BI | lsr::FE;
    assert_eq!(pair.read(LSR), (with_break, 0x60));
}

#[test]
fn no_back_pressure() {
    // vm-superio writes through, or loses the byte if the writer fails; ours waits.
    let mut pair = Pair::alike();
    pair.ours.write(THR, b'x');
    pair.theirs.write(THR, b'x').unwrap();
    assert_eq!(pair.read(LSR), (0, 0x60));
    assert_eq!(pair.theirs.writer(), b"x");
    assert_eq!(pair.ours.pop_tx(), Some(b'x'));
}

// The random comparison.

#[derive(Debug, Clone)]
enum Op {
    Read(u8),
    Write(u8, u8),
    Receive(u8),
    /// Sets IER from 0 with nothing acknowledged, and looks at IIR.
    Interrupts(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..8u8).prop_map(Op::Read),
        6 => (0..8u8, any::<u8>()).prop_map(|(reg, value)| Op::Write(reg, value)),
        4 => any::<u8>().prop_map(|byte| Op::Write(THR, byte)),
        4 => any::<u8>().prop_map(Op::Receive),
        2 => (0..4u8).prop_map(Op::Interrupts),
    ]
}

/// The write as both understand it, or none if they never do.
fn common_write(reg: u8, value: u8) -> Option<u8> {
    match reg {
        FCR => None,                      // fcr_is_ignored
        LCR => Some(value & !lcr::BREAK), // no_break_in_loopback
        MCR => Some(value & mcr::MASK),   // mcr_has_all_bits
        _ => Some(value),
    }
}

/// The part of a register that means the same in both, or none if nothing does.
fn common_bits(reg: u8) -> Option<u8> {
    match reg {
        IIR => None,       // iir_is_an_or_of_bits and the five after it; see Op::Interrupts
        MSR => Some(0xf0), // modem_deltas_and_their_interrupt
        _ => Some(0xff),
    }
}

/// vm-superio's OR of bits as a code: the bit of the highest priority.
fn code_of_bits(bits: u8) -> u8 {
    let highest = [iir::RECEIVED_DATA, iir::THR_EMPTY].into_iter().find(|bit| bits & bit != 0);
    iir::FIFOS_ON | highest.unwrap_or(iir::NONE)
}

fn apply(pair: &mut Pair, op: &Op) -> Result<(), TestCaseError> {
    let dlab = pair.theirs.state().line_control & lcr::DLAB != 0;
    let full = pair.theirs.fifo_capacity() <= 64 - 16; // fifo_size, overrun
    let looped = pair.theirs.state().modem_control & mcr::LOOP != 0;
    match *op {
        Op::Read(reg) => {
            let (ours, theirs) = pair.read(reg);
            if let Some(mask) = common_bits(reg) {
                prop_assert_eq!(ours & mask, theirs & mask, "register {}", reg);
            }
        }
        Op::Write(reg, _) if reg == THR && !dlab && looped && full => {}
        Op::Write(reg, value) => {
            if let Some(value) = common_write(reg, value) {
                pair.write(reg, value);
            }
        }
        Op::Receive(_) if full => {}
        Op::Receive(byte) => pair.receive(byte),
        Op::Interrupts(_) if dlab => {}
        Op::Interrupts(enabled) => {
            pair.write(IER, 0);
            pair.read(IIR);
            pair.write(IER, enabled);
            let (ours, theirs) = pair.read(IIR);
            prop_assert_eq!(ours, code_of_bits(theirs), "IER {}", enabled);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_two_agree_on_everything_else(ops in prop::collection::vec(op(), 1..300)) {
        let mut pair = Pair::alike();
        for op in &ops {
            apply(&mut pair, op)?;
        }
        for reg in 0..8 {
            apply(&mut pair, &Op::Read(reg))?;
        }
        prop_assert_eq!(&pair.sent, pair.theirs.writer());
    }
}
