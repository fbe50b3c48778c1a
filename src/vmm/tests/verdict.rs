//! How the supervisor decides, on its own: the order of events is the test's.

use super::*;
use crate::devices::GuestEnd;
use crate::exit::VmExit;
use crate::outcome::EndSignal;

const V0: VcpuId = VcpuId(0);
const V1: VcpuId = VcpuId(1);

fn power_off(vcpu: VcpuId) -> VmOutcome {
    VmOutcome::Guest { vcpu, end: GuestEnd::PowerOff }
}

fn fault(vcpu: VcpuId) -> VmOutcome {
    VmOutcome::Fault { vcpu, exit: VmExit::Shutdown, registers: None }
}

fn no_space() -> VmOutcome {
    VmOutcome::OutputFailed(io::Error::from(io::ErrorKind::StorageFull))
}

/// What comes of these outcomes, one after the other.
fn first_of(outcomes: impl IntoIterator<Item = VmOutcome>) -> String {
    let mut verdict = Verdict::default();
    outcomes.into_iter().for_each(|outcome| verdict.consider(outcome));
    verdict.outcome.unwrap().to_string()
}

#[test]
fn the_first_of_its_kind_counts() {
    assert_eq!(first_of([power_off(V0), power_off(V1)]), power_off(V0).to_string());
    assert_eq!(first_of([power_off(V0), VmOutcome::AllHalted]), power_off(V0).to_string());
    assert_eq!(first_of([fault(V0), fault(V1)]), fault(V0).to_string());
    assert_eq!(first_of([fault(V0), power_off(V1)]), fault(V0).to_string());
}

#[test]
fn an_error_beats_a_success_that_is_queued_with_it() {
    let successes = [
        VmOutcome::AllHalted,
        power_off(V0),
        VmOutcome::Stopped,
        VmOutcome::Quit,
        VmOutcome::OutputClosed,
        VmOutcome::Signal(EndSignal::Interrupt),
    ];
    for success in successes {
        assert_eq!(first_of([success, fault(V1)]), fault(V1).to_string());
    }
}

#[test]
fn a_decision_stands() {
    let outcome = Some(power_off(V0));
    let mut verdict = Verdict { outcome, decided: true, ..Verdict::default() };
    verdict.consider(fault(V1));
    assert_eq!(verdict.outcome.unwrap().to_string(), power_off(V0).to_string());
}

#[test]
fn output_that_fails_after_the_decision_beats_a_success_that_waited_for_it() {
    let timed_out = || VmOutcome::TimedOut(Duration::from_secs(1));
    let table = [
        (VmOutcome::AllHalted, no_space()),
        (power_off(V0), no_space()),
        (fault(V0), fault(V0)),
        (VmOutcome::Stopped, VmOutcome::Stopped),
        (VmOutcome::Quit, VmOutcome::Quit),
        (timed_out(), timed_out()),
    ];
    for (decided, expected) in table {
        let mut verdict = Verdict { outcome: Some(decided), decided: true, halted: 0 };
        verdict.consider_output(no_space());
        assert_eq!(verdict.outcome.unwrap().to_string(), expected.to_string());
    }
}

#[test]
fn output_that_fails_beats_any_success_that_is_queued_with_it() {
    for success in [VmOutcome::AllHalted, VmOutcome::Stopped, VmOutcome::Quit] {
        let mut verdict = Verdict { outcome: Some(success), ..Verdict::default() };
        verdict.consider_output(no_space());
        assert_eq!(verdict.outcome.unwrap().to_string(), no_space().to_string());
    }
}

#[test]
fn all_queued_events_are_looked_at_before_one_decides() {
    let mut vmm = TestVm::new([vec![], vec![]]).vmm;
    // Two that halt, and the second once more.
    vmm.running = 3;
    for vcpu in [V0, V1] {
        vmm.sender.send(Event::VcpuEnded(vcpu, VcpuEnd::Halted));
    }
    let closed = io::Error::from(io::ErrorKind::BrokenPipe);
    vmm.sender.send(Event::OutputFailed(closed));
    vmm.sender.send(Event::StopRequested);
    let mut verdict = Verdict::default();
    vmm.note_queued(&mut verdict);
    assert!(matches!(verdict.outcome, Some(VmOutcome::OutputClosed)), "{verdict:?}");

    vmm.sender.send(Event::VcpuEnded(V1, VcpuEnd::Panicked("oh".into())));
    vmm.note_queued(&mut verdict);
    assert!(matches!(verdict.outcome, Some(VmOutcome::VcpuPanicked { vcpu: V1, .. })));
}
