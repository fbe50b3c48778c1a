//! The 16550A UART as a pure register machine: what the guest reads and writes, the two
//! FIFOs, and the level of the interrupt pin.
//!
//! There is no file descriptor, lock, thread, clock or log here. Whoever owns the bus owns
//! the [`Uart16550`] and calls it on whatever thread holds the devices: it takes the
//! guest's output with [`Uart16550::pop_tx`], brings input with [`Uart16550::receive`] and
//! the time with [`Uart16550::advance`], and after every call drives the interrupt line with
//! [`Uart16550::irq_level`]. The source is the National Semiconductor PC16550D datasheet
//! (June 1995), whose tables and sections are named below.
//!
//! The line is ideal and carries bytes: a character takes no time on it, so as long as the
//! owner takes the output the transmitter is empty after each write, and it has no parity or
//! framing errors. The word length (5 bits at reset!), parity and break of LCR do not touch
//! the data: length and parity count in the character time, a break is heard in loopback.

mod fifo;
pub mod regs;
#[cfg(test)]
mod tests;
mod time_out;

use std::time::Duration;

use fifo::Fifo;
use regs::{fcr, ier, iir, lcr, lsr, mcr, msr};

/// Receive trigger levels in bytes, by FCR bits 7 and 6 (datasheet, "FIFO control register").
const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];

/// A 16550A UART with a PC's wiring: OUT2 gates the interrupt, and outside loopback the
/// modem inputs show a connected peer (CTS, DSR and DCD on, RI off).
///
/// ```
/// use minivmm::devices::uart16550::{Uart16550, regs};
///
/// let mut uart = Uart16550::new();
/// uart.write(regs::MCR, regs::mcr::OUT2);
/// uart.write(regs::IER, regs::ier::ERBFI);
///
/// uart.write(regs::THR, b'>'); // the guest prints
/// assert_eq!(uart.pop_tx(), Some(b'>'));
///
/// uart.receive(b'x'); // a key is pressed
/// assert!(uart.irq_level());
/// assert_eq!(uart.read(regs::IIR), regs::iir::RECEIVED_DATA);
/// assert_eq!(uart.read(regs::RBR), b'x');
/// assert!(!uart.irq_level());
/// ```
#[derive(Debug, Clone)]
pub struct Uart16550 {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
    /// MSR bits 0 to 3: which modem inputs have changed since MSR was last read.
    msr_deltas: u8,
    /// LSR error bits that belong to no character in the FIFO, kept until LSR is read.
    line_errors: u8,
    rx: Fifo<Received>,
    tx: Fifo<u8>,
    /// The transmitter became empty and the guest has neither been told through IIR nor
    /// written again. Never set while `tx` holds something.
    thre_pending: bool,
    /// The receive time-out has fired, and since then RBR was not read nor the FIFO cleared.
    rx_timed_out: bool,
    /// The last character came, or RBR was read, at this time.
    rx_quiet_since: Duration,
    /// The time as last told.
    now: Duration,
}

/// A character in the receive FIFO, with its own LSR error bits (PE, FE, BI).
#[derive(Debug, Clone, Copy, Default)]
struct Received {
    byte: u8,
    errors: u8,
    /// From the line, not from loopback.
    from_line: bool,
}

/// A pending interrupt, in the order of priority (datasheet, table "Interrupt control
/// functions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InterruptId {
    LineStatus,
    ReceivedData,
    TimeOut,
    ThrEmpty,
    ModemStatus,
}

impl InterruptId {
    /// The low half of IIR.
    fn code(self) -> u8 {
        match self {
            Self::LineStatus => iir::LINE_STATUS,
            Self::ReceivedData => iir::RECEIVED_DATA,
            Self::TimeOut => iir::TIME_OUT,
            Self::ThrEmpty => iir::THR_EMPTY,
            Self::ModemStatus => iir::MODEM_STATUS,
        }
    }
}

impl Default for Uart16550 {
    fn default() -> Self {
        Self::new()
    }
}

