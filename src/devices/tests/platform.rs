//! The legacy devices through the set of all devices: their pins, which lines they share, what is
//! there only when asked for, what a reset leaves, and accesses at random.

use proptest::prelude::*;

use super::*;
use crate::config::ComPort;
use crate::devices::uart16550::regs::mcr;
use crate::irq::recording::Changes;

/// The devices of `setup`, and what their lines do.
fn wired(setup: DeviceSetup) -> (DeviceSet, Changes) {
    let changes = Changes::default();
    let devices = DeviceSet::new(setup, &mut |gsi| changes.line(gsi)).unwrap();
    (devices, changes)
}

fn with_ports(ports: &[(ComPort, bool)]) -> DeviceSetup {
    DeviceSetup { ports: ports.to_vec(), ..DeviceSetup::default() }
}

fn with_test_device() -> DeviceSetup {
    DeviceSetup { test_device: true, ..DeviceSetup::default() }
}

fn out(devices: &mut DeviceSet, addr: u64, data: u64) {
    assert_eq!(serve(devices, port(Write, addr, 1, data)), Reply::Value(0));
}

fn input(devices: &mut DeviceSet, addr: u64) -> u64 {
    read(devices, port(Read, addr, 1, 0))
}

/// Has a UART raise its pin: THRE.
fn raise(devices: &mut DeviceSet, base: u64) {
    out(devices, base + u64::from(regs::MCR), mcr::OUT2.into());
    out(devices, base + u64::from(regs::IER), ier::ETBEI.into());
}

fn lower(devices: &mut DeviceSet, base: u64) {
    out(devices, base + u64::from(regs::IER), 0);
}

#[test]
fn serial_ports_share_lines() {
    let all = ComPort::ALL.map(|port| (port, false));
    let (mut devices, changes) = wired(with_ports(&all));
    let [com2, com3, com4] = [0x2f8, 0x3e8, 0x2e8];
    raise(&mut devices, COM1_BASE);
    raise(&mut devices, com3);
    raise(&mut devices, com2);
    raise(&mut devices, com4);
    assert_eq!(changes.take(), [(4, true), (3, true)]);
    lower(&mut devices, COM1_BASE);
    lower(&mut devices, com2);
    assert_eq!(changes.take(), []);
    lower(&mut devices, com3);
    lower(&mut devices, com4);
    assert_eq!(changes.take(), [(4, false), (3, false)]);
}

#[test]
fn a_further_serial_port_sends_to_nowhere_or_to_the_device_thread() {
    let (mut devices, _) = wired(with_ports(&[(ComPort::Com4, false), (ComPort::Com2, true)]));
    for _ in 0..2 * OUTPUT_CAPACITY {
        out(&mut devices, 0x2e8, b'x'.into());
    }
    assert!(!devices.needs_thread());
    for byte in *b"text" {
        out(&mut devices, 0x2f8, byte.into());
    }
    assert!(devices.needs_thread());
    let mut sent = Vec::new();
    assert_eq!(devices.written_ports().map(|port| port.take_output(&mut sent)).count(), 1);
    assert_eq!(sent, b"text");
    assert_eq!(devices.com1().output_len(), 0);
    // One that nobody reads holds its writers.
    let full = (0..).position(|_| devices.serve(VCPU, &port(Write, 0x2f8, 1, 0)) == Err(Busy));
    assert_eq!(full, Some(OUTPUT_CAPACITY + 1));
    assert!(devices.serve(VCPU, &send(b'x')).is_ok());
    assert_eq!(devices.reset().map(drop), Err(Busy));
}

#[test]
fn the_debug_console_sends_behind_com1_and_waits_like_it() {
    let mut devices = devices();
    for (at, byte) in [(COM1_BASE, b'a'), (0xe9, b'b'), (0xe9, b'c'), (COM1_BASE, b'd')] {
        out(&mut devices, at, byte.into());
    }
    assert_eq!(output(&mut devices), b"abcd");
    let console = port(Write, 0xe9, 1, b'x'.into());
    let taken = (0..).position(|_| devices.serve(VCPU, &console) == Err(Busy));
    assert_eq!(taken, Some(OUTPUT_CAPACITY));
    // As the upper half of a word, too; the byte that COM1 still takes comes first.
    assert_eq!(devices.serve(VCPU, &port(Write, 0xe8, 2, 0)), Err(Busy));
    assert!(devices.serve(VCPU, &send(b'y')).is_ok());
    devices.com1().take_output(&mut Vec::new());
    assert!(devices.serve(VCPU, &console).is_ok());
    assert_eq!(output(&mut devices), b"yx");
}

