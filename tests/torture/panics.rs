//! A panic on a vCPU's thread, at each of its exits in turn.

use std::sync::Arc;
use std::time::Duration;

use minivmm::exit::VcpuId;
use minivmm::outcome::{ExitCode, VmOutcome};
use minivmm::stress::start::StartMode;
use minivmm::vcpu::repeat::RepeatSetup;
use minivmm_guests::expect::Output;

use crate::recorded::Recorded;
use crate::theme::{INJECTED, Rounds, torture};
use crate::vm::{TestVm, assert_is_storm_cut_short, guest};

const BYTES: u16 = 6;

#[test]
fn a_panic_at_any_exit_of_any_vcpu_ends_the_vm_and_is_told() {
    let name = "panics::a_panic_at_any_exit_of_any_vcpu_ends_the_vm_and_is_told";
    // Rounds differ in nothing that is drawn but the guest.
    torture(name, Rounds::short(2), |draw| {
        let demo = draw.pick(&["uart-storm", "uart-storm-poll"]);
        for vcpus in [1, 3] {
            let config = guest(demo, vcpus, BYTES.into());
            // A poll and a byte, or a byte alone, and then the halt: past the last exit nothing is
            // injected. A kick is an exit too, but nobody kicks before the end.
            let exits = u64::from(BYTES) * if demo == "uart-storm" { 1 } else { 2 } + 1;
            for (vcpu, exit) in (0..vcpus).flat_map(|vcpu| (0..=exits).map(move |n| (vcpu, n))) {
                let ran = TestVm::panicking(&config, VcpuId(vcpu), exit).run();
                let outcome = &ran.report.outcome;
                if exit == exits {
                    assert!(matches!(outcome, VmOutcome::AllHalted), "{outcome}");
                    let expected = Output::Marked(BYTES.into());
                    assert_eq!(expected.check(vcpus, &ran.received), Ok(()));
                    continue;
                }
                let VmOutcome::VcpuPanicked { vcpu: who, message } = outcome else {
                    panic!("{outcome}, not a panic of vCPU {vcpu} at exit {exit}")
                };
                assert_eq!(*who, VcpuId(vcpu));
                assert_eq!(*message, format!("{INJECTED}: vCPU {vcpu} at exit {exit}"));
                assert_eq!(outcome.exit_code(), ExitCode::Thread as u8);
                assert_is_storm_cut_short(vcpus, BYTES.into(), &ran.received);
                // Its reader takes everything, so nothing is lost.
                assert_eq!(ran.report.output.lost, 0);
            }
        }
    });
}

#[test]
fn a_panic_anywhere_in_a_campaign_ends_the_vm_and_spoils_no_iteration_before() {
    const ITERATIONS: u64 = 4;
    let name = "panics::a_panic_anywhere_in_a_campaign_ends_the_vm_and_spoils_no_iteration_before";
    torture(name, Rounds::short(20), |draw| {
        let vcpus = draw.count(1..=4);
        let campaign = Arc::new(Recorded::new(ITERATIONS, draw));
        let repeat = RepeatSetup {
            campaign: Arc::clone(&campaign) as _,
            vm: 0,
            start: draw.pick(&[StartMode::Together, StartMode::OneByOne]),
            chaos: None,
            lockstep: draw.number(0..=2) == 0,
            limit: Duration::MAX,
            own_cpus: draw.number(0..=1) == 0,
        };
        // In each iteration the bytes and a halt; putting the vCPU back has no exit that counts
        // here. In lockstep there may be kicks, too: then it panics in an earlier one.
        let each = u64::from(BYTES) + 1;
        let exit = draw.number(0..=ITERATIONS * each - 1);
        let vcpu = VcpuId(draw.count(0..=vcpus - 1));
        let config = guest("uart-storm", vcpus, BYTES.into());
        let report = TestVm::repeating(&config, Some((vcpu, exit)), repeat).run_campaign();
        let VmOutcome::VcpuPanicked { vcpu: who, .. } = &report.outcome else {
            panic!("{}, not a panic of {vcpu} at exit {exit}", report.outcome)
        };
        assert_eq!(*who, vcpu);
        let finished = campaign.take_finished();
        assert!(u64::try_from(finished.len()).unwrap() <= exit / each);
        for finished in finished {
            assert!(matches!(finished.outcome, VmOutcome::AllHalted), "{}", finished.outcome);
            let checked = Output::Marked(BYTES.into()).check(vcpus, &finished.output);
            assert_eq!(checked, Ok(()), "iteration {}", finished.iteration.number);
        }
    });
}
