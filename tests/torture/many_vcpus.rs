//! Many more vCPUs than there are host CPUs.

use std::time::Duration;

use minivmm::outcome::VmOutcome;
use minivmm_guests::expect::expectation;

use crate::support::{minivmm, run};
use crate::theme::{Rounds, torture};
use crate::vm::{TestVm, guest};

#[test]
fn many_vcpus_start_work_and_stop() {
    torture("many_vcpus::many_vcpus_start_work_and_stop", Rounds::short(1), |draw| {
        for vcpus in [64, 254] {
            let ran = TestVm::new(&guest("smp-hello", vcpus, 0)).run();
            assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{}", ran.report.outcome);
            let expected = expectation("smp-hello").unwrap().output;
            assert_eq!(expected.check(vcpus, &ran.received), Ok(()));

            let ran = TestVm::new(&guest("counter", vcpus, 10)).run();
            assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{}", ran.report.outcome);
            let said = format!("counter ok: {}\n", 10 * vcpus);
            assert_eq!(ran.received.escape_ascii().to_string(), said.escape_default().to_string());

            let vm = TestVm::new(&guest(draw.pick(&["spin", "spin-user"]), vcpus, 0));
            let stopper = vm.stop_after(draw.time(Duration::from_millis(300)));
            let ran = vm.run();
            stopper.join().unwrap();
            assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{}", ran.report.outcome);
        }
    });
}

#[test]
fn many_vcpus_go_through_a_campaign() {
    torture("many_vcpus::many_vcpus_go_through_a_campaign", Rounds::short(1), |draw| {
        let more = draw.pick(&["", "--chaos=0.01", "--start random", "--start one-by-one"]);
        let line = format!("-q --demo counter --vcpus 64 --reg rbp=10 --repeat 20 {more}");
        let run = run(minivmm(&line)).assert_code(0);
        let report = String::from_utf8(run.stdout).unwrap();
        assert!(report.contains("20 passed"), "{report}");
    });
}