#[test]
fn a_key_of_the_keyboard_is_an_edge_for_each_byte() {
    let (mut devices, changes) = wired(DeviceSetup::default());
    out(&mut devices, 0x60, 0xff);
    assert_eq!(changes.take(), [(1, true)]);
    assert_eq!(input(&mut devices, 0x60), 0xfa);
    assert_eq!(changes.take(), [(1, false), (1, true)]);
    assert_eq!(input(&mut devices, 0x60), 0xaa);
    assert_eq!(changes.take(), [(1, false)]);
}

#[test]
fn the_clock_and_the_timer_have_the_device_thread_come_back() {
    let (mut devices, changes) = wired(DeviceSetup::default());
    assert_eq!(devices.tick(), None);
    // A PM timer event comes after 10 minutes.
    out(&mut devices, 0x602, 1);
    assert!(devices.needs_thread());
    let late = devices.tick().unwrap();
    assert!(!devices.needs_thread());
    // The fastest periodic interrupt is sooner, and so is news.
    out(&mut devices, 0x70, 0x0a);
    out(&mut devices, 0x71, 0x23);
    out(&mut devices, 0x70, 0x0b);
    out(&mut devices, 0x71, 0x42);
    // It may have come already, with the tick; then it waits for register C.
    while changes.take().is_empty() {
        let due = devices.tick();
        assert!(due.is_some_and(|due| due <= late));
    }
    assert_eq!(devices.tick(), Some(late));
    out(&mut devices, 0x70, 0x0c);
    assert_eq!(input(&mut devices, 0x71) & 0xc0, 0xc0);
    assert_eq!(changes.take().first(), Some(&(8, false)));
}

#[test]
fn timer_2_counts_while_port_61_lets_it() {
    let mut devices = devices();
    out(&mut devices, 0x43, 0xb0);
    out(&mut devices, 0x42, 1);
    out(&mut devices, 0x42, 0);
    assert_eq!(input(&mut devices, 0x61) & 0x21, 0);
    out(&mut devices, 0x61, 1);
    while input(&mut devices, 0x61) & 0x20 == 0 {}
    assert_eq!(input(&mut devices, 0x61) & 0x2f, 0x21);
}

#[test]
fn the_test_device_is_there_when_asked_for() {
    let (mut devices, changes) = wired(with_test_device());
    serve(&mut devices, port(Write, 0xe0, 4, 0x1234_5678));
    assert_eq!(read(&mut devices, port(Read, 0xe8, 4, 0)), 0x1234_5678);
    assert_eq!(input(&mut devices, 0xe9), 0x56);
    assert!(!devices.post_policy().may_post(&port(Write, 0xe9, 1, 0)));
    serve(&mut devices, port(Write, 0xe4, 4, 0x1000));
    serve(&mut devices, memory(Write, 0xff00_0100, 8, 0x0102_0304_0506_0708));
    assert_eq!(read(&mut devices, memory(Read, 0xff00_0104, 4, 0)), 0x0102_0304);
    assert_eq!(read(&mut devices, memory(Read, 0xff01_0000, 4, 0)), 0xffff_ffff);
    assert_eq!(devices.unknown().total(), 1);
    // Its pin at COM1's line is ORed with COM1's.
    raise(&mut devices, COM1_BASE);
    out(&mut devices, 0x2004, 1);
    out(&mut devices, 0x2017, 0x80);
    lower(&mut devices, COM1_BASE);
    assert_eq!(changes.take(), [(4, true), (23, true)]);
    out(&mut devices, 0x2004, 0);
    assert_eq!(changes.take(), [(4, false)]);
}

