//! The UART against the tables and sections of the datasheet, one test each. What Linux's
//! driver expects is in `linux`, what holds for any sequence of accesses in `properties`.

mod linux;
mod properties;

use super::regs::*;
use super::*;

/// Turns the FIFOs on with this trigger level, an index into [`TRIGGER_LEVELS`].
fn with_fifos(trigger: u8) -> Uart16550 {
    let mut uart = Uart16550::new();
    uart.write(FCR, fcr::ENABLE | trigger << fcr::TRIGGER_SHIFT);
    uart.write(MCR, mcr::OUT2);
    uart
}

fn receive(uart: &mut Uart16550, bytes: &[u8]) {
    for &byte in bytes {
        uart.receive(byte);
    }
}

/// Reads RBR while LSR.DR says that there is something.
fn drain(uart: &mut Uart16550) -> Vec<u8> {
    let mut bytes = Vec::new();
    while uart.lsr() & lsr::DR != 0 {
        bytes.push(uart.read(RBR));
    }
    bytes
}

fn iir_code(uart: &mut Uart16550) -> u8 {
    uart.read(IIR) & 0x0f
}

// Table "UART reset configuration", and "Summary of registers".

#[test]
fn master_reset_leaves_the_datasheets_values() {
    let mut uart = Uart16550::new();
    let inputs = msr::CTS | msr::DSR | msr::DCD;
    let table = [
        (RBR, 0),
        (IER, 0),
        (IIR, iir::NONE),
        (LCR, 0),
        (MCR, 0),
        (LSR, lsr::THRE | lsr::TEMT),
        (MSR, inputs),
        (SCR, 0),
    ];
    for (reg, value) in table {
        assert_eq!(uart.read(reg), value, "register {reg}");
    }
    assert!(!uart.irq_level());
    assert_eq!(uart.tx_len(), 0);
    assert_eq!(uart.rx_room(), 1, "the FIFOs are off");
}

#[test]
fn registers_keep_the_bits_that_exist() {
    let table = [
        (IER, 0xff, 0x0f),
        (IER, 0xa5, 0x05),
        (LCR, 0x7f, 0x7f),
        (LCR, 0xff, 0xff),
        (MCR, 0xff, 0x1f),
        (MCR, 0x0b, 0x0b),
        (LSR, 0x9f, lsr::THRE | lsr::TEMT),
        (MSR, 0x4f, msr::CTS | msr::DSR | msr::DCD),
        (SCR, 0xa5, 0xa5),
        (SCR, 0x5a, 0x5a),
    ];
    for (reg, written, read) in table {
        let mut uart = Uart16550::new();
        uart.write(reg, written);
        assert_eq!(uart.read(reg), read, "register {reg} after {written:#04x}");
    }
}

#[test]
fn only_three_address_lines_are_decoded() {
    let mut uart = Uart16550::new();
    uart.write(8 + SCR, 0x42);
    assert_eq!(uart.read(SCR), 0x42);
    assert_eq!(uart.read(0xf8 + SCR), 0x42);
}

#[test]
fn dlab_puts_the_divisor_over_registers_0_and_1_only() {
    let mut uart = Uart16550::new();
    uart.write(IER, ier::ELSI);
    uart.receive(b'x');

    uart.write(LCR, lcr::DLAB | 0x03);
    uart.write(DLL, 0x34);
    uart.write(DLM, 0x12);
    assert_eq!((uart.read(DLL), uart.read(DLM)), (0x34, 0x12));
    assert_eq!(uart.tx_len(), 0, "a divisor write does not transmit");
    uart.write(SCR, 7);
    assert_eq!(uart.read(SCR), 7);
    assert_eq!(uart.read(LSR) & lsr::DR, lsr::DR, "a divisor read does not receive");

    uart.write(LCR, 0x03);
    assert_eq!((uart.read(RBR), uart.read(IER)), (b'x', ier::ELSI));
    uart.write(LCR, lcr::DLAB);
    assert_eq!((uart.read(DLL), uart.read(DLM)), (0x34, 0x12));
}

