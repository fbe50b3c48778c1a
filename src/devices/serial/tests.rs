//! The serial port around its UART: its input queue, and every level of its interrupt pin.

use std::sync::Mutex;

use super::*;
use crate::devices::uart16550::regs::{self, fcr, ier, iir, lsr, mcr};

/// Records the levels of a pin.
#[derive(Clone, Debug, Default)]
struct Pin(Arc<Mutex<Vec<bool>>>);

impl IrqLine for Pin {
    fn set_level(&mut self, high: bool) {
        self.0.lock().unwrap().push(high);
    }
}

impl Pin {
    /// The levels since the last call.
    fn changes(&self) -> Vec<bool> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

const LOW: bool = false;
const HIGH: bool = true;

/// A port whose pin is recorded, with these interrupts enabled and OUT2 on.
fn port(interrupts: u8, fifo_control: u8) -> (SerialPort, Pin) {
    let pin = Pin::default();
    let mut port = SerialPort::new(Box::new(pin.clone()), 20);
    port.write(regs::FCR, fifo_control);
    port.write(regs::MCR, mcr::OUT2);
    port.write(regs::IER, interrupts);
    (port, pin)
}

mod pin {
    use super::*;

    #[test]
    fn transmitter_empty() {
        let (mut port, pin) = port(ier::ETBEI, 0);
        // Enabling raises it, the transmitter being empty; reading IIR acknowledges.
        assert_eq!(pin.changes(), [HIGH]);
        assert_eq!(port.read(regs::IIR), iir::THR_EMPTY);
        assert_eq!(pin.changes(), [LOW]);
        assert_eq!(port.read(regs::IIR), iir::NONE);
        // Each byte leaves at once and raises it again: an edge for each.
        port.write(regs::THR, b'x');
        port.write(regs::THR, b'y');
        assert_eq!(pin.changes(), [HIGH, LOW, HIGH]);
        port.read(regs::IIR);
        port.write(regs::IER, 0);
        port.write(regs::IER, ier::ETBEI);
        assert_eq!(pin.changes(), [LOW, HIGH]);
        port.write(regs::IER, 0);
        assert_eq!(pin.changes(), [LOW]);
    }

    #[test]
    fn transmitter_full_until_the_output_is_taken() {
        let (mut port, pin) = port(0, 0);
        while port.can_write(regs::THR) {
            port.write(regs::THR, b'x');
        }
        port.write(regs::IER, ier::ETBEI);
        assert_eq!((port.read(regs::LSR), pin.changes()), (0, vec![]));
        port.take_output(&mut Vec::new());
        assert_eq!(pin.changes(), [HIGH]);
        assert_eq!(port.read(regs::LSR), lsr::THRE | lsr::TEMT);
        assert_eq!(port.output_len(), 1);
    }

    #[test]
    fn received_data() {
        let (mut port, pin) = port(ier::ERBFI, 0);
        assert_eq!(pin.changes(), [] as [bool; 0]);
        port.push_input(b"ab");
        assert_eq!(pin.changes(), [HIGH]);
        assert_eq!(port.read(regs::IIR), iir::RECEIVED_DATA);
        // The second follows the first at once, and is an edge of its own: a guest that reads one
        // byte an interrupt gets both.
        assert_eq!(port.read(regs::RBR), b'a');
        assert_eq!(pin.changes(), [LOW, HIGH]);
        assert_eq!(port.read(regs::RBR), b'b');
        assert_eq!(pin.changes(), [LOW]);
    }

    #[test]
    fn received_data_up_to_the_trigger_level() {
        let (mut port, pin) = port(ier::ERBFI, fcr::ENABLE | 1 << fcr::TRIGGER_SHIFT);
        for byte in *b"abc" {
            port.push_input(&[byte]);
        }
        port.push_input(b"d");
        assert_eq!(port.read(regs::IIR), iir::RECEIVED_DATA | iir::FIFOS_ON);
        assert_eq!(pin.changes().last(), Some(&HIGH));
        for byte in *b"abcd" {
            assert_eq!(port.read(regs::RBR), byte);
        }
        assert_eq!(pin.changes().last(), Some(&LOW));
    }

    #[test]
    fn receive_time_out() {
        let (mut port, pin) = port(ier::ERBFI, fcr::ENABLE | 3 << fcr::TRIGGER_SHIFT);
        assert_eq!(port.deadline(), None);
        port.push_input(b"ab");
        // Four character times: a third of a millisecond that nothing can keep from passing.
        while port.deadline().is_some() {
            port.tick();
        }
        assert_eq!(pin.changes(), [HIGH]);
        assert_eq!(port.read(regs::IIR), iir::TIME_OUT | iir::FIFOS_ON);
        assert_eq!(port.read(regs::RBR), b'a');
        // It starts anew for the byte that is left.
        while port.deadline().is_some() {
            port.tick();
        }
        assert_eq!(pin.changes(), [LOW, HIGH]);
        assert_eq!(port.read(regs::RBR), b'b');
        assert_eq!(pin.changes(), [LOW]);
        assert_eq!(port.deadline(), None);
    }