/// The guest's side: the registers and the interrupt pin.
impl Uart16550 {
    /// The state after master reset (datasheet, table "UART reset configuration"); what reset
    /// leaves alone, the divisor latch and the scratch register, is 0.
    pub fn new() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: 0,
            msr_deltas: 0,
            line_errors: 0,
            rx: Fifo::new(false),
            tx: Fifo::new(false),
            thre_pending: false,
            rx_timed_out: false,
            rx_quiet_since: Duration::ZERO,
            now: Duration::ZERO,
        }
    }

    /// Reads register `reg`, 0 to 7; the chip has three address lines, so higher bits do not
    /// count. RBR reads as 0 when nothing has been received.
    pub fn read(&mut self, reg: u8) -> u8 {
        let [dll, dlm] = self.divisor.to_le_bytes();
        match reg & 7 {
            regs::DLL if self.dlab() => dll,
            regs::DLM if self.dlab() => dlm,
            regs::RBR => self.read_rbr(),
            regs::IER => self.ier,
            regs::IIR => self.read_iir(),
            regs::LCR => self.lcr,
            regs::MCR => self.mcr,
            regs::LSR => self.read_lsr(),
            regs::MSR => self.modem_inputs() | std::mem::take(&mut self.msr_deltas),
            _ => self.scr,
        }
    }

    /// Writes register `reg`, 0 to 7 as in [`read`](Self::read). LSR and MSR ignore writes.
    ///
    /// A THR write for which [`can_write`](Self::can_write) is false loses its byte, as on
    /// the chip.
    pub fn write(&mut self, reg: u8, value: u8) {
        let [dll, dlm] = self.divisor.to_le_bytes();
        match reg & 7 {
            regs::DLL if self.dlab() => self.divisor = u16::from_le_bytes([value, dlm]),
            regs::DLM if self.dlab() => self.divisor = u16::from_le_bytes([dll, value]),
            regs::THR => self.write_thr(value),
            regs::IER => self.write_ier(value),
            regs::FCR => self.write_fcr(value),
            regs::LCR => self.rewire(value, self.mcr),
            regs::MCR => self.rewire(self.lcr, value & mcr::MASK),
            regs::SCR => self.scr = value,
            _ => {}
        }
    }

    /// Whether a write to `reg` finds room: false only for THR while the transmit FIFO is
    /// full. The owner then holds the guest's write back, so that nothing is ever lost.
    pub fn can_write(&self, reg: u8) -> bool {
        reg & 7 != regs::THR || self.dlab() || self.looped() || self.tx.room() > 0
    }

    /// The level of the interrupt pin, gated by MCR.OUT2 as on a PC. The register bit is the
    /// gate, not the OUT2 pin that loopback forces off, so interrupts work in loopback too.
    pub fn irq_level(&self) -> bool {
        self.mcr & mcr::OUT2 != 0 && self.pending().is_some()
    }

    /// Whether any interrupt is enabled in IER: then a write can change the pin, and its
    /// effect must not be deferred.
    pub fn interrupts_enabled(&self) -> bool {
        self.ier != 0
    }

    /// The interrupt of the highest priority that is both enabled and due.
    fn pending(&self) -> Option<InterruptId> {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(ier::ELSI) && self.lsr() & lsr::ERRORS != 0 {
            Some(InterruptId::LineStatus)
        } else if enabled(ier::ERBFI) && self.rx.len() >= self.trigger_level() {
            Some(InterruptId::ReceivedData)
        } else if enabled(ier::ERBFI) && self.rx_timed_out {
            Some(InterruptId::TimeOut)
        } else if enabled(ier::ETBEI) && self.thre_pending {
            Some(InterruptId::ThrEmpty)
        } else if enabled(ier::EDSSI) && self.msr_deltas != 0 {
            Some(InterruptId::ModemStatus)
        } else {
            None
        }
    }

    fn read_rbr(&mut self) -> u8 {
        self.rx_timed_out = false;
        self.rx_quiet_since = self.now;
        self.rx.pop().unwrap_or_default().byte
    }

    /// Reading IIR acknowledges the THRE interrupt, if that is the one it shows.
    fn read_iir(&mut self) -> u8 {
        let pending = self.pending();
        if pending == Some(InterruptId::ThrEmpty) {
            self.thre_pending = false;
        }
        let fifos = if self.fifos_on() { iir::FIFOS_ON } else { 0 };
        fifos | pending.map_or(iir::NONE, InterruptId::code)
    }

    /// Reading LSR clears the errors it shows; those of later characters in the FIFO stay.
    fn read_lsr(&mut self) -> u8 {
        let value = self.lsr();
        self.line_errors = 0;
        if let Some(first) = self.rx.front_mut() {
            first.errors = 0;
        }
        value
    }

    /// LSR (datasheet, "Line status register"). There is no shift register apart from the
    /// FIFO, so THRE and TEMT go together.
    fn lsr(&self) -> u8 {
        let mut value = self.line_errors;
        if let Some(first) = self.rx.front() {
            value |= lsr::DR | first.errors;
        }
        if self.rx.iter().any(|c| c.errors != 0) {
            value |= lsr::FIFO_ERROR;
        }
        if self.tx.is_empty() {
            value |= lsr::THRE | lsr::TEMT;
        }
        value
    }

    fn write_thr(&mut self, byte: u8) {
        if self.looped() {
            // The transmitter is empty again at once, which is what raises the interrupt;
            // unless it still holds output from before the loop was closed.
            self.thre_pending = self.tx.is_empty();
            if !self.loop_breaks() {
                self.accept(Received { byte, ..Received::default() });
            }
        } else if self.tx.push(byte) {
            self.thre_pending = false;
        }
    }

    /// An IER write that sets ETBEI raises the THRE interrupt again if THR is empty, even if
    /// it was acknowledged: that is how Linux's 8250 driver starts to transmit.
    fn write_ier(&mut self, value: u8) {
        let newly_set = value & !self.ier;
        self.ier = value & ier::MASK;
        if newly_set & ier::ETBEI != 0 && self.tx.is_empty() {
            self.thre_pending = true;
        }
    }

    /// FCR (datasheet, "FIFO control register"). DMA mode only moves pins that a PC does not
    /// connect.
    fn write_fcr(&mut self, value: u8) {
        let on = value & fcr::ENABLE != 0;
        if on != self.fifos_on() {
            self.clear_rx(on);
            self.clear_tx(on);
            // "FIFO interrupt mode operation": the first transmit interrupt after a change
            // of this bit is immediate.
            self.thre_pending = true;
        }
        if on && value & fcr::CLEAR_RX != 0 {
            self.clear_rx(on);
        }
        if on && value & fcr::CLEAR_TX != 0 {
            self.clear_tx(on);
        }
        self.fcr = if on { value } else { 0 };
    }

    fn clear_rx(&mut self, fifos_on: bool) {
        self.rx = Fifo::new(fifos_on);
        self.rx_timed_out = false;
    }

    fn clear_tx(&mut self, fifos_on: bool) {
        self.thre_pending |= !self.tx.is_empty();
        self.tx = Fifo::new(fifos_on);
    }

    /// Sets LCR and MCR, and lets the receiver and the modem inputs see what this changes
    /// inside the chip.
    fn rewire(&mut self, lcr: u8, mcr: u8) {
        let broke_before = self.loop_breaks();
        let before = self.modem_inputs();
        self.lcr = lcr;
        self.mcr = mcr;
        let after = self.modem_inputs();

        // Every input has its delta four bits below; RI counts only when it goes off.
        let either_way = (before ^ after) & !msr::RI;
        let ri_off = before & !after & msr::RI;
        self.msr_deltas |= (either_way | ri_off) >> 4;

        // A break is one character of zeros without a stop bit, however long it lasts.
        if !broke_before && self.loop_breaks() {
            self.accept(Received { errors: lsr::BI | lsr::FE, ..Received::default() });
        }
    }

    fn dlab(&self) -> bool {
        self.lcr & lcr::DLAB != 0
    }

    fn looped(&self) -> bool {
        self.mcr & mcr::LOOP != 0
    }

    /// Whether the receiver hears the transmitter's own break.
    fn loop_breaks(&self) -> bool {
        self.looped() && self.lcr & lcr::BREAK != 0
    }

    fn fifos_on(&self) -> bool {
        self.fcr & fcr::ENABLE != 0
    }

    /// How many received characters raise the interrupt: 1 when the FIFOs are off.
    fn trigger_level(&self) -> usize {
        TRIGGER_LEVELS[usize::from(self.fcr >> fcr::TRIGGER_SHIFT)]
    }

    /// MSR bits 4 to 7: the connected peer, or in loopback the four outputs of MCR
    /// (datasheet, "Modem control register", bit 4).
    fn modem_inputs(&self) -> u8 {
        if !self.looped() {
            return msr::CTS | msr::DSR | msr::DCD;
        }
        [(mcr::RTS, msr::CTS), (mcr::DTR, msr::DSR), (mcr::OUT1, msr::RI), (mcr::OUT2, msr::DCD)]
            .into_iter()
            .filter(|(output, _)| self.mcr & output != 0)
            .fold(0, |inputs, (_, input)| inputs | input)
    }
}