// "FIFO control register".

#[test]
fn fcr_bits_count_only_together_with_enable() {
    let mut uart = with_fifos(0);
    assert_eq!(uart.read(IIR), iir::FIFOS_ON | iir::NONE);
    uart.write(FCR, 0xc6);
    assert_eq!(uart.read(IIR), iir::NONE, "the FIFOs are off");
    uart.write(IER, ier::ERBFI);
    uart.receive(b'x');
    assert_eq!(iir_code(&mut uart), iir::RECEIVED_DATA, "the trigger level was not programmed");
    uart.write(FCR, fcr::CLEAR_RX | fcr::CLEAR_TX);
    assert_eq!(drain(&mut uart), b"x", "nothing was cleared");
}

#[test]
fn changing_the_fifo_mode_clears_both_fifos() {
    for on_before in [false, true] {
        let mut uart = Uart16550::new();
        uart.write(FCR, u8::from(on_before));
        uart.receive(b'r');
        uart.write(THR, b't');

        uart.write(FCR, u8::from(on_before));
        assert_eq!((uart.rx.len(), uart.tx_len()), (1, 1), "the mode did not change");
        uart.write(FCR, u8::from(!on_before));
        assert_eq!((uart.rx.len(), uart.tx_len()), (0, 0), "from {on_before}");
        assert_eq!(uart.rx_room(), if on_before { 1 } else { 16 });
    }
}

#[test]
fn the_two_clear_bits_clear_one_fifo_each() {
    let table = [
        (0, (1, 1)),
        (fcr::CLEAR_RX, (0, 1)),
        (fcr::CLEAR_TX, (1, 0)),
        (fcr::CLEAR_RX | fcr::CLEAR_TX, (0, 0)),
    ];
    for (clear, left) in table {
        let mut uart = with_fifos(0);
        uart.write(IER, ier::ETBEI);
        uart.receive(b'r');
        uart.write(THR, b't');
        assert!(!uart.irq_level());
        uart.write(FCR, fcr::ENABLE | clear);
        assert_eq!((uart.rx.len(), uart.tx_len()), left, "clear bits {clear:#04x}");
        assert_eq!(uart.irq_level(), left.1 == 0, "THRE after clear bits {clear:#04x}");
    }
}

#[test]
fn received_data_interrupt_follows_the_trigger_level() {
    for (index, level) in [(0, 1), (1, 4), (2, 8), (3, 14)] {
        let mut uart = with_fifos(index);
        uart.write(IER, ier::ERBFI);
        for received in 1..=16 {
            uart.receive(0);
            assert_eq!(uart.irq_level(), received >= level, "{received} at level {level}");
        }
        for left in (0..16).rev() {
            uart.read(RBR);
            assert_eq!(uart.irq_level(), left >= level, "{left} left at level {level}");
        }
    }
}

// Table "Interrupt control functions".

/// Brings about all the interrupts that can be due at once.
fn with_every_interrupt() -> Uart16550 {
    let mut uart = with_fifos(1);
    uart.write(IER, ier::MASK);
    receive(&mut uart, &[0; 17]); // line status: overrun; and received data
    uart.write(MCR, mcr::OUT2 | mcr::LOOP); // modem status: CTS and DSR go off
    uart
}

