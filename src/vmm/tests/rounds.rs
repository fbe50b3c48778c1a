//! VMs that run their guest again and again: what an iteration comes to, and that nothing of it is
//! left in the next.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;
use crate::exit::VmExit;
use crate::stress::chaos::ChaosRate;
use crate::stress::iteration::Iteration;
use crate::stress::seed::Seed;
use crate::stress::start::StartMode;
use crate::vcpu::campaign::{Campaign, Finished};
use crate::vcpu::repeat::RepeatSetup;

/// A campaign of so many iterations, that keeps what they come to.
#[derive(Debug)]
struct Recorded {
    iterations: u64,
    next: AtomicU64,
    finished: Mutex<Vec<Finished>>,
}

impl Campaign for Recorded {
    fn next(&self, _: usize) -> Option<Iteration> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let seed = Seed(5).iteration(number);
        (number < self.iterations).then_some(Iteration { number, seed })
    }

    fn finished(&self, _: usize, finished: Finished) {
        self.finished.lock().unwrap().push(finished);
    }
}

/// A VM that runs its scripts again and again.
struct Repeating {
    vmm: Vmm<Scripts>,
    campaign: Arc<Recorded>,
    token: Arc<()>,
}

fn setup(campaign: &Arc<Recorded>) -> RepeatSetup {
    RepeatSetup {
        campaign: Arc::clone(campaign) as _,
        vm: 0,
        start: StartMode::Together,
        chaos: None,
        lockstep: false,
        limit: Duration::from_millis(7),
        own_cpus: false,
    }
}

impl Repeating {
    fn new(vcpus: Vec<ScriptedVcpu>, iterations: u64) -> Self {
        Self::with(vcpus, iterations, |setup| setup)
    }

    fn with(
        vcpus: Vec<ScriptedVcpu>,
        iterations: u64,
        change: impl FnOnce(RepeatSetup) -> RepeatSetup,
    ) -> Self {
        let (next, finished) = (AtomicU64::new(0), Mutex::default());
        let campaign = Arc::new(Recorded { iterations, next, finished });
        let count = VcpuCount::new(vcpus.len().try_into().unwrap()).unwrap();
        let makers = vcpus.into_iter().map(|vcpu| -> Maker { Box::new(|| Ok(vcpu)) }).collect();
        let token = Arc::default();
        let tracer = Tracer::new(TraceSetup::default(), count.get());
        let setup = change(setup(&campaign));
        let builder = Scripts::new(makers, &token);
        let devices = DeviceSetup { keep_output: true, ..DeviceSetup::default() };
        let vmm = Vmm::repeating(builder, count, |_| None, tracer, devices, setup).unwrap();
        Self { vmm, campaign, token }
    }

    /// Runs it to its end; what the iterations have come to.
    fn run(self) -> (VmReport, Vec<Finished>) {
        let Self { vmm, campaign, token } = self;
        let output = Sink {
            write: |_: &[u8]| panic!("output is kept"),
            received: Arc::default(),
            _token: Arc::clone(&token),
        };
        let report = watched(move || vmm.run(Box::new(output), &mut Host::default(), None));
        assert_eq!(Arc::strong_count(&token), 1, "a thread was not joined");
        let finished = std::mem::take(&mut *campaign.finished.lock().unwrap());
        for (number, finished) in (0..).zip(&finished) {
            let seed = Seed(5).iteration(number);
            assert_eq!(finished.iteration, Iteration { number, seed });
        }
        (report, finished)
    }
}

fn all_halted(finished: &[Finished]) -> bool {
    finished.iter().all(|finished| matches!(finished.outcome, VmOutcome::AllHalted))
}

#[test]
fn every_iteration_runs_on_every_vcpu_with_its_own_output() {
    let vcpus =
        (0..4).map(|id| ScriptedVcpu::repeating(move || [b'a' + id, b'e' + id].map(Step::send)));
    let (report, finished) = Repeating::new(vcpus.collect(), 50).run();
    assert!(matches!(report.outcome, VmOutcome::AllHalted), "{}", report.outcome);
    assert_eq!(finished.len(), 50);
    assert!(all_halted(&finished));
    for mut finished in finished {
        assert!(finished.skew.is_some() && finished.vcpus.is_empty());
        finished.output.sort_unstable();
        assert_eq!(finished.output.escape_ascii().to_string(), "abcdefgh");
    }
    // The two bytes and the halt of each.
    assert_eq!(report.vcpus.iter().map(|vcpu| vcpu.count).collect::<Vec<_>>(), [150; 4]);
}

