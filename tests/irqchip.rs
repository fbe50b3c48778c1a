//! Interrupt controllers in the kernel and in minivmm, on real KVM: each guest that is interrupted
//! prints the same with either, and so does one that does whatever to their registers.

mod support;

use std::fmt::Write;

use minivmm_guests::expect::expectation;
use minivmm_guests::expect::platform::PLATFORM_EXPECTS;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use support::{Finished, minivmm, require_kvm, run, run_code};

const IRQCHIPS: [&str; 2] = ["kernel", "split"];

#[track_caller]
fn check_demo(name: &str, options: &str) {
    if !require_kvm() {
        return;
    }
    let expect = expectation(name).unwrap();
    for irqchip in IRQCHIPS {
        for vcpus in [1, 2, 4] {
            let line = format!("-q --demo {name} --irqchip {irqchip} --vcpus {vcpus} {options}");
            let run = run(minivmm(&line)).assert_code(0);
            assert_eq!(expect.output.check(vcpus, &run.stdout), Ok(()), "{line}");
        }
    }
}

#[test]
fn the_8259s_interrupt() {
    check_demo("irq-pic", "");
}

#[test]
fn the_ioapic_interrupts() {
    check_demo("irq-ioapic", "");
}

#[test]
fn interrupts_are_the_same_for_vcpus_that_wait_for_the_boot_vcpu() {
    check_demo("irq-pic", "--start bsp");
    check_demo("irq-ioapic", "--start bsp");
}

#[test]
fn the_tests_of_the_machine_pass_with_controllers_in_minivmm() {
    if !require_kvm() {
        return;
    }
    for expect in PLATFORM_EXPECTS {
        for vcpus in [1, 2, 4, 16] {
            let line = format!("-q --demo {} --irqchip split --vcpus {vcpus}", expect.name);
            let run = run(minivmm(&line)).assert_code(0);
            assert_eq!(expect.check(vcpus, &run.stdout), Ok(()), "{line}");
        }
    }
}

/// Each iteration finds the controllers, and what they had sent, as the first one did.
#[test]
fn an_iteration_leaves_no_interrupt_for_the_next() {
    if !require_kvm() {
        return;
    }
    for demo in ["irq-pic", "irq-ioapic"] {
        for irqchip in IRQCHIPS {
            let options = format!("-q --demo {demo} --irqchip {irqchip} --vcpus 2");
            let line = format!("{options} --serial stdio --repeat 20");
            let [once, repeated] =
                [&options, &line].map(|line| run(minivmm(line)).assert_code(0).stdout);
            assert_eq!(repeated, once.repeat(20), "{line}");
        }
    }
}

#[test]
fn statistics_name_the_exits_that_split_controllers_need() {
    if !require_kvm() {
        return;
    }
    let stats =
        |demo| run(minivmm(&format!("--stats --demo {demo} --irqchip split"))).assert_code(0);
    stats("irq-ioapic").assert_says("ioapic-eoi");
    stats("irq-pic").assert_says("interrupted");
}

/// A step of a script for the probe.
#[derive(Clone, Copy, Debug)]
enum Step {
    Out(u16, u8),
    In(u16, u8),
    Store(u32, u32),
    Load(u32, u32),
    LetIn,
}

impl Step {
    fn bytes(self) -> [u8; 12] {
        let (what, address, value) = match self {
            Self::Out(port, value) => (1, port.into(), value.into()),
            Self::In(port, mask) => (2, port.into(), mask.into()),
            Self::Store(address, value) => (3, address, value),
            Self::Load(address, mask) => (4, address, mask),
            Self::LetIn => (5, 0, 0),
        };
        let mut bytes = [0; 12];
        bytes[0] = what;
        bytes[4..8].copy_from_slice(&u32::to_le_bytes(address));
        bytes[8..].copy_from_slice(&u32::to_le_bytes(value));
        bytes
    }
}

/// Runs a script with this irqchip.
fn run_script(irqchip: &str, script: &[Step]) -> Finished {
    let probe = minivmm_guests::find("irq-probe").unwrap().image;
    let steps: Vec<u8> = script.iter().flat_map(|step| step.bytes()).collect();
    let line = format!("-q --mode protected --device testdev --irqchip {irqchip}");
    run_code(&[probe, &steps, &[0; 12]].concat(), &line)
}

