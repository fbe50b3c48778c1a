//! The turnstile at which vCPUs meet before each round, and the exit gate.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as PlainUsize;
use std::sync::atomic::Ordering::Relaxed;

use loom::thread;
use minivmm::exit::VcpuId;
use minivmm::sync::{AtomicBool, AtomicU64, Mutex, Ordering, Parker};
use minivmm::vcpu::Kick;
use minivmm::vcpu::rounds::Rounds;
use minivmm::vcpu::state::{Gate, VcpuControl};

use crate::explore;

const VCPUS: [VcpuId; 2] = [VcpuId(0), VcpuId(1)];

/// A turnstile for two, the product's or the sketch.
trait Turnstile: Send + Sync + 'static {
    /// Whether the caller is the last to come.
    fn arrive(&self, id: VcpuId) -> bool;
    fn open(&self, round: u64);
    fn wait(&self, id: VcpuId, round: u64) -> bool;
    fn close(&self);
    fn end(&self, round: u64);
    /// Whether the vCPU is told to end its round.
    fn is_told(&self, id: VcpuId) -> bool;
}

/// KVM's `immediate_exit`: a kick that no entry into the guest has answered.
struct ModelKick(Arc<AtomicBool>);

impl Kick for ModelKick {
    fn kick(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn take_back(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The product's, with vCPUs that can be kicked.
struct Product {
    rounds: Rounds<()>,
    kicked: [Arc<AtomicBool>; 2],
}

impl Turnstile for Product {
    fn arrive(&self, id: VcpuId) -> bool {
        self.rounds.arrive(id, ()).is_some()
    }

    fn open(&self, round: u64) {
        self.rounds.open();
        VCPUS.into_iter().for_each(|id| self.rounds.let_run(id, round));
    }

    fn wait(&self, id: VcpuId, round: u64) -> bool {
        self.rounds.wait(id, round)
    }

    fn close(&self) {
        self.rounds.close();
    }

    fn end(&self, round: u64) {
        self.rounds.end(round);
    }

    fn is_told(&self, id: VcpuId) -> bool {
        self.rounds.control(id).is_some_and(VcpuControl::stop_requested)
            || self.kicked[id.index()].load(Ordering::Acquire)
    }
}

fn rounds() -> Product {
    let kicked = VCPUS.map(|_| Arc::new(AtomicBool::new(false)));
    let controls = kicked.clone().map(|kicked| {
        let control = minivmm::sync::Arc::new(VcpuControl::new());
        // For good: the model has no thread that could outlive its vCPU.
        std::mem::forget(control.publish(Box::new(ModelKick(kicked))));
        control
    });
    Product { rounds: Rounds::new(controls), kicked }
}

/// What can be wrong with a [`Sketch`].
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// Who comes looks how many are missing, and counts itself, in two steps.
    CountsInTwo,
    /// Nobody is woken.
    Silent,
    /// Who is let run is told so after it was woken.
    WakesFirst,
    /// Who ends a round looks whether it goes on, and then tells the vCPUs, in two steps.
    EndsInTwo,
    /// The requests of the last round stay.
    KeepsRequests,
}

/// The turnstile again, with a flaw.
struct Sketch {
    flaw: Flaw,
    /// Rounds opened, and vCPUs that have not come since.
    state: Mutex<(u64, usize)>,
    may_run: [AtomicU64; 2],
    beds: [Parker; 2],
    told: [AtomicBool; 2],
    closed: AtomicBool,
}

impl Sketch {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            state: Mutex::new((0, 2)),
            may_run: [0; 2].map(AtomicU64::new),
            beds: Default::default(),
            told: [false; 2].map(AtomicBool::new),
            closed: AtomicBool::new(false),
        }
    }

    fn wake(&self, id: VcpuId) {
        if self.flaw != Flaw::Silent {
            self.beds[id.index()].unpark();
        }
    }
}

impl Turnstile for Sketch {
    fn arrive(&self, _: VcpuId) -> bool {
        if self.flaw == Flaw::CountsInTwo {
            let (_, missing) = *self.state.lock();
            self.state.lock().1 = missing - 1;
            return missing == 1;
        }
        let mut state = self.state.lock();
        state.1 -= 1;
        state.1 == 0
    }

    fn open(&self, round: u64) {
        let mut state = self.state.lock();
        *state = (round, 2);
        if self.flaw != Flaw::KeepsRequests {
            self.told.iter().for_each(|told| told.store(false, Ordering::Relaxed));
        }
        drop(state);
        for id in VCPUS {
            if self.flaw == Flaw::WakesFirst {
                self.wake(id);
            }
            self.may_run[id.index()].store(round, Ordering::Release);
            if self.flaw != Flaw::WakesFirst {
                self.wake(id);
            }
        }
    }