    #[test]
    fn out2_is_its_gate() {
        let (mut port, pin) = port(ier::ETBEI, 0);
        port.write(regs::MCR, 0);
        port.write(regs::MCR, mcr::OUT2);
        port.write(regs::MCR, mcr::OUT2 | mcr::RTS);
        assert_eq!(pin.changes(), [HIGH, LOW, HIGH]);
    }

    #[test]
    fn one_of_two_interrupts_keeps_it_high() {
        let (mut port, pin) = port(ier::ETBEI | ier::ERBFI, 0);
        port.push_input(b"a");
        assert_eq!(port.read(regs::IIR), iir::RECEIVED_DATA);
        port.read(regs::RBR);
        assert_eq!(port.read(regs::IIR), iir::THR_EMPTY);
        assert_eq!(pin.changes(), [HIGH, LOW]);
    }
}

mod input {
    use super::*;

    #[test]
    fn it_waits_for_the_guest_in_order() {
        let (mut port, _) = port(0, fcr::ENABLE);
        let keys: Vec<u8> = (0..36).collect();
        port.push_input(&keys);
        // Sixteen in the FIFO, and as many as there may be behind it.
        assert_eq!(port.input_room(), 0);
        let read: Vec<_> = keys.iter().map(|_| port.read(regs::RBR)).collect();
        assert_eq!(read, keys);
        assert_eq!(port.read(regs::LSR) & (lsr::DR | lsr::OE), 0);
        assert_eq!(port.input_room(), 20);
    }

    #[test]
    fn it_waits_while_the_line_is_looped_back() {
        let (mut port, _) = port(0, fcr::ENABLE);
        port.write(regs::MCR, mcr::LOOP);
        port.push_input(b"key");
        port.write(regs::THR, b'!');
        assert_eq!((port.read(regs::RBR), port.read(regs::LSR) & lsr::DR), (b'!', 0));
        assert_eq!((port.input_room(), port.output_len()), (17, 0));
        port.write(regs::MCR, 0);
        assert_eq!([0; 3].map(|_| port.read(regs::RBR)), *b"key");
    }

    #[test]
    fn input_survives_a_clear_of_the_receive_fifo() {
        let (mut port, _) = port(0, 0);
        port.push_input(b"abcdef");
        port.write(regs::FCR, fcr::ENABLE | fcr::CLEAR_RX | fcr::CLEAR_TX);
        port.read(regs::LSR);
        port.write(regs::FCR, fcr::ENABLE | fcr::CLEAR_RX);
        port.write(regs::FCR, fcr::ENABLE);
        assert_eq!(port.read(regs::RBR), b'a');
        port.write(regs::FCR, 0);
        assert_eq!([0; 5].map(|_| port.read(regs::RBR)), *b"bcdef");
        // What came round in loopback is the guest's own and is gone.
        port.write(regs::MCR, mcr::LOOP);
        port.write(regs::THR, b'!');
        port.write(regs::MCR, 0);
        port.write(regs::FCR, fcr::ENABLE | fcr::CLEAR_RX);
        assert_eq!(port.read(regs::LSR) & lsr::DR, 0);
    }

    #[test]
    fn the_console_is_called_once_there_is_room_if_it_found_none() {
        let (mut port, _) = port(0, 0);
        assert_eq!(port.wanted_input(), 20);
        assert!(!port.calls_for_input());
        port.push_input(&[b'x'; 21]);
        assert!(!port.calls_for_input(), "nobody has asked");
        assert_eq!(port.wanted_input(), 0);
        for _ in 0..9 {
            port.read(regs::RBR);
            assert!(!port.take_input_call(), "half of the queue is not free yet");
        }
        port.read(regs::RBR);
        assert!(port.take_input_call());
        assert!(!port.take_input_call(), "it was called");
        assert_eq!(port.wanted_input(), 10);
        port.read(regs::RBR);
        assert!(!port.calls_for_input(), "there was room");
    }

    #[test]
    fn the_console_is_not_called_if_it_has_seen_the_room_itself() {
        let (mut port, _) = port(0, 0);
        port.push_input(&[b'x'; 21]);
        assert_eq!(port.wanted_input(), 0);
        for _ in 0..9 {
            port.read(regs::RBR);
        }
        assert_eq!(port.wanted_input(), 9);
        port.read(regs::RBR);
        assert!(!port.calls_for_input());
    }
}