#[test]
fn interrupts_are_shown_by_priority_and_reset_as_the_table_says() {
    let mut uart = with_every_interrupt();
    assert_eq!(iir_code(&mut uart), iir::LINE_STATUS);
    assert_eq!(iir_code(&mut uart), iir::LINE_STATUS, "reading IIR does not reset it");
    uart.read(LSR);

    assert_eq!(iir_code(&mut uart), iir::RECEIVED_DATA);
    assert_eq!(iir_code(&mut uart), iir::RECEIVED_DATA, "reading IIR does not reset it");
    for _ in 0..13 {
        uart.read(RBR);
    }
    assert_eq!(uart.rx.len(), 3, "below the level");

    // The transmitter waited behind all those and was not acknowledged by their IIR reads.
    let mut timed_out = uart.clone();
    assert_eq!(iir_code(&mut uart), iir::THR_EMPTY);
    assert_eq!(iir_code(&mut uart), iir::MODEM_STATUS, "reading IIR resets the former");
    assert_eq!(iir_code(&mut uart), iir::MODEM_STATUS, "but not this one");
    assert_ne!(uart.read(MSR) & 0x0f, 0);
    assert_eq!(iir_code(&mut uart), iir::NONE);
    assert!(!uart.irq_level());

    timed_out.advance(Duration::from_secs(1));
    assert_eq!(iir_code(&mut timed_out), iir::TIME_OUT);
    timed_out.read(RBR);
    assert_eq!(iir_code(&mut timed_out), iir::THR_EMPTY);
}

#[test]
fn each_ier_bit_enables_one_interrupt() {
    let table = [
        (0, iir::NONE),
        (ier::ERBFI, iir::RECEIVED_DATA),
        (ier::ETBEI, iir::THR_EMPTY),
        (ier::ELSI, iir::LINE_STATUS),
        (ier::EDSSI, iir::MODEM_STATUS),
    ];
    for (enabled, code) in table {
        let mut uart = with_every_interrupt();
        uart.write(IER, enabled);
        assert_eq!(uart.irq_level(), enabled != 0);
        assert_eq!(uart.interrupts_enabled(), enabled != 0);
        assert_eq!(iir_code(&mut uart), code, "IER {enabled:#04x}");
    }
}

#[test]
fn out2_gates_the_pin_but_not_iir() {
    let mut uart = Uart16550::new();
    uart.write(IER, ier::ERBFI);
    uart.receive(b'x');
    assert!(!uart.irq_level());
    assert_eq!(uart.read(IIR), iir::RECEIVED_DATA);
    uart.write(MCR, mcr::OUT2);
    assert!(uart.irq_level());
}

#[test]
fn thre_interrupt_comes_back_when_it_is_enabled_anew() {
    let mut uart = with_fifos(0);
    uart.write(IER, ier::ETBEI);
    assert_eq!(iir_code(&mut uart), iir::THR_EMPTY, "enabled with THR empty");
    assert_eq!(iir_code(&mut uart), iir::NONE, "acknowledged");
    uart.write(IER, ier::ETBEI | ier::ERBFI);
    assert!(!uart.irq_level(), "ETBEI was on already");
    uart.write(IER, 0);
    uart.write(IER, ier::ETBEI);
    assert!(uart.irq_level(), "ETBEI is newly on");

    uart.write(THR, b'x');
    assert!(!uart.irq_level(), "writing THR resets it");
    uart.write(IER, 0);
    uart.write(IER, ier::ETBEI);
    assert!(!uart.irq_level(), "THR is not empty");
    uart.pop_tx();
    assert!(uart.irq_level(), "THR became empty");
    uart.write(FCR, 0);
    assert_eq!(iir_code(&mut uart), iir::THR_EMPTY);
    uart.write(FCR, fcr::ENABLE);
    assert_eq!(iir_code(&mut uart), iir::THR_EMPTY, "immediate after a change of FIFO mode");
}

// "Line status register".

#[test]
fn fifo_overrun_keeps_the_fifo_and_loses_the_new_byte() {
    let mut uart = with_fifos(0);
    let bytes: Vec<u8> = (0..16).collect();
    receive(&mut uart, &bytes);
    assert_eq!((uart.rx_room(), uart.read(LSR) & lsr::OE), (0, 0));
    uart.receive(99);
    assert_eq!(uart.read(LSR), lsr::DR | lsr::OE | lsr::THRE | lsr::TEMT);
    assert_eq!(uart.read(LSR) & lsr::OE, 0, "reading LSR clears it");
    assert_eq!(drain(&mut uart), bytes);
}