/// Runs scripts of both kinds of controllers; they are to say the same.
#[track_caller]
fn compare(cases: u32, scripts: impl Strategy<Value = Vec<Step>>) {
    if !require_kvm() {
        return;
    }
    // A case is two processes, so there are few, and they are the same ones each time: one that
    // fails is to be seen again.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let result = TestRunner::new_with_rng(config, rng).run(&scripts, |script| {
        let [kernel, split] = IRQCHIPS.map(|irqchip| run_script(irqchip, &script));
        prop_assert_eq!((kernel.code, split.code), (0, 0), "{}", split.stderr);
        if kernel.stdout != split.stdout {
            let mut text = String::new();
            let _ = write!(text, "kernel {:02x?}\nsplit  {:02x?}", kernel.stdout, split.stdout);
            return Err(TestCaseError::fail(text));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// The testdev's port of a line.
fn line(irq: u16) -> u16 {
    0x2000 + irq
}

/// What a driver of a PC writes to one of the two, and what it reads.
fn pic_steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![Just(0x20u16), Just(0xa0)];
    let irq = prop_oneof![Just(0u16), Just(1), 3..16u16];
    let any_eoi = prop_oneof![
        Just(0x20u8),
        (0x60..0x68u8),
        Just(0xa0),
        (0xe0..0xe8u8),
        (0xc0..0xc8u8),
        Just(0x40)
    ];
    // KVM's has its output follow when the mask is written, not at ICW1 or ICW4, and clears ISR of
    // some inputs then; so all are ended before. The slave's output would be latched by the master.
    let setup = |icw4: u8| {
        (4..32u8, any::<u8>()).prop_map(move |(base, mask)| {
            let ends = (0x60..0x68).map(|end| (0x20, end));
            let words = [(0x21, 0xff), (0x20, 0x11), (0x21, base << 3), (0x21, 0), (0x21, icw4)];
            let words = ends.chain(words).chain([(0x21, mask)]);
            words.map(|(port, value)| Step::Out(port, value)).collect()
        })
    };
    let read = |ocw3: u8| {
        command.clone().prop_map(move |port| vec![Step::Out(port, ocw3), Step::In(port, 0xff)])
    };
    prop_oneof![
        6 => (irq.clone(), any::<bool>())
            .prop_map(|(irq, high)| vec![Step::Out(line(irq), high.into())]),
        6 => irq.prop_map(|irq| vec![Step::Out(line(irq), 1), Step::Out(line(irq), 0)]),
        4 => (command.clone(), any_eoi).prop_map(|(port, value)| vec![Step::Out(port, value)]),
        2 => (command.clone(), any::<u8>())
            .prop_map(|(port, mask)| vec![Step::Out(port + 1, mask)]),
        1 => setup(0x01),
        1 => setup(0x11),
        3 => Just(vec![Step::LetIn]),
        2 => read(0x0a),
        2 => read(0x0b),
        2 => command.prop_map(|port| vec![Step::In(port + 1, 0xff)]),
        1 => (0x4d0..0x4d2u16).prop_map(|port| vec![Step::In(port, 0xff)]),
    ]
}

/// Both set up, and then anything. Which inputs are levels is said while they are low: at such a
/// change KVM's look at an input only when its level changes.
fn pic_scripts() -> impl Strategy<Value = Vec<Step>> {
    let levels = prop_oneof![Just([0, 0]), any::<[u8; 2]>()];
    (levels, prop::collection::vec(pic_steps(), 1..120)).prop_map(|([master, slave], steps)| {
        let mut script = vec![Step::Out(0x4d0, master), Step::Out(0x4d1, slave)];
        for (port, base) in [(0x20, 0x20), (0xa0, 0x28)] {
            let words = [(port, 0x11), (port + 1, base), (port + 1, 0), (port + 1, 0x01)];
            script.extend(words.map(|(port, value)| Step::Out(port, value)));
        }
        script.extend(steps.into_iter().flatten());
        script
    })
}

/// That two say the same is worth something only if they say something.
#[test]
fn the_probe_tells_of_an_interrupt() {
    if !require_kvm() {
        return;
    }
    let words = [(0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, 0x01), (0x21, 0xfd)];
    let mut script = words.map(|(port, value)| Step::Out(port, value)).to_vec();
    script.extend([Step::Out(line(1), 1), Step::LetIn, Step::In(0x21, 0xff)]);
    for irqchip in IRQCHIPS {
        let run = run_script(irqchip, &script).assert_code(0);
        assert_eq!(run.stdout, [0x21, 0xfd], "{irqchip}");
    }
}

#[test]
fn the_8259s_do_what_those_in_the_kernel_do() {
    compare(60, pic_scripts());
}

const IOAPIC: u32 = 0xfec0_0000;
const LAPIC: u32 = 0xfee0_0000;

/// Registers and pins of the IOAPIC, and what the local APIC has got; that one takes nothing, so
/// that no interrupt is let in.
fn ioapic_steps() -> impl Strategy<Value = Vec<Step>> {
    let select = |register: u32| Step::Store(IOAPIC, register);
    // Not the pins of the timer and of the 8259s.
    let pin = prop_oneof![Just(1u32), 3..24u32];
    // Vector, fixed or lowest priority, logical, polarity, level, masked.
    let lower = (0x10..0x100u32, 0..2u32, any::<[bool; 4]>()).prop_map(|(vector, mode, flags)| {
        let flags = flags.iter().zip([11, 13, 15, 16]);
        vector | mode << 8 | flags.map(|(on, bit)| u32::from(*on) << bit).sum::<u32>()
    });
    let destination =
        prop_oneof![3 => Just(0u32), 1 => Just(0xff), 1 => any::<u8>().prop_map(u32::from)];
    prop_oneof![
        6 => (pin.clone(), any::<bool>()).prop_map(|(pin, high)| {
            let [pin, ..] = pin.to_le_bytes();
            vec![Step::Out(line(pin.into()), high.into())]
        }),
        4 => (pin.clone(), lower).prop_map(move |(pin, lower)| {
            vec![select(0x10 + 2 * pin), Step::Store(IOAPIC + 0x10, lower)]
        }),
        2 => (pin.clone(), destination).prop_map(move |(pin, destination)| {
            vec![select(0x11 + 2 * pin), Step::Store(IOAPIC + 0x10, destination << 24)]
        }),
        1 => any::<u32>().prop_map(move |id| vec![select(0), Step::Store(IOAPIC + 0x10, id)]),
        3 => (0..0x40u32).prop_map(move |register| {
            let [data, index] = [IOAPIC + 0x10, IOAPIC].map(|at| Step::Load(at, u32::MAX));
            vec![select(register), data, index]
        }),
        2 => (0..8u32).prop_map(|index| vec![Step::Load(LAPIC + 0x200 + 0x10 * index, u32::MAX)]),
        1 => (0..8u32).prop_map(|index| vec![Step::Load(LAPIC + 0x180 + 0x10 * index, u32::MAX)]),
    ]
}

#[test]
fn the_ioapic_does_what_that_in_the_kernel_does() {
    let scripts = prop::collection::vec(ioapic_steps(), 1..120).prop_map(|steps| {
        let mut script = Vec::new();
        // The 8259s are masked, and nothing is let in.
        script.extend([Step::Out(0x21, 0xff), Step::Out(0xa1, 0xff)]);
        script.extend([Step::Store(LAPIC + 0x80, 0xff), Step::Store(LAPIC + 0xd0, 1 << 24)]);
        script.extend(steps.into_iter().flatten());
        script
    });
    compare(60, scripts);
}

/// Modes, latches and the order of bytes; what has been counted depends on the time.
#[test]
fn the_timer_has_the_status_that_the_one_in_the_kernel_has() {
    const BYTES_MODE_BCD: u8 = 0x3f;
    let counter = 0..3u8;
    let step = prop_oneof![
        2 => (counter.clone(), 1..4u8, 0..16u8).prop_map(|(counter, bytes, mode)| {
            vec![Step::Out(0x43, counter << 6 | bytes << 4 | mode)]
        }),
        3 => (counter.clone(), any::<u8>())
            .prop_map(|(counter, value)| vec![Step::Out(0x40 + u16::from(counter), value)]),
        3 => counter.prop_map(|counter| {
            let port = 0x40 + u16::from(counter);
            vec![Step::Out(0x43, 0xe0 | 2 << counter), Step::In(port, BYTES_MODE_BCD)]
        }),
    ];
    let scripts = prop::collection::vec(step, 1..60).prop_map(|steps| {
        // Unless it was given a mode, its state is not defined.
        let setup = [0x36, 0x76, 0xb6].map(|control| Step::Out(0x43, control));
        let mut script = vec![Step::Out(0x21, 0xff), Step::Out(0xa1, 0xff)];
        script.extend(setup);
        script.extend(steps.into_iter().flatten());
        script
    });
    compare(20, scripts);
}
