//! Many VMs at once in one process.

use std::thread;
use std::time::Duration;

use minivmm::outcome::VmOutcome;
use minivmm_guests::expect::expectation;

use crate::draw::Draw;
use crate::support::{minivmm, run};
use crate::theme::{Rounds, torture};
use crate::vm::{TestVm, guest};

#[test]
fn sixteen_threads_run_vms_beside_each_other() {
    torture("many_vms::sixteen_threads_run_vms_beside_each_other", Rounds::short(3), |draw| {
        thread::scope(|scope| {
            for _ in 0..16 {
                let mut draw = draw.fork();
                scope.spawn(move || (0..4).for_each(|_| run_one(&mut draw)));
            }
        });
    });
}

fn run_one(draw: &mut Draw) {
    let vcpus = draw.count(1..=3);
    let demo = draw.pick(&["hello", "smp-hello", "counter", "rep-outs", "spin"]);
    let vm = TestVm::new(&guest(demo, vcpus, 0));
    if demo == "spin" {
        let stopper = vm.stop_after(draw.time(Duration::from_millis(20)));
        let ran = vm.run();
        stopper.join().unwrap();
        assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{}", ran.report.outcome);
        return;
    }
    let ran = vm.run();
    assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{}", ran.report.outcome);
    assert_eq!(expectation(demo).unwrap().output.check(vcpus, &ran.received), Ok(()));
}

#[test]
fn eight_vms_share_a_campaign() {
    torture("many_vms::eight_vms_share_a_campaign", Rounds::short(1), |draw| {
        let vcpus = draw.count(1..=2);
        let line = format!("-q --demo smp-hello --vcpus {vcpus} --jobs 8 --repeat 200");
        let run = run(minivmm(&line)).assert_code(0);
        let report = String::from_utf8(run.stdout).unwrap();
        assert!(report.contains("200 passed"), "{report}");
    });
}