#[test]
fn an_end_by_one_vcpu_is_that_of_the_iteration_only() {
    let vcpus = vec![
        ScriptedVcpu::repeating(|| [Step::Spin, Step::Spin, Step::Spin]),
        ScriptedVcpu::repeating(|| [Step::send(b'x'), Step::out8(0xf4, 3)]),
        ScriptedVcpu::repeating(|| std::iter::repeat_with(|| Step::in8(0x3fd))),
    ];
    let (report, finished) = Repeating::new(vcpus, 30).run();
    assert!(matches!(report.outcome, VmOutcome::AllHalted), "{}", report.outcome);
    assert_eq!(finished.len(), 30);
    for finished in finished {
        assert_eq!(finished.outcome.to_string(), "vCPU 1 wrote 0x3 to the exit port");
        assert_eq!(finished.output, b"x");
        // It has failed, so there is something to tell: of this iteration alone.
        assert_eq!(finished.vcpus.len(), 3);
        assert_eq!(finished.vcpus[1].count, 2);
        assert_eq!(finished.vcpus[1].exits.len(), 2);
    }
}

#[test]
fn an_error_beats_a_success_in_an_iteration_too() {
    let vcpus = vec![
        ScriptedVcpu::repeating(|| [Step::out8(0xf4, 0)]),
        ScriptedVcpu::repeating(|| [Step::Exit(VmExit::Shutdown)]),
    ];
    let (_, finished) = Repeating::new(vcpus, 20).run();
    assert_eq!(finished.len(), 20);
    for finished in finished {
        // The second may have been told to end its iteration before it came so far.
        let faults = matches!(finished.outcome, VmOutcome::Fault { vcpu: VcpuId(1), .. });
        let told = matches!(finished.outcome, VmOutcome::Guest { vcpu: VcpuId(0), .. });
        assert!(faults || (told && finished.vcpus.is_empty()), "{}", finished.outcome);
    }
}

#[test]
fn an_assertion_ends_the_iteration_with_its_text() {
    let text = |text: &'static [u8]| Step::Out { port: 0x5f8, size: 1, data: text.to_vec() };
    let vcpus = vec![
        ScriptedVcpu::repeating(|| [Step::Spin]),
        ScriptedVcpu::repeating(move || [text(b"a.c:1: "), text(b"x == 1\n")]),
    ];
    let (_, finished) = Repeating::new(vcpus, 3).run();
    for finished in finished {
        assert_eq!(finished.outcome.to_string(), "vCPU 1: assertion failed: a.c:1: x == 1");
        assert_eq!(finished.outcome.exit_code(), 20);
        assert!(finished.vcpus[0].registers.is_some());
    }
}

#[test]
fn what_is_reported_is_that_of_the_iteration() {
    let report = |value: u32| Step::Out { port: 0x5e8, size: 4, data: value.to_le_bytes().into() };
    let vcpus = (0..2).map(|id| {
        let mut iteration = 0;
        ScriptedVcpu::repeating(move || {
            iteration += 1;
            [report(10 * iteration + id), report(7)]
        })
    });
    let (_, finished) = Repeating::new(vcpus.collect(), 3).run();
    for (number, finished) in (1..).zip(finished) {
        let values = |id: usize| {
            let states = &finished.reported[id].states;
            states.iter().map(|(outcome, count)| (outcome.value, *count)).collect::<Vec<_>>()
        };
        assert_eq!(values(0), [(7, 1), (10 * number, 1)]);
        assert_eq!(values(1), [(7, 1), (10 * number + 1, 1)]);
    }
}

#[test]
fn an_iteration_that_takes_too_long_is_cut_and_the_next_is_not() {
    let rounds = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&rounds);
    let slow = ScriptedVcpu::repeating(move || {
        // Only the second iteration does not end.
        let round = count.fetch_add(1, Ordering::SeqCst) + 1;
        if round == 2 { vec![Step::Spin, Step::Spin, Step::Spin] } else { vec![] }
    });
    let vm = Repeating::new(vec![slow, ScriptedVcpu::repeating(Vec::new)], 4);
    let handle = vm.vmm.round_handle();
    let stop = Arc::new(AtomicUsize::new(0));
    let watcher = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while stop.load(Ordering::SeqCst) == 0 {
                handle.end(2);
                thread::yield_now();
            }
        }
    });
    let (_, finished) = vm.run();
    stop.store(1, Ordering::SeqCst);
    watcher.join().unwrap();
    let outcomes: Vec<_> = finished.iter().map(|finished| finished.outcome.exit_code()).collect();
    assert_eq!(outcomes, [0, 124, 0, 0]);
    assert!(matches!(finished[1].outcome, VmOutcome::TimedOut(limit) if limit.as_millis() == 7));
}