#[test]
fn overrun_without_fifos_destroys_the_character_before() {
    let mut uart = Uart16550::new();
    receive(&mut uart, b"ab");
    assert_eq!(uart.read(LSR) & lsr::OE, lsr::OE);
    assert_eq!(drain(&mut uart), b"b");
}

#[test]
fn transmit_back_pressure_loses_nothing_of_an_obedient_guest() {
    for (fifos, depth) in [(0, 1), (fcr::ENABLE, 16)] {
        let mut uart = Uart16550::new();
        uart.write(FCR, fifos);
        let bytes: Vec<u8> = (0..depth).collect();
        for &byte in &bytes {
            assert!(uart.can_write(THR));
            uart.write(THR, byte);
            assert_eq!(uart.read(LSR) & (lsr::THRE | lsr::TEMT), 0);
        }
        assert!(!uart.can_write(THR), "full at {depth}");
        assert!((IER..=SCR).all(|reg| uart.can_write(reg)));
        uart.write(THR, 0xff); // not held back: lost, as on the chip
        assert_eq!(uart.tx_len(), bytes.len());

        uart.write(LCR, lcr::DLAB);
        assert!(uart.can_write(DLL));
        uart.write(LCR, 0);
        let out: Vec<u8> = std::iter::from_fn(|| uart.pop_tx()).collect();
        assert_eq!(out, bytes);
        assert_eq!(uart.read(LSR), lsr::THRE | lsr::TEMT);
    }
}

// "Modem control register" and "Modem status register".

#[test]
fn loopback_wires_the_modem_outputs_to_the_inputs() {
    let table = [
        (0, 0),
        (mcr::RTS, msr::CTS),
        (mcr::DTR, msr::DSR),
        (mcr::OUT1, msr::RI),
        (mcr::OUT2, msr::DCD),
        (0x0f, 0xf0),
    ];
    for (outputs, inputs) in table {
        let mut uart = Uart16550::new();
        uart.write(MCR, mcr::LOOP | outputs);
        assert_eq!(uart.read(MSR) & 0xf0, inputs, "MCR {outputs:#04x}");
        uart.write(MCR, outputs);
        assert_eq!(uart.read(MSR) & 0xf0, msr::CTS | msr::DSR | msr::DCD);
    }
}

#[test]
fn modem_deltas_show_what_changed_until_msr_is_read() {
    let table = [
        (0, mcr::RTS, msr::DCTS),
        (mcr::RTS, 0, msr::DCTS),
        (0, mcr::DTR, msr::DDSR),
        (mcr::DTR, 0, msr::DDSR),
        (0, mcr::OUT1, 0), // TERI is the trailing edge only
        (mcr::OUT1, 0, msr::TERI),
        (0, mcr::OUT2, msr::DDCD),
        (mcr::OUT2, 0, msr::DDCD),
        (0x0f, 0x0f, 0),
        (0x0f, 0, 0x0f),
    ];
    for (before, after, deltas) in table {
        let mut uart = Uart16550::new();
        uart.write(MCR, mcr::LOOP | before);
        uart.read(MSR);
        uart.write(MCR, mcr::LOOP | after);
        assert_eq!(uart.read(MSR) & 0x0f, deltas, "{before:#04x} to {after:#04x}");
        assert_eq!(uart.read(MSR) & 0x0f, 0, "reading MSR clears them");
    }
}

