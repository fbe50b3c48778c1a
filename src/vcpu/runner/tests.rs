//! The run loop on scripted vCPUs: what each exit becomes, and what is remembered of it. The
//! devices and the queue are the real ones; no device thread is needed, for a vCPU helps itself.

use std::sync::Arc;
use std::thread;

use super::*;
use crate::devices::serial::OUTPUT_CAPACITY;
use crate::devices::setup::DeviceSetup;
use crate::exit::InsnBytes;
use crate::testing::{wait_until, watched};
use crate::trace::tracer::{TraceSetup, Tracer};
use crate::vcpu::registers::Registers;
use crate::vcpu::scripted::{Log, ScriptedVcpu, Step};

mod interrupts;

const ID: VcpuId = VcpuId(0);

/// How an exit was handled, by the names in traces; `SELF` is served by the vCPU itself.
const SELF: &str = "vcpu";
const POSTED: &str = "posted";
const RUN_LOOP: &str = "run-loop";
const PENDING: &str = "pending";

/// A runner's surroundings.
struct Machine {
    queue: DeviceQueue<DeviceSet>,
    posting: PostPolicy,
    control: VcpuControl,
}

impl Machine {
    fn new() -> Self {
        let devices =
            DeviceSet::unconnected(DeviceSetup { input_limit: 64, ..DeviceSetup::default() })
                .unwrap();
        let posting = devices.post_policy();
        Self { queue: DeviceQueue::new(devices, 64), posting, control: VcpuControl::new() }
    }

    fn runner(&self, vcpu: ScriptedVcpu) -> Runner<'_, ScriptedVcpu> {
        let tracing = Tracer::new(TraceSetup::default(), 1).vcpu_tracing(ID);
        Runner::new(ID, vcpu, &self.control, &self.queue, self.posting.clone(), tracing)
    }

    /// Runs a script to its end.
    fn run(&self, steps: Vec<Step>) -> (VcpuEnd, Arc<Log>) {
        let vcpu = ScriptedVcpu::new(steps);
        let log = vcpu.log();
        (self.runner(vcpu).run(), log)
    }

    /// What the reads of a script that only reads and halts are given.
    fn reads(&self, steps: Vec<Step>) -> Vec<Vec<u8>> {
        let (end, log) = self.run(steps);
        assert!(matches!(end, VcpuEnd::Halted), "{end:?}");
        log.reads()
    }

    /// What the serial port has sent.
    fn output(&self) -> Vec<u8> {
        let mut output = Vec::new();
        self.queue.round(&mut (), |devices| devices.com1().take_output(&mut output));
        output
    }

    fn unknown(&self) -> u64 {
        self.queue.visit(|devices| devices.unknown().total())
    }

    /// The last exits.
    fn last(&self) -> Vec<ExitEvent> {
        self.control.exits.last().iter().filter_map(Record::exit).copied().collect()
    }

    /// The records without the halt that ends the script: data and handler.
    fn records(&self) -> Vec<(u64, &'static str)> {
        let mut records = self.last();
        assert_eq!(records.pop().map(|record| record.exit), Some(VmExit::Hlt));
        records.iter().map(|record| (record.data, record.handling.name())).collect()
    }
}

fn run(steps: Vec<Step>) -> VcpuEnd {
    Machine::new().run(steps).0
}

fn out(port: u16, data: &[u8]) -> Step {
    Step::Out { port, size: data.len().try_into().unwrap(), data: data.to_vec() }
}

fn input(port: u16, size: u8) -> Step {
    Step::In { port, size, count: 1 }
}

mod ends {
    use super::*;

    #[test]
    fn halt_ends_the_vcpu() {
        let machine = Machine::new();
        let (end, _) = machine.run(vec![]);
        assert!(matches!(end, VcpuEnd::Halted), "{end:?}");
        let last = machine.last().pop().unwrap();
        assert_eq!((last.sequence, last.exit, last.handling.name()), (0, VmExit::Hlt, RUN_LOOP));
    }

    #[test]
    fn exits_that_a_guest_does_not_survive_are_faults_with_its_registers() {
        let insn = Some(InsnBytes::new([0xcc; 15], 1));
        let faults = [
            VmExit::Shutdown,
            VmExit::FailEntry { reason: 0x8000_0021, cpu: 1 },
            VmExit::InternalError { suberror: 1, insn },
            VmExit::SystemEvent { kind: 0 },
            VmExit::SystemEvent { kind: 3 },
            VmExit::Unhandled { reason: 77 },
        ];
        for fault in faults {
            let end = run(vec![Step::send(b'x'), Step::Exit(fault), Step::panic("ran on")]);
            let VcpuEnd::Fault { exit, registers: Some(registers) } = end else {
                panic!("{fault:?}: {end:?}")
            };
            // The instruction bytes too, which the ring does not keep.
            assert_eq!(exit, fault);
            assert_eq!(*registers, Registers { rip: 2, ..Registers::default() });
        }
    }

