//! A serial port: the 16550 between a bounded output buffer and a bounded input queue, both
//! of which are only memory. The console's threads fill and empty them; the port moves bytes
//! between them and the UART's FIFOs, which is what the line does on a real one, and drives
//! the interrupt pin. Owned by the devices; used by whoever holds them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::devices::queue::Busy;
use crate::devices::uart16550::{Uart16550, regs};
use crate::irq::{IrqLine, Pin};

/// Bytes of output that wait for the device thread. When they are this many the transmitter
/// holds back: THRE stays off, and a guest that writes all the same is made to wait.
pub const OUTPUT_CAPACITY: usize = 64 * 1024;

/// See the module's text.
#[derive(Debug)]
pub struct SerialPort {
    uart: Uart16550,
    output: Vec<u8>,
    /// Output is kept here instead, for as long as an iteration lasts: its end, if it is much.
    kept: Option<VecDeque<u8>>,
    /// Output goes nowhere.
    discards: bool,
    input: VecDeque<u8>,
    input_limit: usize,
    /// The console has more input than there was room for.
    input_waits: bool,
    pin: Pin,
    /// Read without the devices by vCPUs that decide whether a write may be posted.
    interrupts_enabled: Arc<AtomicBool>,
    started: Instant,
}

impl SerialPort {
    /// A port after reset whose interrupt pin leads to `irq` and whose input queue takes
    /// `input_limit` bytes.
    pub fn new(irq: Box<dyn IrqLine>, input_limit: usize) -> Self {
        Self {
            uart: Uart16550::new(),
            output: Vec::new(),
            kept: None,
            discards: false,
            input: VecDeque::new(),
            input_limit,
            input_waits: false,
            pin: Pin::new(irq),
            interrupts_enabled: Arc::default(),
            started: Instant::now(),
        }
    }

