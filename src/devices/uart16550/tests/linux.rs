//! The register sequences with which Linux's 8250 driver finds out what it talks to
//! (drivers/tty/serial/8250/8250_port.c, autoconfig and serial8250_do_startup), retold, and
//! what each of them must see for the port to become a plain 16550A without workarounds.

use super::super::regs::*;
use super::super::*;

/// LCR values by which the driver addresses the extra registers of later chips.
const CONF_MODE_A: u8 = 0x80;
const CONF_MODE_B: u8 = 0xbf;
const NATSEMI_BANK_2: u8 = 0xe0;

/// Whether a UART answers at all: IER keeps its four bits, loopback shows in MSR.
fn exists(uart: &mut Uart16550) -> bool {
    let saved_ier = uart.read(IER);
    uart.write(IER, 0);
    let cleared = uart.read(IER) & 0x0f;
    uart.write(IER, 0x0f);
    let set = uart.read(IER) & 0x0f;
    uart.write(IER, saved_ier);

    let saved_mcr = uart.read(MCR);
    uart.write(MCR, mcr::LOOP | 0x0a);
    let looped = uart.read(MSR) & 0xf0;
    uart.write(MCR, saved_mcr);
    (cleared, set, looped) == (0, 0x0f, 0x90)
}

/// IIR bits 7 to 5 after asking for the 64-byte FIFOs of a 16750 with this LCR.
fn ask_for_64_bytes(uart: &mut Uart16550, line: u8) -> u8 {
    uart.write(LCR, line);
    uart.write(FCR, fcr::ENABLE | 0x20);
    let answer = uart.read(IIR) >> 5;
    uart.write(FCR, fcr::ENABLE);
    uart.write(LCR, 0);
    answer
}

/// Whether IIR bit 4 follows MCR bit 4 in bank 2, as EXCR1 does in a National SuperIO chip.
fn has_excr1(uart: &mut Uart16550) -> bool {
    let saved = uart.read(MCR);
    let mut follows = true;
    for value in [saved, saved ^ mcr::LOOP] {
        uart.write(MCR, value);
        uart.write(LCR, NATSEMI_BANK_2);
        follows &= (uart.read(IIR) ^ value) & mcr::LOOP == 0;
        uart.write(LCR, 0);
    }
    uart.write(MCR, saved);
    follows
}

/// How many of 256 bytes come back in loopback.
fn fifo_size(uart: &mut Uart16550) -> usize {
    let (saved_fcr, saved_mcr) = (uart.read(FCR), uart.read(MCR));
    uart.write(FCR, fcr::ENABLE | fcr::CLEAR_RX | fcr::CLEAR_TX);
    uart.write(MCR, mcr::LOOP);
    uart.write(LCR, CONF_MODE_A);
    uart.write(DLL, 1);
    uart.write(DLM, 0);
    uart.write(LCR, 0x03);
    for byte in 0..=255 {
        assert!(uart.can_write(THR), "the driver does not wait");
        uart.write(THR, byte);
    }
    let mut count = 0;
    while uart.read(LSR) & lsr::DR != 0 {
        uart.read(RBR);
        count += 1;
    }
    uart.write(FCR, saved_fcr);
    uart.write(MCR, saved_mcr);
    uart.write(LCR, 0);
    count
}

#[test]
fn autoconfig_recognises_a_16550a() {
    let mut uart = Uart16550::new();
    assert!(exists(&mut uart));

    uart.write(LCR, CONF_MODE_B);
    uart.write(FCR, 0); // the EFR of a 16650
    uart.write(LCR, 0);
    uart.write(FCR, fcr::ENABLE);
    assert_eq!(uart.read(IIR) >> 6, 3, "16550A; 2 is a 16550, 0 an 8250 or 16450");

    for mode in [CONF_MODE_A, CONF_MODE_B] {
        uart.write(LCR, mode);
        assert_ne!(uart.read(IIR), 0, "an EFR reads as 0: 16650 or XR16C850");
    }
    uart.write(LCR, 0);
    assert!(!has_excr1(&mut uart), "NS16550A");
    let answers = (ask_for_64_bytes(&mut uart, 0), ask_for_64_bytes(&mut uart, CONF_MODE_A));
    assert_eq!(answers, (6, 6), "a TI16750 answers 6 and 7, a clone 7 and 7");
    uart.write(IER, 0x40);
    assert_eq!(uart.read(IER) & 0x40, 0, "the UUE bit of an XScale");
    uart.write(IER, 0);
    assert_eq!(fifo_size(&mut uart), 16, "a U6_16550A has 64");
    assert_eq!(uart.pop_tx(), None, "none of it reached the line");
}

#[test]
fn startup_finds_no_bug_in_the_transmit_interrupt() {
    let mut uart = Uart16550::new();
    uart.write(FCR, fcr::ENABLE | fcr::CLEAR_RX | fcr::CLEAR_TX);
    uart.write(FCR, 0);
    for reg in [LSR, RBR, IIR, MSR] {
        assert_ne!(uart.read(reg), 0xff, "0xff in LSR means that there is no UART");
    }
    uart.write(LCR, 0x03);
    uart.write(MCR, mcr::OUT2);

    // Enabled twice: without the second interrupt the driver polls with a timer.
    for _ in 0..2 {
        uart.write(IER, ier::ETBEI);
        assert!(uart.irq_level());
        assert_eq!(uart.read(IIR) & 0x0f, iir::THR_EMPTY);
        uart.write(IER, 0);
    }
    // TEMT without an interrupt is the driver's UART_BUG_TXEN.
    uart.write(IER, ier::ETBEI);
    let (line, id) = (uart.read(LSR), uart.read(IIR));
    assert!(line & lsr::TEMT != 0 && id & iir::NONE == 0);
    uart.write(IER, 0);
}