    fn wait(&self, id: VcpuId, round: u64) -> bool {
        loop {
            if self.may_run[id.index()].load(Ordering::Acquire) >= round {
                return true;
            }
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            self.beds[id.index()].park(None);
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        VCPUS.into_iter().for_each(|id| self.wake(id));
    }

    fn end(&self, round: u64) {
        let state = self.state.lock();
        let goes_on = state.0 == round && state.1 > 0;
        let held = (self.flaw != Flaw::EndsInTwo).then_some(state);
        if goes_on {
            self.told.iter().for_each(|told| told.store(true, Ordering::Release));
        }
        drop(held);
    }

    fn is_told(&self, id: VcpuId) -> bool {
        self.told[id.index()].load(Ordering::Acquire)
    }
}

/// Two vCPUs run up to two rounds; `outside` happens to them meanwhile. Returns the rounds that
/// each has run.
fn two_rounds<T: Turnstile>(turnstile: T, outside: impl FnOnce(&T)) -> [u64; 2] {
    let turnstile = Arc::new(turnstile);
    // Those who run, invisible to the checker: what is to be seen is that they are kept apart.
    let running = Arc::new(PlainUsize::new(0));
    let vcpus = VCPUS.map(|id| {
        let (turnstile, running) = (Arc::clone(&turnstile), Arc::clone(&running));
        thread::spawn(move || {
            for round in 1..=3 {
                if turnstile.arrive(id) {
                    assert_eq!(running.load(Relaxed), 0, "a turn while somebody runs");
                    if round == 3 { turnstile.close() } else { turnstile.open(round) }
                }
                if !turnstile.wait(id, round) {
                    return round - 1;
                }
                running.fetch_add(1, Relaxed);
                if round == 2 {
                    assert!(!turnstile.is_told(id), "told of the round before");
                }
                running.fetch_sub(1, Relaxed);
            }
            3
        })
    });
    outside(&turnstile);
    vcpus.map(|vcpu| vcpu.join().unwrap())
}

/// (h) All run every round, and nobody makes a turn while somebody runs.
fn all_run_all<T: Turnstile>(turnstile: T) {
    assert_eq!(two_rounds(turnstile, |_| {}), [2, 2], "rounds run");
}

#[test]
fn all_vcpus_run_all_rounds() {
    explore::bounded(3, || all_run_all(rounds()));
}

/// (h) Nobody waits for ever once the turnstile is closed, at whatever time.
#[test]
fn closed_at_any_time_it_leaves_nobody_waiting() {
    explore::bounded(2, || {
        two_rounds(rounds(), Product::close);
    });
}

/// (h) With one that never comes, the other is sent home.
#[test]
fn a_vcpu_that_fails_leaves_nobody_waiting() {
    explore::all(|| {
        let turnstile = Arc::new(rounds());
        let vcpu = thread::spawn({
            let turnstile = Arc::clone(&turnstile);
            move || {
                assert!(!turnstile.arrive(VcpuId(0)));
                turnstile.wait(VcpuId(0), 1)
            }
        });
        turnstile.close();
        assert!(!vcpu.join().unwrap());
    });
}

/// (i) Who ends a round ends no other.
fn an_end_reaches_its_own_round<T: Turnstile>(turnstile: T) {
    two_rounds(turnstile, |turnstile| turnstile.end(1));
}

#[test]
fn an_end_from_outside_reaches_no_later_round() {
    explore::bounded(3, || an_end_reaches_its_own_round(rounds()));
}

/// (h) Whoever waits at the exit gate, or comes to it later, goes on once it is open.
#[test]
fn an_open_gate_lets_all_through() {
    explore::bounded(4, || {
        let gate = Arc::new(Gate::new());
        let threads = [0, 1].map(|_| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.wait())
        });
        gate.open(());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn without_a_flaw_the_sketch_runs_all_rounds() {
    explore::bounded(2, || all_run_all(Sketch::new(Flaw::None)));
    explore::bounded(2, || an_end_reaches_its_own_round(Sketch::new(Flaw::None)));
}

#[test]
#[should_panic]
fn if_counting_takes_two_steps_nobody_is_the_last_or_both_are() {
    explore::bounded(3, || all_run_all(Sketch::new(Flaw::CountsInTwo)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_nobody_is_woken_they_wait_for_ever() {
    explore::bounded(3, || all_run_all(Sketch::new(Flaw::Silent)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_a_vcpu_is_woken_before_it_may_run_it_sleeps_on() {
    explore::bounded(3, || all_run_all(Sketch::new(Flaw::WakesFirst)));
}

#[test]
#[should_panic(expected = "told of the round before")]
fn if_an_end_takes_two_steps_it_reaches_the_next_round() {
    explore::bounded(3, || an_end_reaches_its_own_round(Sketch::new(Flaw::EndsInTwo)));
}

#[test]
#[should_panic(expected = "told of the round before")]
fn if_requests_stay_they_reach_the_next_round() {
    explore::bounded(3, || an_end_reaches_its_own_round(Sketch::new(Flaw::KeepsRequests)));
}
