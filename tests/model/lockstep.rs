//! Lockstep: one vCPU at a time, and always one.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as PlainUsize;
use std::sync::atomic::Ordering::Relaxed;

use loom::thread;
use minivmm::exit::VcpuId;
use minivmm::stress::iteration::Iteration;
use minivmm::stress::lockstep::Lockstep;
use minivmm::stress::seed::Seed;
use minivmm::sync::{Mutex, Parker};

use crate::explore;

/// A lockstep for two, the product's or the sketch.
trait Turns: Send + Sync + 'static {
    fn wait(&self, id: VcpuId);
    fn pass(&self);
    fn leave(&self, id: VcpuId);
}

impl Turns for Lockstep {
    fn wait(&self, id: VcpuId) {
        assert!(self.wait(id, || false, |_| {}));
    }

    fn pass(&self) {
        self.pass();
    }

    fn leave(&self, id: VcpuId) {
        self.leave(id);
    }
}

/// What can be wrong with a [`Sketch`].
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// Who gives the turn on wakes nobody.
    Silent,
    /// Who leaves takes the turn along.
    Leaves,
    /// Who waits does not look whose turn it is once it is awake.
    Trusting,
}

/// The turns again, with a flaw: they alternate.
struct Sketch {
    flaw: Flaw,
    /// Whose turn it is, and whether both still take part.
    state: Mutex<(u32, [bool; 2])>,
    beds: [Parker; 2],
}

impl Sketch {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, state: Mutex::new((0, [true; 2])), beds: Default::default() }
    }

    fn give_on(&self, state: &mut (u32, [bool; 2])) {
        let other = 1 - state.0;
        if state.1[VcpuId(other).index()] {
            state.0 = other;
        }
        if self.flaw != Flaw::Silent {
            self.beds[VcpuId(state.0).index()].unpark();
        }
    }
}

impl Turns for Sketch {
    fn wait(&self, id: VcpuId) {
        while self.state.lock().0 != id.0 {
            self.beds[id.index()].park(None);
            if self.flaw == Flaw::Trusting {
                return;
            }
        }
    }

    fn pass(&self) {
        self.give_on(&mut self.state.lock());
    }

    fn leave(&self, id: VcpuId) {
        let mut state = self.state.lock();
        state.1[id.index()] = false;
        if self.flaw != Flaw::Leaves {
            self.give_on(&mut state);
        }
    }
}

/// (j) Two vCPUs take two turns each, one at a time, and both get theirs.
fn one_at_a_time<T: Turns>(turns: T) {
    let turns = Arc::new(turns);
    // Invisible to the checker: that it is one at a time is what it has to find.
    let running = Arc::new(PlainUsize::new(0));
    let vcpus = [VcpuId(0), VcpuId(1)].map(|id| {
        let (turns, running) = (Arc::clone(&turns), Arc::clone(&running));
        thread::spawn(move || {
            for _ in 0..2 {
                turns.wait(id);
                assert_eq!(running.fetch_add(1, Relaxed), 0, "two at a time");
                thread::yield_now();
                running.fetch_sub(1, Relaxed);
                turns.pass();
            }
            turns.wait(id);
            turns.leave(id);
        })
    });
    vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
}

fn lockstep(seed: u64) -> Lockstep {
    let lockstep = Lockstep::new(2, None);
    lockstep.begin(Iteration { number: 0, seed: Seed(seed) });
    lockstep
}

#[test]
fn one_vcpu_at_a_time_and_always_one() {
    // Several orders of the turns.
    for seed in 0..4 {
        explore::bounded(3, move || one_at_a_time(lockstep(seed)));
    }
}

#[test]
fn without_a_flaw_the_sketch_has_one_at_a_time() {
    explore::bounded(3, || one_at_a_time(Sketch::new(Flaw::None)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_nobody_is_woken_nobody_runs() {
    explore::bounded(3, || one_at_a_time(Sketch::new(Flaw::Silent)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_the_turn_goes_with_who_leaves_nobody_runs() {
    explore::bounded(3, || one_at_a_time(Sketch::new(Flaw::Leaves)));
}

#[test]
#[should_panic(expected = "two at a time")]
fn if_a_wake_up_is_taken_for_the_turn_two_run() {
    explore::bounded(3, || one_at_a_time(Sketch::new(Flaw::Trusting)));
}