    #[test]
    fn system_events_and_devices_end_the_guest() {
        let exit = |kind| Step::Exit(VmExit::SystemEvent { kind });
        let mut word: Vec<_> = b"Shutdown".iter().map(|byte| Step::out8(0x8900, *byte)).collect();
        word.push(Step::panic("ran on"));
        let table = [
            (vec![exit(1)], GuestEnd::PowerOff),
            (vec![exit(2)], GuestEnd::Reset),
            (vec![out(0xf4, &[0x15])], GuestEnd::Exit(0x15)),
            (vec![out(0xf4, &[0x15, 1])], GuestEnd::Exit(0x115)),
            (vec![out(0xf4, &[4, 3, 2, 1])], GuestEnd::Exit(0x0102_0304)),
            (vec![out(0x604, &[0x00, 0x20])], GuestEnd::PowerOff),
            (vec![out(0x605, &[0x20])], GuestEnd::PowerOff),
            (vec![out(0x604, &[0x00, 0x1c]), out(0x64, &[0xfe])], GuestEnd::Reset),
            (vec![out(0xcf9, &[0x02]), out(0xcf9, &[0x06])], GuestEnd::Reset),
            (vec![out(0xcf8, &[0, 6, 0, 0x80]), out(0x64, &[0xfe])], GuestEnd::Reset),
            (word, GuestEnd::PowerOff),
        ];
        for (mut steps, expected) in table {
            steps.push(Step::panic("ran on"));
            let end = run(steps);
            let VcpuEnd::Guest(end) = end else { panic!("{expected:?}: {end:?}") };
            assert_eq!(end, expected);
        }
    }

    #[test]
    fn a_string_out_ends_with_the_element_that_ends_the_guest() {
        let machine = Machine::new();
        let data = vec![7, 8, 9];
        let (end, _) = machine.run(vec![Step::Out { port: 0xf4, size: 1, data }]);
        assert!(matches!(end, VcpuEnd::Guest(GuestEnd::Exit(7))), "{end:?}");
    }

    #[test]
    fn a_vcpu_that_cannot_be_run_has_failed() {
        let end = run(vec![Step::send(b'x'), Step::Fail(std::io::ErrorKind::InvalidInput)]);
        let VcpuEnd::Failed { error: VcpuError::Run(error), .. } = end else { panic!("{end:?}") };
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }

    #[test]
    fn an_interruption_without_a_request_goes_on() {
        let machine = Machine::new();
        let steps = vec![Step::Exit(VmExit::Interrupted), Step::send(b'x')];
        assert!(matches!(machine.run(steps).0, VcpuEnd::Halted));
        assert_eq!(machine.output(), b"x");
        assert_eq!(machine.records(), [(0, RUN_LOOP), (u64::from(b'x'), POSTED)]);
    }
}

mod stops {
    use super::*;

    #[test]
    fn a_request_before_the_first_entry_is_seen() {
        let machine = Machine::new();
        machine.control.stop();
        let (end, _) = machine.run(vec![Step::panic("entered the guest")]);
        let VcpuEnd::Stopped { registers: Some(registers) } = end else { panic!("{end:?}") };
        assert_eq!(registers.rip, 0);
        assert_eq!(machine.control.exits.count(), 0);
    }

    #[test]
    fn a_kick_gets_a_spinning_guest_out() {
        watched(|| {
            let machine = Machine::new();
            thread::scope(|scope| {
                let (spins, is_spinning) = std::sync::mpsc::channel();
                let machine = &machine;
                let vcpu = scope.spawn(move || {
                    let say = Step::call(move || spins.send(()).unwrap());
                    let mut runner = machine.runner(ScriptedVcpu::new([say, Step::Spin]));
                    let _published = machine.control.publish(runner.vcpu().kicker());
                    runner.run()
                });
                is_spinning.recv().unwrap();
                machine.control.stop();
                let end = vcpu.join().unwrap();
                assert!(matches!(end, VcpuEnd::Stopped { registers: Some(_) }), "{end:?}");
            });
            let records = machine.last();
            let exits: Vec<_> = records.iter().map(|record| record.exit).collect();
            assert_eq!(exits, [VmExit::Interrupted]);
        });
    }

    #[test]
    fn a_kick_between_two_entries_is_not_lost() {
        watched(|| {
            let machine = Machine::new();
            let script = [Step::Spin, Step::panic("ran on")];
            let mut runner = machine.runner(ScriptedVcpu::new(script));
            let _published = machine.control.publish(runner.vcpu().kicker());
            machine.control.stop();
            // The request was looked at before it was made: the kick itself has to do it.
            assert_eq!(runner.vcpu().run().unwrap(), VmExit::Interrupted);
            assert!(matches!(runner.run(), VcpuEnd::Stopped { .. }));
        });
    }