#[test]
fn a_stop_from_outside_ends_it_in_the_middle_of_an_iteration() {
    let entered = Arc::new(AtomicUsize::new(0));
    let spinning = |entered: &Arc<AtomicUsize>| {
        let entered = Arc::clone(entered);
        ScriptedVcpu::repeating(move || {
            let entered = Arc::clone(&entered);
            let count = Step::call(move || {
                entered.fetch_add(1, Ordering::SeqCst);
            });
            [count].into_iter().chain(std::iter::repeat_with(|| Step::Spin))
        })
    };
    let vm = Repeating::new(vec![spinning(&entered), spinning(&entered)], 5);
    let stop = vm.vmm.stop_handle();
    let stopper = thread::spawn(move || {
        wait_until(|| entered.load(Ordering::SeqCst) == 2);
        stop.stop();
    });
    let (report, finished) = vm.run();
    stopper.join().unwrap();
    assert!(matches!(report.outcome, VmOutcome::Stopped), "{}", report.outcome);
    assert_eq!(finished.len(), 0, "an iteration that was not finished");
}

#[test]
fn a_vcpu_that_cannot_be_put_back_ends_the_vm() {
    // Made for one run only.
    let vcpus = vec![ScriptedVcpu::new([]), ScriptedVcpu::repeating(Vec::new)];
    let (report, finished) = Repeating::new(vcpus, 5).run();
    assert!(
        matches!(report.outcome, VmOutcome::VcpuFailed { vcpu: VcpuId(0), .. }),
        "{}",
        report.outcome
    );
    assert_eq!(finished.len(), 0);
}

#[test]
fn a_panic_in_an_iteration_ends_the_vm() {
    let mut iteration = 0;
    let panics = ScriptedVcpu::repeating(move || {
        iteration += 1;
        (iteration == 3).then(|| Step::panic("in the third"))
    });
    let (report, finished) =
        Repeating::new(vec![ScriptedVcpu::repeating(Vec::new), panics], 5).run();
    assert!(report.outcome.to_string().contains("in the third"), "{}", report.outcome);
    assert_eq!(finished.len(), 2);
}

#[test]
fn in_every_way_to_start_all_iterations_run() {
    for start in
        [StartMode::Random, StartMode::OneByOne, StartMode::Stagger(Duration::from_micros(50))]
    {
        let vcpus = (0..3).map(|_| ScriptedVcpu::repeating(|| [Step::send(b'x')])).collect();
        let (_, finished) =
            Repeating::with(vcpus, 20, |setup| RepeatSetup { start, ..setup }).run();
        assert_eq!(finished.len(), 20);
        assert!(all_halted(&finished), "{start}");
    }
}

#[test]
fn in_lockstep_the_seed_gives_the_order_of_the_exits() {
    let run = || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let vcpus = (0..3).map(|id| {
            let order = Arc::clone(&order);
            ScriptedVcpu::repeating(move || {
                let order = Arc::clone(&order);
                (0..10).flat_map(move |_| {
                    let order = Arc::clone(&order);
                    [Step::call(move || order.lock().unwrap().push(id)), Step::send(b'x')]
                })
            })
        });
        let lockstep = |setup| RepeatSetup { lockstep: true, ..setup };
        let (_, finished) = Repeating::with(vcpus.collect(), 5, lockstep).run();
        assert!(all_halted(&finished));
        assert!(finished.iter().all(|finished| finished.preemptions == 0));
        let order = order.lock().unwrap().clone();
        assert_eq!(order.len(), 5 * 3 * 10);
        order
    };
    let order: Vec<u32> = run();
    assert_eq!(run(), order);
    assert_ne!(order[..30], order[30..60], "each iteration has an order of its own");
}

#[test]
fn with_chaos_nothing_is_lost_and_the_seed_gives_the_perturbations() {
    let run = || {
        let vcpus = (0..3).map(|_| {
            ScriptedVcpu::repeating(|| {
                (0..50).map(
                    |number| if number % 3 == 0 { Step::in8(0x3fd) } else { Step::send(number) },
                )
            })
        });
        let chaos = Some("0.2".parse::<ChaosRate>().unwrap());
        let change = |setup| RepeatSetup { chaos, lockstep: true, ..setup };
        let (_, finished) = Repeating::with(vcpus.collect(), 5, change).run();
        assert!(all_halted(&finished));
        let sent = finished.iter().map(|finished| finished.output.clone());
        (sent.collect::<Vec<_>>(), finished.iter().map(|f| f.perturbations).collect::<Vec<_>>())
    };
    let (sent, perturbations) = run();
    assert!(sent.iter().all(|output| output.len() == 3 * 33));
    assert!(perturbations.iter().all(|count| *count > 0));
    assert_eq!(run(), (sent, perturbations));
}
