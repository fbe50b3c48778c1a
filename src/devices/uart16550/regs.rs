//! The register numbers and bits of the 16550, under the datasheet's names (PC16550D,
//! table "Summary of registers"). Only numbers live here.

/// Receiver buffer: register 0, read, DLAB 0.
pub const RBR: u8 = 0;
/// Transmitter holding register: register 0, written, DLAB 0.
pub const THR: u8 = 0;
/// Divisor latch, low byte: register 0, DLAB 1.
pub const DLL: u8 = 0;
/// Interrupt enable: register 1, DLAB 0.
pub const IER: u8 = 1;
/// Divisor latch, high byte: register 1, DLAB 1.
pub const DLM: u8 = 1;
/// Interrupt identification: register 2, read.
pub const IIR: u8 = 2;
/// FIFO control: register 2, written.
pub const FCR: u8 = 2;
/// Line control: register 3.
pub const LCR: u8 = 3;
/// Modem control: register 4.
pub const MCR: u8 = 4;
/// Line status: register 5, read only.
pub const LSR: u8 = 5;
/// Modem status: register 6, read only.
pub const MSR: u8 = 6;
/// Scratch: register 7.
pub const SCR: u8 = 7;

/// Interrupt enable register.
pub mod ier {
    /// Received data available, and the receive time-out.
    pub const ERBFI: u8 = 0x01;
    /// Transmitter holding register empty.
    pub const ETBEI: u8 = 0x02;
    /// Receiver line status.
    pub const ELSI: u8 = 0x04;
    /// Modem status.
    pub const EDSSI: u8 = 0x08;
    /// The bits that exist; the others read as 0.
    pub const MASK: u8 = 0x0f;
}

/// Interrupt identification register: the whole low half is one code.
pub mod iir {
    /// No interrupt is pending.
    pub const NONE: u8 = 0b0001;
    /// Receiver line status: the highest priority.
    pub const LINE_STATUS: u8 = 0b0110;
    /// Received data available: second.
    pub const RECEIVED_DATA: u8 = 0b0100;
    /// Character time-out: second as well.
    pub const TIME_OUT: u8 = 0b1100;
    /// Transmitter holding register empty: third.
    pub const THR_EMPTY: u8 = 0b0010;
    /// Modem status: fourth.
    pub const MODEM_STATUS: u8 = 0b0000;
    /// Both bits are set while the FIFOs are on.
    pub const FIFOS_ON: u8 = 0xc0;
}

/// FIFO control register.
pub mod fcr {
    /// Turns the FIFOs on; without it no other bit is programmed.
    pub const ENABLE: u8 = 0x01;
    /// Clears the receive FIFO; clears itself.
    pub const CLEAR_RX: u8 = 0x02;
    /// Clears the transmit FIFO; clears itself.
    pub const CLEAR_TX: u8 = 0x04;
    /// The receive trigger level, an index into 1, 4, 8 and 14 bytes.
    pub const TRIGGER_SHIFT: u8 = 6;
}

/// Line control register.
pub mod lcr {
    /// Word length minus 5 bits.
    pub const WORD_LENGTH: u8 = 0x03;
    /// Two stop bits, or one and a half with a 5-bit word.
    pub const STOP: u8 = 0x04;
    /// A parity bit in every character.
    pub const PARITY: u8 = 0x08;
    /// Holds the serial output at the break level.
    pub const BREAK: u8 = 0x40;
    /// Divisor latch access: registers 0 and 1 are the divisor.
    pub const DLAB: u8 = 0x80;
}

/// Modem control register.
pub mod mcr {
    /// Data terminal ready.
    pub const DTR: u8 = 0x01;
    /// Request to send.
    pub const RTS: u8 = 0x02;
    /// Auxiliary output 1.
    pub const OUT1: u8 = 0x04;
    /// Auxiliary output 2: on a PC, the gate between the chip and its interrupt line.
    pub const OUT2: u8 = 0x08;
    /// Local loopback.
    pub const LOOP: u8 = 0x10;
    /// The bits that exist; the others read as 0.
    pub const MASK: u8 = 0x1f;
}

/// Line status register.
pub mod lsr {
    /// Data ready.
    pub const DR: u8 = 0x01;
    /// Overrun error.
    pub const OE: u8 = 0x02;
    /// Parity error.
    pub const PE: u8 = 0x04;
    /// Framing error.
    pub const FE: u8 = 0x08;
    /// Break interrupt.
    pub const BI: u8 = 0x10;
    /// Transmitter holding register (transmit FIFO) empty.
    pub const THRE: u8 = 0x20;
    /// Transmitter empty.
    pub const TEMT: u8 = 0x40;
    /// At least one PE, FE or BI in the receive FIFO.
    pub const FIFO_ERROR: u8 = 0x80;
    /// The conditions of the receiver line status interrupt.
    pub const ERRORS: u8 = OE | PE | FE | BI;
}

/// Modem status register: the upper half are the inputs, the lower half what changed since
/// the last read.
pub mod msr {
    /// CTS has changed.
    pub const DCTS: u8 = 0x01;
    /// DSR has changed.
    pub const DDSR: u8 = 0x02;
    /// RI has gone off.
    pub const TERI: u8 = 0x04;
    /// DCD has changed.
    pub const DDCD: u8 = 0x08;
    /// Clear to send.
    pub const CTS: u8 = 0x10;
    /// Data set ready.
    pub const DSR: u8 = 0x20;
    /// Ring indicator.
    pub const RI: u8 = 0x40;
    /// Data carrier detect.
    pub const DCD: u8 = 0x80;
}