    #[test]
    fn a_vcpu_that_waits_for_room_stops_when_the_queue_is_closed() {
        let machine = Machine::new();
        machine.queue.close();
        let bytes = (0..=250).cycle().take(2 * OUTPUT_CAPACITY);
        let (end, log) = machine.run(bytes.clone().map(Step::send).collect());
        assert!(matches!(end, VcpuEnd::Stopped { registers: Some(_) }), "{end:?}");
        // Each byte that the guest has written is still there, the last one too.
        let mut output = machine.output();
        while let more = machine.output()
            && !more.is_empty()
        {
            output.extend(more);
        }
        assert_eq!(u64::try_from(output.len()), Ok(log.sent()));
        assert!(output.len() < bytes.clone().count());
        assert!(bytes.take(output.len()).eq(output));
    }
}

mod accesses {
    use super::*;

    #[test]
    fn a_byte_to_send_is_posted() {
        let machine = Machine::new();
        machine.run(vec![Step::send(b'h'), Step::send(b'i')]);
        assert_eq!(machine.records(), [(u64::from(b'h'), POSTED), (u64::from(b'i'), POSTED)]);
        assert_eq!(machine.output(), b"hi");
    }

    #[test]
    fn a_byte_to_send_is_waited_for_while_an_interrupt_is_enabled() {
        let machine = Machine::new();
        machine.run(vec![
            Step::out8(0x3f9, 0x02),
            Step::send(b'a'),
            Step::out8(0x3f9, 0x00),
            Step::send(b'b'),
        ]);
        let handlers: Vec<_> = machine.records().iter().map(|(_, handler)| *handler).collect();
        assert_eq!(handlers, [SELF, SELF, SELF, POSTED]);
        assert_eq!(machine.output(), b"ab");
    }

    #[test]
    fn a_read_sees_the_writes_before_it() {
        let machine = Machine::new();
        let reads = machine.reads(vec![
            Step::out8(0x3ff, 0x5a),
            Step::in8(0x3ff),
            Step::send(b'x'),
            Step::in8(0x3fd),
        ]);
        assert_eq!(reads, [[0x5a], [0x60]]);
        assert_eq!(machine.queue.visit(|devices| devices.com1().output_len()), 1);
        assert_eq!(
            machine.records(),
            [(0x5a, SELF), (0x5a, SELF), (u64::from(b'x'), POSTED), (0x60, SELF)]
        );
    }

    #[test]
    fn a_string_out_is_one_exit_and_all_its_elements_in_order() {
        let machine = Machine::new();
        let data = b"sixteen bytes...".to_vec();
        machine.run(vec![Step::Out { port: 0x3f8, size: 1, data: data.clone() }]);
        assert_eq!(machine.output(), data);
        let record = machine.last()[0];
        let VmExit::Pio(pio) = record.exit else { panic!("{record}") };
        assert_eq!((pio.size, pio.count), (1, 16));
        assert_eq!(record.data, u64::from_le_bytes(*b"sixteen "));
        assert_eq!(record.handling.name(), POSTED);
    }

    #[test]
    fn a_string_in_gets_every_element_from_the_device() {
        let machine = Machine::new();
        let (keys, rest) = (*b"sixteen keys...!", *b"xy");
        machine.run(vec![Step::out8(0x3fa, 0x01)]);
        machine.queue.visit(|devices| devices.com1().push_input(&[&keys[..], &rest].concat()));
        let reads = machine.reads(vec![Step::In { port: 0x3f8, size: 1, count: 16 }]);
        assert_eq!(reads, [keys]);
        let record = machine.last()[2];
        assert_eq!(record.data, u64::from_le_bytes(*b"sixteen "));
        assert_eq!(record.handling.name(), SELF);
        // The seventeenth was not read.
        assert_eq!(machine.reads(vec![Step::in8(0x3f8), Step::in8(0x3f8)]), [b"x", b"y"]);
    }

    #[test]
    fn elements_of_a_wide_string_keep_their_width() {
        let machine = Machine::new();
        // Each element is a byte to send and a value for IER, whose upper half reads as zero.
        let data = b"a\x51b\x62c\x73".to_vec();
        let reads = machine.reads(vec![
            Step::Out { port: 0x3f8, size: 2, data },
            Step::In { port: 0x3f8, size: 2, count: 2 },
        ]);
        assert_eq!(machine.output(), b"abc");
        assert_eq!(reads, [[0, 3, 0, 3]]);
        assert_eq!(machine.records()[0], (u64::from_le_bytes(*b"a\x51b\x62c\x73\0\0"), SELF));
    }

