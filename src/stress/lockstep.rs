//! Lockstep: one vCPU at a time runs, from one exit to the next, and the seed says which comes
//! next. A run can then be repeated, at the granularity of exits: between two exits nobody else
//! runs, so what a guest reads from memory depends on nothing but the order of the turns.
//!
//! A vCPU that waits for another one in a loop without an exit would wait for ever: after
//! [`QUANTUM`] one of those who wait for their turn interrupts it. Then the order depends on the
//! host's clock, and [`Lockstep::preemptions`] says so.
//!
//! Invariant: `turn` names the one vCPU that may run, none only if all have left. Only that vCPU
//! gives the turn on, in [`Lockstep::pass`] or [`Lockstep::leave`]; it stores the name with the
//! lock held and then wakes the new one, which looks at it under the lock before it sleeps. So
//! there is always one that runs, or is awake and about to.

use std::fmt;
use std::time::{Duration, Instant};

use rand_xoshiro::Xoshiro256PlusPlus;

use crate::exit::VcpuId;
use crate::stress::chaos::below;
use crate::stress::iteration::Iteration;
use crate::stress::purpose::Purpose;
use crate::sync::{Mutex, Parker};

/// How long a vCPU may run without an exit before another one gets its turn. Emulated code that
/// works for its exit takes a hundredth of it.
pub const QUANTUM: Duration = Duration::from_millis(20);

/// See the module's text.
pub struct Lockstep {
    state: Mutex<State>,
    beds: Box<[Parker]>,
    quantum: Option<Duration>,
}

struct State {
    random: Xoshiro256PlusPlus,
    /// Who runs.
    turn: Option<VcpuId>,
    /// How often the turn was given on.
    turns: u64,
    /// Those who still take part, in the order of their numbers.
    runnable: Vec<VcpuId>,
    /// The turn that was cut short last.
    preempted: u64,
    preemptions: u64,
}

impl State {
    fn choose(&mut self) {
        let count = u32::try_from(self.runnable.len()).unwrap_or(u32::MAX);
        let chosen = below(&mut self.random, count) as usize;
        self.turn = self.runnable.get(chosen).copied();
        self.turns += 1;
    }
}

impl Lockstep {
    /// For this many vCPUs; nobody runs before [`begin`](Self::begin). Without a quantum nobody is
    /// interrupted.
    pub fn new(vcpus: usize, quantum: Option<Duration>) -> Self {
        let random = Purpose::Lockstep.stream(Iteration::default());
        let state = State {
            random,
            turn: None,
            turns: 0,
            runnable: Vec::new(),
            preempted: 0,
            preemptions: 0,
        };
        let beds = (0..vcpus).map(|_| Parker::default()).collect();
        Self { state: Mutex::new(state), beds, quantum }
    }

    /// Names the calling thread as that of vCPU `id`.
    pub fn adopt(&self, id: VcpuId) {
        self.beds[id.index()].adopt();
    }

    /// An iteration begins: all take part, whether their threads have come or not. To be called
    /// while no vCPU runs.
    pub fn begin(&self, iteration: Iteration) {
        let mut state = self.state.lock();
        state.random = Purpose::Lockstep.stream(iteration);
        state.runnable = (0..).map(VcpuId).take(self.beds.len()).collect();
        state.preemptions = 0;
        state.choose();
    }

    /// Waits for vCPU `id`'s turn; false if `is_stopping` first. If the one that runs does not
    /// come to an exit, `preempt` is to get it out of the guest.
    pub fn wait(
        &self,
        id: VcpuId,
        is_stopping: impl Fn() -> bool,
        preempt: impl Fn(VcpuId),
    ) -> bool {
        let mut seen = None;
        loop {
            let mut state = self.state.lock();
            if is_stopping() {
                return false;
            }
            match state.turn {
                Some(turn) if turn == id => return true,
                Some(turn) if seen == Some(state.turns) && state.preempted != state.turns => {
                    state.preempted = state.turns;
                    state.preemptions += 1;
                    seen = None;
                    drop(state);
                    preempt(turn);
                    continue;
                }
                _ => {}
            }
            let turns = state.turns;
            drop(state);
            seen = self.sleep(id).then_some(turns);
        }
    }

    /// Sleeps for a quantum; whether it passed without a wake-up. A wake-up that comes too late
    /// for this is no harm: the state is looked at again.
    fn sleep(&self, id: VcpuId) -> bool {
        let began = Instant::now();
        self.beds[id.index()].park(self.quantum);
        self.quantum.is_some_and(|quantum| began.elapsed() >= quantum)
    }

    /// The vCPU whose turn it is has come to an exit: somebody else may run.
    pub fn pass(&self) {
        let mut state = self.state.lock();
        state.choose();
        self.wake(state.turn);
    }

    /// vCPU `id` takes no more part in this iteration.
    pub fn leave(&self, id: VcpuId) {
        let mut state = self.state.lock();
        state.runnable.retain(|other| *other != id);
        if state.turn == Some(id) {
            state.choose();
            self.wake(state.turn);
        }
    }

    fn wake(&self, id: Option<VcpuId>) {
        if let Some(bed) = id.and_then(|id| self.beds.get(id.index())) {
            bed.unpark();
        }
    }

    /// How often a vCPU was interrupted in this iteration because it came to no exit.
    pub fn preemptions(&self) -> u64 {
        self.state.lock().preemptions
    }
}

impl fmt::Debug for Lockstep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lockstep").field("vcpus", &self.beds.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
