//! The devices behind their bus: who answers where, what may be posted, what has to wait, and
//! what the device thread is wanted for. How the UART itself behaves is in its own tests.

mod ends;
mod platform;

use super::serial::OUTPUT_CAPACITY;
use super::uart16550::regs::{self, fcr, ier, lcr, lsr};
use super::*;
use crate::exit::Direction::{Read, Write};

const VCPU: VcpuId = VcpuId(0);

fn devices() -> DeviceSet {
    DeviceSet::unconnected(DeviceSetup { input_limit: 8, ..DeviceSetup::default() }).unwrap()
}

fn port(direction: Direction, addr: u64, size: u8, data: u64) -> Access {
    Access { space: AddressSpace::Pio, addr, direction, size, data }
}

fn memory(direction: Direction, addr: u64, size: u8, data: u64) -> Access {
    Access { space: AddressSpace::Mmio, addr, direction, size, data }
}

/// A one-byte access to a register of COM1.
fn com1(direction: Direction, register: u8, data: u8) -> Access {
    port(direction, COM1_BASE + u64::from(register), 1, data.into())
}

fn send(byte: u8) -> Access {
    com1(Write, regs::THR, byte)
}

fn serve(devices: &mut DeviceSet, access: Access) -> Reply {
    devices.serve(VCPU, &access).unwrap()
}

fn read(devices: &mut DeviceSet, access: Access) -> u64 {
    match serve(devices, access) {
        Reply::Value(value) => value,
        end @ Reply::End(_) => panic!("{end:?}"),
    }
}

/// Takes the output until there is no more.
fn output(devices: &mut DeviceSet) -> Vec<u8> {
    let mut output = Vec::new();
    while devices.com1().output_len() > 0 {
        let mut batch = Vec::new();
        devices.com1().take_output(&mut batch);
        output.extend(batch);
    }
    output
}

#[test]
fn each_access_gets_to_its_device() {
    let end = Reply::End;
    let value = Reply::Value;
    let table = [
        // COM1: LSR, IIR, MSR.
        (port(Read, 0x3fd, 1, 0), value(0x60)),
        (port(Read, 0x3fa, 1, 0), value(0x01)),
        (port(Read, 0x3fe, 1, 0), value(0xb0)),
        // A wider access is one of each register; RBR and IER, MCR to SCR.
        (port(Read, 0x3f8, 2, 0), value(0)),
        (port(Read, 0x3fc, 4, 0), value(0x00b0_6000)),
        // The exit port takes all widths and all its addresses.
        (port(Write, 0xf4, 1, 0x15), end(GuestEnd::Exit(0x15))),
        (port(Write, 0xf4, 4, 0xffff_ffff), end(GuestEnd::Exit(u32::MAX))),
        (port(Write, 0xf7, 1, 2), end(GuestEnd::Exit(2))),
        (port(Read, 0xf4, 4, 0), value(0xffff_ffff)),
        // Power-off wants SLP_EN; reset the pulse, or one byte to 0xcf9.
        (port(Write, 0x604, 2, 0x2000), end(GuestEnd::PowerOff)),
        (port(Write, 0x604, 2, 0x1c00), value(0)),
        (port(Write, 0x604, 1, 0x20), value(0)),
        (port(Write, 0x605, 1, 0x20), end(GuestEnd::PowerOff)),
        (port(Read, 0x604, 2, 0), value(1)),
        // PM1a_CNT, two reserved bytes; the timer has only just started.
        (port(Read, 0x604, 4, 0), value(0xffff_0001)),
        (port(Read, 0x60b, 1, 0), value(0)),
        (port(Read, 0x64, 1, 0), value(0x1c)),
        (port(Write, 0x64, 1, 0xaa), value(0)),
        (port(Write, 0x64, 1, 0xfe), end(GuestEnd::Reset)),
        (port(Write, 0xcf9, 1, 0x06), end(GuestEnd::Reset)),
        (port(Write, 0xcf8, 4, 0x8000_0600), value(0)),
        (port(Read, 0xcf8, 4, 0), value(0)),
        (port(Read, 0xcf8, 2, 0), value(0xffff)),
        (port(Read, 0xcfc, 4, 0), value(0xffff_ffff)),
        (port(Write, 0xcfe, 2, 0), value(0)),
        (port(Write, 0x92, 1, 0x03), end(GuestEnd::Reset)),
        // The rest of what is always there.
        (port(Read, 0x43, 1, 0), value(0xff)),
        (port(Read, 0x60, 1, 0), value(0)),
        (port(Read, 0x61, 1, 0), value(0)),
        (port(Read, 0x70, 1, 0), value(0xff)),
        (port(Read, 0x80, 1, 0), value(0xff)),
        (port(Read, 0x92, 1, 0), value(0x02)),
        (port(Read, 0xe9, 1, 0), value(0xe9)),
        (port(Read, 0xed, 1, 0), value(0xff)),
        (port(Read, 0x511, 1, 0), value(0x51)),
        (port(Read, 0x510, 4, 0), value(0xffff_51ff)),
        // Across the ends of ranges each byte goes its own way.
        (port(Write, 0xf2, 4, 0x0807_0605), end(GuestEnd::Exit(7))),
        (port(Write, 0x63, 2, 0xfe00), end(GuestEnd::Reset)),
        (port(Read, 0x3fe, 4, 0), value(0xffff_00b0)),
        (port(Read, 0x3f6, 4, 0), value(0x0000_ffff)),
        // Nothing there, in either space, up to the ends of both.
        (port(Read, 0xb0, 1, 0), value(0xff)),
        (port(Read, 0xffff, 4, 0), value(0xffff_ffff)),
        (port(Write, 0xb0, 4, 0x1234), value(0)),
        (port(Read, 0x2000, 1, 0), value(0xff)),
        (port(Read, 0x2f8, 4, 0), value(0xffff_ffff)),
        (memory(Read, 0x3fd, 1, 0), value(0xff)),
        (memory(Read, u64::MAX, 8, 0), value(u64::MAX)),
        (memory(Read, 0x1000, 3, 0), value(0x00ff_ffff)),
        (memory(Write, 0xf4, 4, 1), value(0)),
    ];
    for (access, expected) in table {
        assert_eq!(serve(&mut devices(), access), expected, "{access:x?}");
    }
}