#[test]
fn loopback_returns_what_is_written_and_leaves_the_line_alone() {
    let mut uart = with_fifos(0);
    uart.write(THR, b'o'); // on its way out when the loop is closed
    uart.write(MCR, mcr::OUT2 | mcr::LOOP);
    uart.write(IER, ier::ERBFI);
    assert_eq!(uart.rx_room(), 0);
    uart.receive(b'?');
    assert_eq!(uart.read(LSR) & (lsr::DR | lsr::OE), 0, "the line is disconnected");

    for byte in 0..17 {
        assert!(uart.can_write(THR));
        uart.write(THR, byte);
    }
    assert!(uart.irq_level());
    assert_eq!(uart.read(LSR) & lsr::ERRORS, lsr::OE, "17 bytes overrun 16");
    assert_eq!(drain(&mut uart), (0..16).collect::<Vec<u8>>());
    assert_eq!(uart.pop_tx(), Some(b'o'));
    assert_eq!(uart.pop_tx(), None);

    uart.write(IER, ier::ETBEI);
    assert_eq!(iir_code(&mut uart), iir::THR_EMPTY);
    uart.write(THR, b'x');
    assert_eq!(iir_code(&mut uart), iir::THR_EMPTY, "empty again at once");
    uart.write(MCR, 0);
    assert_eq!(uart.rx_room(), 15, "what came back is still there");
}

#[test]
fn loopback_break_is_one_marked_zero_at_its_place_in_the_fifo() {
    let mut uart = with_fifos(0);
    uart.write(MCR, mcr::OUT2 | mcr::LOOP);
    uart.write(IER, ier::ELSI);
    uart.write(THR, b'a');
    uart.write(LCR, lcr::BREAK);
    uart.write(LCR, lcr::BREAK | 0x03); // the same break
    uart.write(THR, b'?'); // drowned by the break
    uart.write(LCR, 0x03);
    uart.write(THR, b'b');

    let status = uart.read(LSR);
    assert_eq!(status & (lsr::FIFO_ERROR | lsr::ERRORS), lsr::FIFO_ERROR, "not on top yet");
    assert!(!uart.irq_level());
    assert_eq!(uart.read(RBR), b'a');
    assert_eq!(iir_code(&mut uart), iir::LINE_STATUS);
    assert_eq!(uart.read(LSR) & lsr::ERRORS, lsr::BI | lsr::FE);
    assert_eq!(uart.read(LSR) & (lsr::FIFO_ERROR | lsr::ERRORS), 0, "cleared by the read");
    assert_eq!(drain(&mut uart), [0, b'b']);
}

#[test]
fn a_break_reaches_only_a_receiver_in_loopback() {
    let mut uart = Uart16550::new();
    uart.write(LCR, lcr::BREAK);
    assert_eq!(uart.read(LSR), lsr::THRE | lsr::TEMT);
    uart.write(THR, b'x');
    assert_eq!(uart.pop_tx(), Some(b'x'), "the line carries bytes, not levels");

    uart.write(MCR, mcr::LOOP);
    assert_eq!(uart.read(RBR), 0);
    let status = uart.read(LSR);
    assert_eq!(status, lsr::BI | lsr::FE | lsr::THRE | lsr::TEMT, "FIFOs off: kept for LSR");
}

// "FIFO interrupt mode operation": the receive time-out.

#[test]
fn character_time_follows_the_divisor_and_the_line_control() {
    // LCR, divisor, microseconds of four characters.
    let table = [
        (0x03, 1, 347),             // 8N1 at 115,200 baud
        (0x03, 0, 347),             // not allowed by the datasheet: as 1
        (0x03, 12, 4_166),          // 8N1 at 9,600 baud
        (0x43, 12, 4_166),          // break does not count
        (0x00, 12, 2_916),          // 5N1
        (0x04, 12, 3_125),          // 5N1.5
        (0x07, 12, 4_583),          // 8N2
        (0x0a, 12, 4_166),          // 7O1
        (0x1f, 384, 160_000),       // 8E2 at 300 baud: the datasheet's own example
        (0x03, 0xffff, 22_755_208), // the slowest
    ];
    for (line, divisor, micros) in table {
        let mut uart = with_fifos(1);
        uart.write(LCR, line | lcr::DLAB);
        let [low, high] = u16::to_le_bytes(divisor);
        uart.write(DLL, low);
        uart.write(DLM, high);
        uart.write(LCR, line);
        uart.write(IER, ier::ERBFI);
        uart.receive(0);
        let wait = uart.deadline().unwrap();
        assert_eq!(wait.as_micros(), micros, "LCR {line:#04x}, divisor {divisor}");
    }
}

