//! The start gate: vCPUs come to it, and the start is called off at any time.

use std::sync::Arc;

use loom::thread::{self, JoinHandle};
use minivmm::sync::{AtomicUsize, Condvar, Mutex, Ordering};
use minivmm::vcpu::state::{Arrival, Gate, StartCommand, StartGate};

use crate::explore;

/// A start gate, the product's or the sketch.
trait Start: Send + Sync + 'static {
    fn arrive(&self) -> Arrival;
    fn abort(&self);
}

impl Start for StartGate {
    fn arrive(&self) -> Arrival {
        self.arrive()
    }

    fn abort(&self) {
        self.abort();
    }
}

/// What can be wrong with a [`SketchedGate`].
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// The last command counts, not the first.
    LastCounts,
    /// Who comes last looks how many are missing, and counts itself, in two steps.
    CountsInTwo,
    /// Nobody is told.
    Silent,
}

/// The start gate again, with a flaw.
struct SketchedGate {
    flaw: Flaw,
    missing: AtomicUsize,
    command: Mutex<Option<StartCommand>>,
    given: Condvar,
}

impl SketchedGate {
    fn new(threads: usize, flaw: Flaw) -> Self {
        Self {
            flaw,
            missing: AtomicUsize::new(threads),
            command: Mutex::new(None),
            given: Condvar::new(),
        }
    }

    fn open(&self, command: StartCommand) -> bool {
        let mut given = self.command.lock();
        let first = given.is_none();
        if first || self.flaw == Flaw::LastCounts {
            *given = Some(command);
        }
        drop(given);
        if self.flaw != Flaw::Silent {
            self.given.notify_all();
        }
        first
    }
}

impl Start for SketchedGate {
    fn arrive(&self) -> Arrival {
        let missing = if self.flaw == Flaw::CountsInTwo {
            let missing = self.missing.load(Ordering::Acquire);
            self.missing.store(missing - 1, Ordering::Release);
            missing
        } else {
            self.missing.fetch_sub(1, Ordering::AcqRel)
        };
        let opened = missing == 1 && self.open(StartCommand::Run);
        let mut given = self.command.lock();
        loop {
            if let Some(command) = *given {
                return Arrival { command, opened };
            }
            self.given.wait(&mut given);
        }
    }

    fn abort(&self) {
        self.open(StartCommand::Abort);
    }
}

fn arrival<S: Start>(start: &Arc<S>) -> JoinHandle<Arrival> {
    let start = Arc::clone(start);
    thread::spawn(move || start.arrive())
}

/// (h) Nobody waits for ever, all vCPUs are told the same, and if that is to run, one of them
/// has opened the gate. `abort` begins with the vCPUs on their way.
fn all_are_told_the_same<S: Start>(start: S, abort: bool) {
    let start = Arc::new(start);
    let vcpus = [arrival(&start), arrival(&start)];
    if abort {
        start.abort();
    }
    let [first, second] = vcpus.map(|vcpu| vcpu.join().unwrap());
    assert_eq!(first.command, second.command, "told different things");
    let opened = [first, second].iter().filter(|arrival| arrival.opened).count();
    assert_eq!(opened, usize::from(first.command == StartCommand::Run), "opened");
}

#[test]
fn when_all_have_come_they_run() {
    explore::all(|| all_are_told_the_same(StartGate::new(2), false));
}

#[test]
fn called_off_or_not_all_are_told_the_same() {
    explore::bounded(4, || all_are_told_the_same(StartGate::new(2), true));
}

/// (h) With one that never comes, the others are sent home.
#[test]
fn a_vcpu_that_fails_leaves_nobody_waiting() {
    explore::all(|| {
        let start = Arc::new(StartGate::new(2));
        let vcpu = arrival(&start);
        start.abort();
        assert_eq!(vcpu.join().unwrap(), Arrival { command: StartCommand::Abort, opened: false });
    });
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
fn without_a_flaw_the_sketch_tells_all_the_same() {
    explore::bounded(3, || all_are_told_the_same(SketchedGate::new(2, Flaw::None), false));
    explore::bounded(3, || all_are_told_the_same(SketchedGate::new(2, Flaw::None), true));
}

#[test]
#[should_panic(expected = "told different things")]
fn if_the_last_command_counts_they_are_told_different_things() {
    explore::all(|| all_are_told_the_same(SketchedGate::new(2, Flaw::LastCounts), true));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_counting_takes_two_steps_nobody_is_the_last() {
    explore::all(|| all_are_told_the_same(SketchedGate::new(2, Flaw::CountsInTwo), false));
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_nobody_is_told_they_wait_for_ever() {
    explore::all(|| all_are_told_the_same(SketchedGate::new(2, Flaw::Silent), false));
}