#[test]
fn the_word_shutdown_powers_off() {
    let mut devices = devices();
    let replies: Vec<_> = b"ShShutdown"
        .iter()
        .map(|byte| serve(&mut devices, port(Write, 0x8900, 1, u64::from(*byte))))
        .collect();
    let (last, first) = replies.split_last().unwrap();
    assert_eq!(*last, Reply::End(GuestEnd::PowerOff));
    assert!(first.iter().all(|reply| *reply == Reply::Value(0)));
}

#[test]
fn each_byte_without_a_device_is_noted_for_the_log() {
    let mut devices = devices();
    serve(&mut devices, port(Read, 0x3fe, 4, 0));
    serve(&mut devices, port(Write, 0x98, 4, 0));
    assert_eq!(devices.unknown().total(), 3);
    let notices = devices.unknown().take_notices();
    let lines: Vec<_> = notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "no device at port 0x400 (vCPU 0, 1-byte read, all ones)",
            "no device at port 0x401 (vCPU 0, 1-byte read, all ones)",
            "no device at port 0x98 (vCPU 0, 4-byte write, ignored)",
        ]
    );
}

mod posting {
    use super::*;

    #[test]
    fn only_a_byte_to_send_may_be_posted() {
        let policy = devices().post_policy();
        assert!(policy.may_post(&send(b'x')));
        assert!(policy.may_post(&port(Write, 0xe9, 1, 0)));
        let others = [
            com1(Read, regs::RBR, 0),
            com1(Write, regs::IER, 0),
            com1(Write, regs::SCR, 0),
            port(Write, COM1_BASE, 2, 0),
            port(Write, COM1_BASE - 1, 2, 0),
            port(Write, 0x80, 1, 0),
            port(Write, 0xf4, 1, 0),
            port(Write, 0x2f8, 1, 0),
            port(Read, 0xe9, 1, 0),
            port(Write, 0xe9, 2, 0),
            memory(Write, COM1_BASE, 1, 0),
        ];
        for access in others {
            assert!(!policy.may_post(&access), "{access:x?}");
        }
    }

    #[test]
    fn not_while_an_interrupt_is_enabled() {
        let mut devices = devices();
        let policy = devices.post_policy();
        for enabled in [ier::ETBEI, 0, ier::ERBFI, ier::ELSI | ier::EDSSI, 0xf0, ier::MASK, 0] {
            serve(&mut devices, com1(Write, regs::IER, enabled));
            assert_eq!(policy.may_post(&send(b'x')), enabled & ier::MASK == 0, "{enabled:#x}");
        }
        // The same register is the divisor's while DLAB is on.
        serve(&mut devices, com1(Write, regs::LCR, lcr::DLAB));
        serve(&mut devices, com1(Write, regs::DLM, 0xff));
        assert!(policy.may_post(&send(b'x')));
        // As the upper half of a word, too.
        serve(&mut devices, com1(Write, regs::LCR, 0));
        serve(&mut devices, port(Write, COM1_BASE, 2, 0x0200));
        assert!(!policy.may_post(&send(b'x')));
    }
}

mod back_pressure {
    use super::*;

