//! What holds for the UART whatever the guest and the line do.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::regs::*;
use super::super::*;

#[derive(Debug, Clone)]
enum Op {
    Read(u8),
    Write(u8, u8),
    PopTx,
    Receive(u8),
    Advance(Duration),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => any::<u8>().prop_map(Op::Read),
        4 => any::<(u8, u8)>().prop_map(|(reg, value)| Op::Write(reg, value)),
        // Ordinary use, which uniform bytes seldom hit: data, IER, MCR with OUT2, FCR on.
        4 => any::<u8>().prop_map(|byte| Op::Write(THR, byte)),
        2 => (0..16u8).prop_map(|value| Op::Write(IER, value)),
        2 => (0..32u8).prop_map(|value| Op::Write(MCR, value | mcr::OUT2)),
        2 => any::<u8>().prop_map(|value| Op::Write(FCR, value | fcr::ENABLE)),
        1 => (0..128u8).prop_map(|value| Op::Write(LCR, value)),
        3 => Just(Op::PopTx),
        6 => any::<u8>().prop_map(Op::Receive),
        2 => any::<u32>().prop_map(|us| Op::Advance(Duration::from_micros(u64::from(us)))),
        1 => Just(Op::Advance(Duration::MAX)),
    ]
}

fn apply(uart: &mut Uart16550, op: &Op) {
    match *op {
        Op::Read(reg) => drop(uart.read(reg)),
        Op::Write(reg, value) => uart.write(reg, value),
        Op::PopTx => drop(uart.pop_tx()),
        Op::Receive(byte) => uart.receive(byte),
        Op::Advance(now) => uart.advance(now),
    }
}

/// What must be true between any two calls.
fn check(uart: &Uart16550) -> Result<(), TestCaseError> {
    let look = |reg| uart.clone().read(reg); // reading has side effects; a copy has them
    let (id, status) = (look(IIR), look(LSR));

    let pending = id & iir::NONE == 0;
    prop_assert_eq!(uart.irq_level(), pending && look(MCR) & mcr::OUT2 != 0);
    prop_assert!(!pending || uart.interrupts_enabled());
    prop_assert_eq!(id & 0xf0, if uart.fifos_on() { iir::FIFOS_ON } else { 0 });

    prop_assert_eq!(status & lsr::DR != 0, !uart.rx.is_empty());
    prop_assert_eq!(status & lsr::THRE != 0, uart.tx_len() == 0);
    prop_assert_eq!(status & lsr::TEMT != 0, uart.tx_len() == 0);
    prop_assert!(!uart.thre_pending || uart.tx_len() == 0);
    prop_assert!(!uart.rx_timed_out || (uart.fifos_on() && !uart.rx.is_empty()));
    if let Some(due) = uart.deadline() {
        prop_assert!(uart.uses_time() && !uart.rx_timed_out);
        let mut later = uart.clone();
        later.advance(due);
        prop_assert!(later.rx_timed_out && later.deadline().is_none());
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_sequence_of_calls_keeps_the_invariants(ops in prop::collection::vec(op(), 1..200)) {
        let mut uart = Uart16550::new();
        check(&uart)?;
        for op in &ops {
            apply(&mut uart, op);
            check(&uart)?;
        }
    }

    /// A guest that heeds LSR and an owner that heeds `can_write` and `rx_room` lose nothing,
    /// whatever else the guest does short of clearing its FIFOs.
    #[test]
    fn bytes_pass_both_ways_in_order(
        fifos_on in any::<bool>(),
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut uart = Uart16550::new();
        uart.write(FCR, u8::from(fifos_on));
        let (mut on_the_way_out, mut on_the_way_in) = (VecDeque::new(), VecDeque::new());
        for op in &ops {
            match *op {
                Op::Write(reg, byte) if reg & 7 == THR && !uart.dlab() => {
                    let goes_out = uart.can_write(THR) && !uart.looped();
                    let comes_back = uart.looped() && !uart.loop_breaks() && uart.rx.room() > 0;
                    if goes_out {
                        uart.write(THR, byte);
                        on_the_way_out.push_back(byte);
                    } else if comes_back {
                        uart.write(THR, byte);
                        on_the_way_in.push_back(byte);
                    }
                }
                Op::Read(reg) if reg & 7 == RBR && !uart.dlab() => {
                    prop_assert_eq!(uart.read(RBR), on_the_way_in.pop_front().unwrap_or(0));
                }
                // A clear is allowed to drop bytes, and a looped break to add one.
                Op::Write(reg, _) if reg & 7 == FCR => {}
                Op::Write(reg, value) if reg & 7 == LCR => uart.write(LCR, value & !lcr::BREAK),
                Op::PopTx => prop_assert_eq!(uart.pop_tx(), on_the_way_out.pop_front()),
                Op::Receive(byte) if uart.rx_room() > 0 => {
                    uart.receive(byte);
                    on_the_way_in.push_back(byte);
                }
                Op::Receive(_) => {}
                _ => apply(&mut uart, op),
            }
            prop_assert_eq!(uart.tx_len(), on_the_way_out.len());
            prop_assert_eq!(uart.rx.len(), on_the_way_in.len());
            prop_assert_eq!(uart.line_errors & lsr::OE, 0);
        }
    }
}