#[test]
fn a_reset_puts_every_device_back() {
    let (mut devices, changes) = wired(with_test_device_and_com2());
    let probes = [
        (0x20_u64, 0x64), // The command byte.
        (0x0b, 0x70),
        (0x0f, 0x70),
    ];
    let state = |devices: &mut DeviceSet| {
        let mut state = vec![
            input(devices, 0x92),
            input(devices, 0x61) & 0xf,
            input(devices, 0xcf9),
            read(devices, port(Read, 0xcf8, 4, 0)),
            read(devices, port(Read, 0x600, 4, 0)),
            read(devices, port(Read, 0x604, 2, 0)),
            read(devices, port(Read, 0xe0, 4, 0)),
            input(devices, 0x511),
            input(devices, 0x2ff),
            input(devices, 0x3ff),
        ];
        for (value, at) in probes {
            out(devices, at, value);
            state.push(input(devices, if at == 0x64 { 0x60 } else { 0x71 }));
        }
        state.push(devices.post_code().map_or(0x100, |code| code.0.into()));
        state.push(read(devices, memory(Read, 0xff00_0000, 1, 0)));
        state
    };
    let first = state(&mut wired(with_test_device_and_com2()).0);
    let writes = [
        (0x92, 0),
        (0x61, 3),
        (0xcf9, 2),
        (0x602, 1),
        (0x605, 0x04),
        (0xe0, 9),
        (0x2ff, 9),
        (0x3ff, 9),
        (0x64, 0x60),
        (0x60, 0x41),
        (0x70, 0x0b),
        (0x71, 0x06),
        (0x70, 0x0f),
        (0x71, 9),
        (0x80, 9),
        (0x2005, 1),
    ];
    for (at, value) in writes {
        out(&mut devices, at, value);
    }
    serve(&mut devices, port(Write, 0xcf8, 4, 0x8000_0000));
    serve(&mut devices, port(Write, 0x510, 2, 0x03));
    serve(&mut devices, memory(Write, 0xff00_0000, 1, 9));
    raise(&mut devices, 0x2f8);
    out(&mut devices, 0x60, 0xff);
    assert_eq!(changes.take(), [(5, true), (3, true), (1, true)]);
    let left = devices.reset().unwrap();
    assert_eq!(left.post_code, Some(PostCode(9)));
    let mut lowered = changes.take();
    lowered.sort_unstable();
    assert_eq!(lowered, [(1, false), (3, false), (5, false)]);
    assert_eq!(state(&mut devices), first);
}

fn with_test_device_and_com2() -> DeviceSetup {
    DeviceSetup { ports: vec![(ComPort::Com2, false)], ..with_test_device() }
}

/// An access to where a device is, or near it.
fn accesses() -> impl Strategy<Value = Access> {
    let near = prop_oneof![
        Just(0x40u64),
        Just(0x60),
        Just(0x70),
        Just(0x80),
        Just(0x92),
        Just(0xe0),
        Just(0xe8),
        Just(0x2f8),
        Just(0x3f8),
        Just(0x510),
        Just(0x600),
        Just(0x608),
        Just(0xcf8),
        Just(0x2000),
        Just(0x8900),
        Just(0xffff),
    ];
    let pio = (prop_oneof![near, 0..=0xffffu64], 0..8u64, 0..3u32)
        .prop_map(|(at, off, size)| (AddressSpace::Pio, (at + off).min(0xffff), 1u8 << size));
    let mmio = (0xfeff_fff0u64..0xff01_0010, 1u8..=8)
        .prop_map(|(at, size)| (AddressSpace::Mmio, at, size));
    (prop_oneof![8 => pio, 1 => mmio], any::<bool>(), any::<u64>()).prop_map(
        |((space, addr, size), writes, data)| Access {
            space,
            addr,
            direction: if writes { Write } else { Read },
            size,
            data: if writes { data & all_ones(size) } else { 0 },
        },
    )
}

proptest! {
    /// Whatever a guest does at whatever port, nothing panics, no value is wider than its access,
    /// and a line that has changed has changed.
    #[test]
    fn accesses_at_random(
        accesses in prop::collection::vec(accesses(), 1..300),
        everything in any::<bool>(),
    ) {
        let ports = ComPort::ALL.map(|port| (port, false)).to_vec();
        let setup = if everything {
            DeviceSetup { ports, ..with_test_device() }
        } else {
            DeviceSetup::default()
        };
        let (mut devices, changes) = wired(setup);
        for access in accesses {
            let reply = devices.serve(VCPU, &access).unwrap();
            if let Reply::Value(value) = reply {
                prop_assert!(value <= all_ones(access.size), "{access:x?}: {value:#x}");
            }
            devices.tick();
        }
        let mut levels = std::collections::BTreeMap::new();
        for (line, high) in changes.take() {
            prop_assert_ne!(levels.insert(line, high).unwrap_or(false), high, "line {}", line);
        }
        devices.com1().take_output(&mut Vec::new());
        devices.reset().unwrap();
        for (line, high) in changes.take() {
            levels.insert(line, high);
        }
        prop_assert!(!levels.values().any(|high| *high), "{levels:?}");
    }
}
