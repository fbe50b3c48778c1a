//! Storms of kicks: other threads kick the vCPUs as fast as they can while the guests do I/O and
//! while they spin. They do so in gusts: a vCPU that is kicked again before it has entered the
//! guest does not enter it, so that one that is kicked without any pause gets nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use minivmm::exit::VcpuId;
use minivmm::outcome::VmOutcome;
use minivmm::stress::start::StartMode;
use minivmm::vcpu::campaign::Finished;
use minivmm::vcpu::repeat::RepeatSetup;
use minivmm::vmm::RoundHandle;
use minivmm_guests::expect::{Output, expectation};

use crate::draw::Draw;
use crate::recorded::Recorded;
use crate::theme::{Rounds, torture};
use crate::vm::{TestVm, assert_is_storm_cut_short, guest};

/// Bytes from each vCPU.
const BYTES: u16 = 400;

/// The longest pause between two gusts.
const PAUSE: Duration = Duration::from_millis(3);

/// Threads that do `what`, in gusts, until this is ended.
struct Storm {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Storm {
    fn of(draw: &mut Draw, what: impl Fn(&mut Draw) + Clone + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let threads = (0..draw.number(1..=2)).map(|_| {
            let (over, what, mut draw) = (Arc::clone(&over), what.clone(), draw.fork());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    (0..draw.number(1..=30)).for_each(|_| what(&mut draw));
                    thread::sleep(draw.time(PAUSE));
                }
            })
        });
        let threads = threads.collect();
        Self { over, threads }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn kick(handle: &RoundHandle, vcpus: u32, draw: &mut Draw) {
    handle.kick(VcpuId(draw.count(0..=vcpus - 1)));
}

#[test]
fn a_storm_of_kicks_loses_nothing_and_keeps_the_order() {
    let name = "kicks::a_storm_of_kicks_loses_nothing_and_keeps_the_order";
    torture(name, Rounds::short(20), |draw| {
        let vcpus = draw.count(1..=4);
        let demo = draw.pick(&["uart-storm", "uart-storm-poll", "uart-lines", "counter"]);
        let iterations = if demo.starts_with("uart-storm") { BYTES.into() } else { 0 };
        let vm = TestVm::new(&guest(demo, vcpus, iterations));
        let handle = vm.vmm.round_handle();
        let storm = Storm::of(draw, move |draw| kick(&handle, vcpus, draw));
        let ran = vm.run();
        storm.end();
        assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{}", ran.report.outcome);
        let expected = match iterations {
            0 => expectation(demo).unwrap().output,
            _ => Output::Marked(BYTES.into()),
        };
        assert_eq!(expected.check(vcpus, &ran.received), Ok(()), "{demo}");
    });
}

#[test]
fn a_stop_gets_through_a_storm_of_kicks() {
    torture("kicks::a_stop_gets_through_a_storm_of_kicks", Rounds::short(15), |draw| {
        let vcpus = draw.count(1..=8);
        let vm = TestVm::new(&guest(draw.pick(&["spin", "spin-user"]), vcpus, 0));
        let handle = vm.vmm.round_handle();
        let storm = Storm::of(draw, move |draw| kick(&handle, vcpus, draw));
        let stopper = vm.stop_after(draw.time(Duration::from_millis(20)));
        let ran = vm.run();
        stopper.join().unwrap();
        storm.end();
        assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{}", ran.report.outcome);
    });
}

#[test]
fn what_cuts_iterations_at_random_spoils_no_other() {
    const EACH: u64 = 100;
    let name = "kicks::what_cuts_iterations_at_random_spoils_no_other";
    torture(name, Rounds::short(20), |draw| {
        let vcpus = draw.count(1..=4);
        let iterations = draw.number(2..=10);
        let campaign = Arc::new(Recorded::new(iterations, draw));
        let limit = Duration::from_millis(7);
        let repeat = RepeatSetup {
            campaign: Arc::clone(&campaign) as _,
            vm: 0,
            start: draw.pick(&[StartMode::Together, StartMode::Random, StartMode::OneByOne]),
            chaos: draw.pick(&[None, Some("0.1".parse().unwrap())]),
            lockstep: draw.number(0..=3) == 0,
            limit,
            own_cpus: draw.number(0..=1) == 0,
        };
        let vm = TestVm::repeating(&guest("uart-storm", vcpus, EACH), None, repeat);
        let handle = vm.vmm.round_handle();
        let storm = Storm::of(draw, move |draw| match draw.number(0..=50) {
            // Rounds count from 1; most of these are over, or have not begun.
            0 => handle.end(draw.number(1..=iterations)),
            _ => kick(&handle, vcpus, draw),
        });
        let report = vm.run_campaign();
        storm.end();
        assert!(matches!(report.outcome, VmOutcome::AllHalted), "{}", report.outcome);
        let finished = campaign.take_finished();
        assert_eq!(u64::try_from(finished.len()).unwrap(), iterations);
        for Finished { iteration, outcome, output, .. } in finished {
            let each = usize::try_from(EACH).unwrap();
            match outcome {
                VmOutcome::AllHalted => {
                    let checked = Output::Marked(each).check(vcpus, &output);
                    assert_eq!(checked, Ok(()), "iteration {}", iteration.number);
                }
                VmOutcome::TimedOut(after) if after == limit => {
                    assert_is_storm_cut_short(vcpus, each, &output);
                }
                outcome => panic!("iteration {}: {outcome}", iteration.number),
            }
        }
    });
}
