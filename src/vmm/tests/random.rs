//! What holds for every VM, whatever its vCPUs do: it ends, and the way it ends is one that a
//! vCPU asked for; every byte that was sent arrives, each vCPU's in order.

use proptest::prelude::*;

use super::*;
use crate::devices::GuestEnd;
use crate::exit::VmExit;

/// What a vCPU does on its way.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Sends this many bytes, an exit each.
    Send(u8),
    /// The same in one exit.
    SendString(u8),
    LineStatus,
    Scratch(u8),
    /// Writes IER: from here on bytes to send are waited for, or no longer.
    Interrupts(bool),
    Unknown,
    Interrupted,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Halt,
    Spin,
    Exit,
    Fault,
    Fail,
    Panic,
}

const MESSAGE: &str = "on purpose";

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..100u8).prop_map(Op::Send),
        1 => (1..100u8).prop_map(Op::SendString),
        2 => Just(Op::LineStatus),
        1 => any::<u8>().prop_map(Op::Scratch),
        1 => any::<bool>().prop_map(Op::Interrupts),
        1 => Just(Op::Unknown),
        1 => Just(Op::Interrupted),
    ]
}

fn last() -> impl Strategy<Value = Last> {
    prop_oneof![
        8 => Just(Last::Halt),
        2 => Just(Last::Spin),
        1 => Just(Last::Exit),
        1 => Just(Last::Fault),
        1 => Just(Last::Fail),
        1 => Just(Last::Panic),
    ]
}

fn guest() -> impl Strategy<Value = Vec<(Vec<Op>, Last)>> {
    prop::collection::vec((prop::collection::vec(op(), 0..30), last()), 1..=8)
}

fn script(vcpu: u8, ops: &[Op], last: Last) -> Vec<Step> {
    let mut bytes = (0..32).cycle().map(|number| vcpu << 5 | number);
    let mut steps = Vec::new();
    for op in ops {
        match *op {
            Op::Send(count) => {
                steps.extend(bytes.by_ref().take(count.into()).map(Step::send));
            }
            Op::SendString(count) => {
                let data = bytes.by_ref().take(count.into()).collect();
                steps.push(Step::Out { port: 0x3f8, size: 1, data });
            }
            Op::LineStatus => steps.push(Step::in8(0x3fd)),
            Op::Scratch(value) => steps.push(Step::out8(0x3ff, value)),
            Op::Interrupts(on) => steps.push(Step::out8(0x3f9, u8::from(on) << 1)),
            Op::Unknown => steps.push(Step::in8(0x80)),
            Op::Interrupted => steps.push(Step::Exit(VmExit::Interrupted)),
        }
    }
    steps.push(match last {
        Last::Halt => Step::Exit(VmExit::Hlt),
        Last::Spin => Step::Spin,
        Last::Exit => Step::out8(0xf4, vcpu),
        Last::Fault => Step::Exit(VmExit::Shutdown),
        Last::Fail => Step::Fail(io::ErrorKind::InvalidInput),
        Last::Panic => Step::panic(MESSAGE),
    });
    steps
}

fn bytes_of(op: &Op) -> u64 {
    match *op {
        Op::Send(count) | Op::SendString(count) => count.into(),
        _ => 0,
    }
}

/// Which vCPU ended the run, and how, if it was one.
fn cause(outcome: &VmOutcome) -> Option<(VcpuId, Last)> {
    match outcome {
        VmOutcome::Guest { vcpu, end: GuestEnd::Exit(value) } if *value == vcpu.0 => {
            Some((*vcpu, Last::Exit))
        }
        VmOutcome::Fault { vcpu, exit: VmExit::Shutdown, .. } => Some((*vcpu, Last::Fault)),
        VmOutcome::VcpuFailed { vcpu, error: VcpuError::Run(_) } => Some((*vcpu, Last::Fail)),
        VmOutcome::VcpuPanicked { vcpu, message } if message == MESSAGE => {
            Some((*vcpu, Last::Panic))
        }
        _ => None,
    }
}

proptest! {
    // How the threads meet is not in the seed, so there is no use in keeping one that failed.
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_run_ends_as_it_should_and_loses_nothing(guest in guest()) {
        let scripts = (0..).zip(&guest).map(|(vcpu, (ops, last))| script(vcpu, ops, *last));
        let vm = TestVm::new(scripts);
        let all = |which: &[Last]| guest.iter().all(|(_, last)| which.contains(last));
        let halts = all(&[Last::Halt]);
        let needs_limit = !halts && all(&[Last::Halt, Last::Spin]);
        let limit = needs_limit.then_some(Duration::from_millis(20));
        let ran = vm.run_with(|bytes| Ok(bytes.len()), limit);

        ran.check_order();
        prop_assert_eq!(ran.report.output.lost, 0);
        let outcome = &ran.report.outcome;
        match cause(outcome) {
            Some((vcpu, last)) => prop_assert_eq!(guest[vcpu.index()].1, last),
            None if halts => prop_assert!(matches!(outcome, VmOutcome::AllHalted)),
            None => prop_assert!(limit.is_some() && matches!(outcome, VmOutcome::TimedOut(_))),
        }
        // The one that ended the run, and all if all halted, got to the end of their scripts.
        for (id, (log, (ops, _))) in (0..).map(VcpuId).zip(ran.logs.iter().zip(&guest)) {
            if halts || cause(outcome).is_some_and(|(vcpu, _)| vcpu == id) {
                prop_assert_eq!(log.sent(), ops.iter().map(bytes_of).sum::<u64>());
            }
        }
    }
}