/// The line's side: characters out and in.
impl Uart16550 {
    /// Takes the oldest byte of the transmit FIFO. When that empties it, THRE and TEMT come
    /// on and the THRE interrupt becomes pending.
    ///
    /// What was written before loopback was switched on still leaves here.
    pub fn pop_tx(&mut self) -> Option<u8> {
        let byte = self.tx.pop()?;
        self.thre_pending = self.tx.is_empty();
        Some(byte)
    }

    /// How many bytes [`pop_tx`](Self::pop_tx) has to give.
    pub fn tx_len(&self) -> usize {
        self.tx.len()
    }

    /// How many bytes [`receive`](Self::receive) takes without an overrun. 0 in loopback,
    /// where the line is disconnected, so that the owner keeps the bytes until it is back.
    pub fn rx_room(&self) -> usize {
        if self.looped() { 0 } else { self.rx.room() }
    }

    /// A byte arrives on the line. Without room it is an overrun: LSR.OE comes on and a byte
    /// is lost. In loopback the line is disconnected and the byte lost without a trace.
    pub fn receive(&mut self, byte: u8) {
        if !self.looped() {
            self.accept(Received { byte, errors: 0, from_line: true });
        }
    }

    /// The bytes from the line that the guest has not read, oldest first.
    pub fn unread(&self) -> impl Iterator<Item = u8> + '_ {
        self.rx.iter().filter(|received| received.from_line).map(|received| received.byte)
    }

    /// A character reaches the receiver.
    fn accept(&mut self, mut received: Received) {
        self.rx_quiet_since = self.now;
        if !self.fifos_on() {
            // One holding register: the error bits are LSR's own, and an overrun destroys
            // the character before. In FIFO mode it destroys the new one.
            self.line_errors |= std::mem::take(&mut received.errors);
            if self.rx.pop().is_some() {
                self.line_errors |= lsr::OE;
            }
        }
        if !self.rx.push(received) {
            self.line_errors |= lsr::OE;
        }
    }
}