    /// Sends numbered bytes until the port is busy; returns how many it took.
    fn fill(devices: &mut DeviceSet) -> usize {
        (0..=250).cycle().position(|byte| devices.serve(VCPU, &send(byte)) == Err(Busy)).unwrap()
    }

    #[test]
    fn a_full_port_is_busy_and_loses_nothing() {
        for (control, fifo) in [(0, 1), (fcr::ENABLE, 16)] {
            let mut devices = devices();
            serve(&mut devices, com1(Write, regs::FCR, control));
            let sent = fill(&mut devices);
            assert_eq!(sent, OUTPUT_CAPACITY + fifo);
            assert_eq!(devices.com1().unsent(), sent);
            let expected: Vec<_> = (0..=250).cycle().take(sent).collect();
            assert_eq!(output(&mut devices), expected);
            assert!(devices.serve(VCPU, &send(b'x')).is_ok());
        }
    }

    #[test]
    fn a_guest_that_minds_thre_is_never_held_up() {
        let mut devices = devices();
        let status = com1(Read, regs::LSR, 0);
        let mut sent = 0;
        while read(&mut devices, status) & u64::from(lsr::THRE) != 0 {
            serve(&mut devices, send(b'x'));
            sent += 1;
        }
        assert_eq!(sent, OUTPUT_CAPACITY + 1);
        devices.com1().take_output(&mut Vec::new());
        assert_eq!(read(&mut devices, status), u64::from(lsr::THRE | lsr::TEMT));
    }

    #[test]
    fn only_what_would_send_a_byte_waits() {
        let mut devices = devices();
        let sent = fill(&mut devices);
        let held = [port(Write, 0x3f8, 2, 0), port(Write, 0x3f7, 2, 0), port(Write, 0x3f5, 4, 0)];
        for access in held {
            assert_eq!(devices.serve(VCPU, &access), Err(Busy), "{access:x?}");
        }
        let served = [
            com1(Read, regs::RBR, 0),
            com1(Write, regs::SCR, 0),
            port(Write, 0x3f4, 4, 0),
            port(Write, 0x3f9, 4, 0),
            memory(Write, COM1_BASE, 1, 0),
            // With DLAB on it is no byte to send.
            com1(Write, regs::LCR, lcr::DLAB),
            send(b'x'),
        ];
        for access in served {
            assert!(devices.serve(VCPU, &access).is_ok(), "{access:x?}");
        }
        assert_eq!(devices.com1().unsent(), sent);
    }
}

mod device_thread {
    use super::*;

    #[test]
    fn it_is_wanted_for_output_and_for_the_log() {
        let mut devices = devices();
        assert!(!devices.needs_thread());
        serve(&mut devices, com1(Read, regs::LSR, 0));
        assert!(!devices.needs_thread());
        serve(&mut devices, send(b'x'));
        assert!(devices.needs_thread());
        output(&mut devices);
        assert!(!devices.needs_thread());
        serve(&mut devices, port(Read, 0xb0, 1, 0));
        assert!(devices.needs_thread());
        devices.unknown().take_notices();
        // Noted once, counted from then on.
        serve(&mut devices, port(Read, 0xb0, 1, 0));
        assert!(!devices.needs_thread());
    }

    #[test]
    fn it_is_wanted_when_there_is_room_for_input_again() {
        let mut devices = devices();
        devices.com1().push_input(b"123456789");
        assert_eq!(devices.com1().wanted_input(), 0);
        assert!(!devices.needs_thread());
        for _ in 0..4 {
            serve(&mut devices, com1(Read, regs::RBR, 0));
        }
        assert!(devices.needs_thread());
        assert!(devices.com1().take_input_call());
        assert!(!devices.needs_thread());
    }

    #[test]
    fn it_is_wanted_until_it_knows_of_a_time_out_to_come() {
        let mut devices = devices();
        serve(&mut devices, com1(Write, regs::FCR, fcr::ENABLE | 3 << fcr::TRIGGER_SHIFT));
        serve(&mut devices, com1(Write, regs::IER, ier::ERBFI));
        // As slow as the UART can be, so that the time-out does not come meanwhile.
        serve(&mut devices, com1(Write, regs::LCR, lcr::DLAB));
        serve(&mut devices, port(Write, COM1_BASE, 2, 0xffff));
        serve(&mut devices, com1(Write, regs::LCR, 0));
        assert!(!devices.needs_thread());
        assert_eq!(devices.tick(), None);
        devices.com1().push_input(b"x");
        assert!(devices.needs_thread());
        assert!(devices.tick().is_some());
        assert!(!devices.needs_thread());
        // Once it is over, the next one is news again.
        serve(&mut devices, com1(Read, regs::RBR, 0));
        assert_eq!(devices.tick(), None);
        devices.com1().push_input(b"y");
        assert!(devices.needs_thread());
    }
}