    #[test]
    fn a_word_to_the_transmitter_writes_the_next_register_too() {
        let machine = Machine::new();
        let reads = machine.reads(vec![out(0x3f8, b"x\x05"), Step::in8(0x3f9)]);
        assert_eq!(machine.output(), b"x");
        assert_eq!(reads, [[0x05]]);
    }

    #[test]
    fn an_access_that_reaches_past_the_last_register_is_split() {
        let machine = Machine::new();
        let reads = machine.reads(vec![
            out(0x3fe, &[0xff, 0x5a, 0xff, 0xff]),
            // MSR shows a connected peer; SCR is what was written; then there is nothing.
            input(0x3fe, 4),
            input(0x3ff, 2),
        ]);
        assert_eq!(reads, [&[0xb0, 0x5a, 0xff, 0xff][..], &[0x5a, 0xff]]);
        assert_eq!(machine.unknown(), 5);
    }

    #[test]
    fn an_access_that_begins_before_the_first_register_is_split() {
        let machine = Machine::new();
        let reads = machine.reads(vec![
            out(0x3f7, b"-x"),
            out(0x3f5, b"---y"),
            input(0x3f7, 2),
            // Three before, RBR: nothing received.
            input(0x3f5, 4),
        ]);
        assert_eq!(machine.output(), b"xy");
        assert_eq!(reads, [&[0xff, 0x00][..], &[0xff, 0xff, 0xff, 0x00]]);
    }

    #[test]
    fn unknown_ports_read_as_all_ones_and_ignore_writes() {
        let machine = Machine::new();
        let (mut steps, mut expected) = (Vec::new(), Vec::new());
        for size in [1, 2, 4] {
            for port in [0xb0, 0xffff] {
                steps.push(Step::Out { port, size, data: vec![0x11; size.into()] });
                steps.push(input(port, size));
                expected.push(vec![0xff; size.into()]);
            }
        }
        steps.push(Step::In { port: 0xb0, size: 2, count: 5 });
        expected.push(vec![0xff; 10]);
        assert_eq!(machine.reads(steps), expected);
        assert_eq!(machine.unknown(), 17);
    }

    #[test]
    fn unknown_memory_reads_as_all_ones_and_ignores_writes() {
        let machine = Machine::new();
        let (mut steps, mut expected) = (Vec::new(), Vec::new());
        for size in 1..=8 {
            // A port number is no address.
            for gpa in [0x3f8, 0xd000_0000, u64::MAX] {
                steps.push(Step::Store { gpa, data: vec![0x11; size.into()] });
                steps.push(Step::Load { gpa, size });
                expected.push(vec![0xff; size.into()]);
            }
        }
        assert_eq!(machine.reads(steps), expected);
        assert_eq!(machine.unknown(), 48);
        assert_eq!(machine.output(), b"");
    }
}

#[test]
fn the_record_of_an_exit_has_all_of_it() {
    let machine = Machine::new();
    machine.run(vec![
        Step::Out { port: 0x3f8, size: 1, data: b"ok".to_vec() },
        input(0xb0, 4),
        Step::Load { gpa: 0xd000_0000, size: 8 },
        Step::Store { gpa: 0xd000_0008, data: vec![1, 2, 3] },
        Step::Exit(VmExit::Interrupted),
        out(0xf4, &[3]),
    ]);
    let lines: Vec<_> = machine.last().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "io-out port=0x3f8 size=1 count=2 data=0x6b6f handler=posted",
            "io-in port=0xb0 size=4 count=1 data=0xffffffff handler=vcpu",
            "mmio-read gpa=0xd0000000 size=8 count=1 data=0xffffffffffffffff handler=vcpu",
            "mmio-write gpa=0xd0000008 size=3 count=1 data=0x30201 handler=vcpu",
            "interrupted handler=run-loop",
            "io-out port=0xf4 size=1 count=1 data=0x3 handler=vcpu",
        ]
    );
}

#[test]
fn an_exit_is_on_record_as_pending_while_it_is_handled() {
    watched(|| {
        let machine = Machine::new();
        thread::scope(|scope| {
            let vcpu = scope.spawn(|| {
                machine.run(vec![
                    Step::out8(0x3f9, 0x02),
                    Step::Out { port: 0x3f8, size: 1, data: vec![b'-'; OUTPUT_CAPACITY + 1] },
                    Step::send(b'x'),
                ])
            });
            // The third has to wait for room.
            wait_until(|| machine.control.exits.count() == 3);
            let last = machine.last().pop().unwrap();
            assert_eq!((last.data, last.handling.name()), (u64::from(b'x'), PENDING));
            machine.queue.close();
            assert!(matches!(vcpu.join().unwrap().0, VcpuEnd::Stopped { .. }));
        });
        let last = machine.last().pop().unwrap();
        assert_eq!((last.data, last.handling.name()), (u64::from(b'x'), PENDING));
    });
}
