//! VMs that start and stop, by the thousand.

use std::time::Duration;

use minivmm::outcome::VmOutcome;
use minivmm_guests::expect::expectation;

use crate::draw::Draw;
use crate::theme::{Rounds, torture};
use crate::vm::{TestVm, guest};

/// VMs in a round.
const VMS: u64 = 20;

#[test]
fn ten_thousand_vms_start_and_stop() {
    let rounds = Rounds { short: 20, long: 10_000 / VMS };
    torture("start_stop::ten_thousand_vms_start_and_stop", rounds, |draw| {
        for _ in 0..VMS {
            start_and_stop(draw);
        }
    });
}

fn start_and_stop(draw: &mut Draw) {
    let vcpus = draw.pick(&[1, 1, 1, 1, 1, 1, 2, 3, 4, 8]);
    match draw.number(0..=4) {
        0 | 1 => runs_to_its_end(draw.pick(&["hello", "smp-hello"]), vcpus),
        2 => {
            let vm = TestVm::new(&guest("spin", vcpus, 0));
            vm.vmm.stop_handle().stop();
            assert!(matches!(vm.run().report.outcome, VmOutcome::Stopped));
        }
        _ => {
            let vm = TestVm::new(&guest(draw.pick(&["spin", "spin-user"]), vcpus, 0));
            let stopper = vm.stop_after(draw.time(Duration::from_millis(4)));
            let ran = vm.run();
            stopper.join().unwrap();
            assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{}", ran.report.outcome);
        }
    }
}

fn runs_to_its_end(demo: &str, vcpus: u32) {
    let ran = TestVm::new(&guest(demo, vcpus, 0)).run();
    assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{}", ran.report.outcome);
    assert_eq!(expectation(demo).unwrap().output.check(vcpus, &ran.received), Ok(()));
    assert!(ran.report.vcpus.iter().all(|vcpu| vcpu.count > 0));
}