/// FIFOs on with trigger level 4, receive interrupt on, 8N1 at 9,600 baud.
fn with_time_out() -> (Uart16550, Duration) {
    let mut uart = with_fifos(1);
    uart.write(LCR, lcr::DLAB | 0x03);
    uart.write(DLL, 12);
    uart.write(LCR, 0x03);
    uart.write(IER, ier::ERBFI);
    let four_characters = 4 * uart.character_time();
    (uart, four_characters)
}

#[test]
fn time_out_fires_four_character_times_after_the_last_receive_or_read() {
    const NS: Duration = Duration::from_nanos(1);
    let (mut uart, wait) = with_time_out();
    let start = Duration::from_secs(5);
    uart.advance(start);
    assert_eq!(uart.deadline(), None, "nothing received");
    uart.receive(b'a');
    assert_eq!(uart.deadline(), Some(start + wait));

    let again = start + wait - NS;
    uart.advance(again);
    assert!(!uart.irq_level());
    uart.receive(b'b');
    assert_eq!(uart.deadline(), Some(again + wait), "a character starts it anew");

    let read = again + wait - NS;
    uart.advance(read);
    assert_eq!(uart.read(RBR), b'a');
    assert_eq!(uart.deadline(), Some(read + wait), "so does a read");

    uart.advance(read + wait);
    assert_eq!(iir_code(&mut uart), iir::TIME_OUT);
    assert_eq!(iir_code(&mut uart), iir::TIME_OUT, "reading IIR does not reset it");
    assert_eq!(uart.deadline(), None, "it fires once");
    uart.receive(b'c');
    assert_eq!(iir_code(&mut uart), iir::TIME_OUT, "nor does a character");
    receive(&mut uart, b"de");
    assert_eq!(iir_code(&mut uart), iir::RECEIVED_DATA, "the level is reached");
    assert_eq!(uart.read(RBR), b'b');
    assert_eq!(iir_code(&mut uart), iir::NONE, "reading RBR resets both");
    assert_eq!(uart.deadline(), Some(read + wait + wait));
    uart.write(FCR, fcr::ENABLE | fcr::CLEAR_RX);
    assert_eq!(uart.deadline(), None);
}

#[test]
fn time_out_needs_fifos_the_interrupt_and_data_below_the_level() {
    let late = Duration::from_secs(60);
    let (mut uart, _) = with_time_out();
    assert!(uart.uses_time());
    receive(&mut uart, b"abcd");
    assert_eq!(uart.deadline(), None, "the level is reached");
    uart.write(IER, 0);
    uart.read(RBR);
    assert!(!uart.uses_time());
    uart.advance(late);
    assert_eq!(uart.deadline(), None, "the interrupt is off");
    uart.write(IER, ier::ERBFI);
    assert!(!uart.irq_level());
    uart.advance(late);
    assert!(uart.irq_level(), "the data has waited long enough");

    uart.write(FCR, fcr::ENABLE | fcr::CLEAR_RX);
    assert!(!uart.irq_level(), "a cleared FIFO has no time-out");
    uart.write(FCR, 0);
    uart.receive(b'x');
    assert!(!uart.uses_time());
    assert_eq!((iir_code(&mut uart), uart.deadline()), (iir::RECEIVED_DATA, None));
}

#[test]
fn odd_clocks_do_no_harm() {
    let (mut uart, wait) = with_time_out();
    uart.advance(Duration::from_secs(9));
    uart.advance(Duration::from_secs(1));
    uart.receive(b'x');
    assert_eq!(uart.deadline(), Some(Duration::from_secs(9) + wait), "time went backwards");
    uart.advance(Duration::MAX);
    uart.read(RBR);
    uart.receive(b'y');
    assert_eq!(uart.deadline(), Some(Duration::MAX), "the end of time");
}