    /// Output is not for the device thread but kept here, until [`reset`](Self::reset) takes it.
    pub fn keep_output(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// Output goes nowhere.
    pub fn discard_output(&mut self) {
        self.discards = true;
    }

    /// Whether there is output for the device thread.
    pub fn is_written(&self) -> bool {
        !self.discards && self.kept.is_none()
    }

    /// Puts the port back to its state after a reset. Output and input that wait are not lost; what
    /// was kept is returned.
    ///
    /// # Errors
    ///
    /// [`Busy`] while the transmitter still has bytes for which the output has no room.
    pub fn reset(&mut self) -> Result<Vec<u8>, Busy> {
        self.settle();
        if self.uart.tx_len() > 0 {
            return Err(Busy);
        }
        for byte in self.uart.unread().collect::<Vec<_>>().into_iter().rev() {
            self.input.push_front(byte);
        }
        self.uart = Uart16550::new();
        self.interrupts_enabled.store(false, Ordering::Relaxed);
        self.started = Instant::now();
        self.settle();
        Ok(self.kept.as_mut().map(std::mem::take).unwrap_or_default().into())
    }

    /// True while the guest has any of the UART's interrupts enabled; kept up to date before
    /// the write that changes it completes for its vCPU.
    pub fn interrupts_enabled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupts_enabled)
    }

    /// The guest reads register `offset`.
    pub fn read(&mut self, offset: u8) -> u8 {
        self.tell_time();
        let value = self.uart.read(offset);
        // Before the line brings the next byte, which is then an edge of its own.
        self.pin.set(self.uart.irq_level());
        self.settle();
        value
    }

    /// The guest writes register `offset`, which [`can_write`](Self::can_write) allows.
    pub fn write(&mut self, offset: u8, value: u8) {
        self.tell_time();
        if offset == regs::FCR {
            self.write_fcr(value);
        } else {
            self.uart.write(offset, value);
        }
        // Before the line takes the byte: a transmitter that becomes empty again is a new event.
        self.pin.set(self.uart.irq_level());
        if offset != regs::THR {
            self.interrupts_enabled.store(self.uart.interrupts_enabled(), Ordering::Relaxed);
        }
        self.settle();
    }

    /// FCR may clear the receive FIFO, as every driver does when it starts. On a real line the
    /// bytes in it would be those of a sender that began too early; here they are the beginning
    /// of the guest's input, and come again.
    fn write_fcr(&mut self, value: u8) {
        let unread: Vec<u8> = self.uart.unread().collect();
        self.uart.write(regs::FCR, value);
        let kept = self.uart.unread().count();
        for byte in unread[..unread.len() - kept].iter().rev() {
            self.input.push_front(*byte);
        }
    }

    /// False for a byte to send while the output is full and so is the transmit FIFO.
    pub fn can_write(&self, offset: u8) -> bool {
        self.uart.can_write(offset)
    }

    /// Whether [`bypass`](Self::bypass) finds room.
    pub fn can_bypass(&self) -> bool {
        self.output.len() < OUTPUT_CAPACITY
    }

    /// Puts a byte into the output that did not come through the UART, behind all that did: where
    /// there is room, no byte waits in the transmitter.
    pub fn bypass(&mut self, byte: u8) {
        self.send(byte);
    }

    /// Bytes that the output holds.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Bytes sent by the guest that nobody has taken: the output's and the transmitter's.
    #[cfg(test)]
    pub fn unsent(&self) -> usize {
        self.output.len() + self.uart.tx_len()
    }

    /// Swaps the output with `empty`, which must be empty and keeps the allocation in use.
    pub fn take_output(&mut self, empty: &mut Vec<u8>) {
        std::mem::swap(&mut self.output, empty);
        self.settle();
    }

    /// Bytes that [`push_input`](Self::push_input) takes now.
    pub fn input_room(&self) -> usize {
        self.input_limit.saturating_sub(self.input.len())
    }

    /// The same, and if it is none the console wants to be called when there is some.
    pub fn wanted_input(&mut self) -> usize {
        let room = self.input_room();
        self.input_waits = room == 0;
        room
    }

    /// Whether the console waits for room and half of the queue is free, so that it is not
    /// called for every byte: it is to be called.
    pub fn calls_for_input(&self) -> bool {
        self.input_waits && 2 * self.input_room() >= self.input_limit
    }

    /// The same, and it is called.
    pub fn take_input_call(&mut self) -> bool {
        let calls = self.calls_for_input();
        self.input_waits &= !calls;
        calls
    }

    /// Bytes arrive on the line; the caller keeps to [`input_room`](Self::input_room).
    pub fn push_input(&mut self, bytes: &[u8]) {
        self.tell_time();
        self.input.extend(bytes);
        self.settle();
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.uart.deadline().and_then(|due| self.started.checked_add(due))
    }

    /// Time has passed: raises the receive time-out if it is due.
    pub fn tick(&mut self) {
        self.tell_time();
        self.settle();
    }

    fn tell_time(&mut self) {
        if self.uart.uses_time() {
            self.uart.advance(self.started.elapsed());
        }
    }

    /// A byte has left the transmitter.
    fn send(&mut self, byte: u8) {
        if self.discards {
            return;
        }
        let Some(kept) = &mut self.kept else {
            self.output.push(byte);
            return;
        };
        if kept.len() == OUTPUT_CAPACITY {
            kept.pop_front();
        }
        kept.push_back(byte);
    }

    /// The line works: bytes leave the transmitter and enter the receiver as far as there is
    /// room, and the pin follows.
    fn settle(&mut self) {
        while self.output.len() < OUTPUT_CAPACITY
            && let Some(byte) = self.uart.pop_tx()
        {
            self.send(byte);
        }
        while self.uart.rx_room() > 0
            && let Some(byte) = self.input.pop_front()
        {
            self.uart.receive(byte);
        }
        self.pin.set(self.uart.irq_level());
    }
}

#[cfg(test)]
mod tests;
