//! Rounds: the vCPUs of a VM start together, run the guest until each has come to its end, and,
//! if there is another round, do it again, on the same threads.
//!
//! Between rounds every thread comes to the turnstile ([`Rounds::arrive`]). The last one finds
//! all others there, makes what the next round needs, alone, and opens the turnstile
//! ([`Rounds::open`]); so a VM with one vCPU goes from round to round without a thread switch. The
//! start of the first round is the same, with nothing to make. A thread that fails before it has
//! come would leave the others waiting for ever: the supervisor closes the turnstile, which sends
//! all home.
//!
//! Each thread waits in a bed of its own. With one condition variable for all of them each would
//! be woken by the one before, as that gives back the mutex, and would have to wait for a CPU
//! behind all vCPUs that run already: with 254 vCPUs that spin on 2 CPUs the last one started
//! after 42 s.
//!
//! Invariants. `state.missing` counts the threads that have not come since the last opening; only
//! who brings it to 0 opens, and nobody comes again before that. A seat's `may_run` only grows, and
//! only after the state says so; a thread runs round n once its `may_run` is n or more. Whatever
//! ends a round early ([`Rounds::end`]) does so with the state's lock held and somebody missing: so
//! its kicks are over before the last one comes. A vCPU that has ended may still be kicked, for
//! that or by chaos; whoever opens the next round takes all kicks back, while nobody runs. Where
//! only the boot vCPU starts by itself, the others are let run first and the last of them lets the
//! boot vCPU ([`Rounds::wait_in_guest`]). The model checker runs it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::exit::VcpuId;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, Parker};
use crate::vcpu::state::VcpuControl;

/// See the module's text. `E` is what a thread brings from its round.
pub struct Rounds<E> {
    state: Mutex<State<E>>,
    seats: Box<[Seat]>,
    /// How often a vCPU other than the boot vCPU was about to enter the guest, in all rounds, where
    /// they wait for the boot vCPU.
    waiting: AtomicU64,
    /// There are no more rounds.
    closed: AtomicBool,
}

/// The vCPU that starts by itself where the others wait for INIT and SIPI.
pub const BOOT_VCPU: VcpuId = VcpuId(0);

struct State<E> {
    /// Rounds opened so far.
    opened: u64,
    /// Threads that have not come since.
    missing: usize,
    /// What those who have come bring, by vCPU.
    brought: Vec<Option<E>>,
    /// How many vCPUs have ended in this round.
    ended: u64,
    /// Somebody outside has ended the round.
    cut: bool,
}

/// One vCPU's place.
struct Seat {
    control: Arc<VcpuControl>,
    bed: Parker,
    /// The last round that it may run.
    may_run: AtomicU64,
}

/// What those who have come bring, for the last one.
#[derive(Debug)]
pub struct Brought<E> {
    /// One of each vCPU, by index.
    pub ends: Vec<E>,
    /// The round was ended from outside.
    pub cut: bool,
}

impl<E> Rounds<E> {
    /// Rounds for vCPUs with these controls. Nobody runs before all have come.
    pub fn new(controls: impl IntoIterator<Item = Arc<VcpuControl>>) -> Self {
        let seat = |control| Seat { control, bed: Parker::default(), may_run: AtomicU64::new(0) };
        let seats: Box<[Seat]> = controls.into_iter().map(seat).collect();
        let state = State {
            opened: 0,
            missing: seats.len(),
            brought: seats.iter().map(|_| None).collect(),
            ended: 0,
            cut: false,
        };
        let waiting = AtomicU64::new(0);
        Self { state: Mutex::new(state), seats, waiting, closed: AtomicBool::new(false) }
    }

    /// Names the calling thread as that of vCPU `id`; to be called before it comes here.
    pub fn adopt(&self, id: VcpuId) {
        self.seats[id.index()].bed.adopt();
    }

    /// Comes to the turnstile with `end`. The last one gets what all have brought, and must open
    /// or close the turnstile; then all, it too, [`wait`](Self::wait).
    pub fn arrive(&self, id: VcpuId, end: E) -> Option<Brought<E>> {
        let mut state = self.state.lock();
        state.brought[id.index()] = Some(end);
        state.missing -= 1;
        (state.missing == 0).then(|| Brought {
            ends: state.brought.iter_mut().filter_map(Option::take).collect(),
            cut: state.cut,
        })
    }

    /// Opens the turnstile for a new round. To be called by the last one to come, who then lets
    /// the vCPUs run ([`let_run`](Self::let_run)).
    pub fn open(&self) {
        let mut state = self.state.lock();
        state.opened += 1;
        state.missing = self.seats.len();
        state.ended = 0;
        state.cut = false;
        for seat in &self.seats {
            seat.control.begin_round();
        }
    }

    /// Lets vCPU `id` run the round that was opened last. For a thread that runs it, or opened it.
    pub fn let_run(&self, id: VcpuId, round: u64) {
        if let Some(seat) = self.seats.get(id.index()) {
            seat.may_run.store(round, Ordering::Release);
            seat.bed.unpark();
        }
    }

    /// vCPU `id` is about to enter the guest, where it waits for the boot vCPU: the last one lets
    /// the boot vCPU run `round`. Nobody else does, so it comes after all of them.
    pub fn wait_in_guest(&self, id: VcpuId, round: u64) {
        let others = self.seats.len() as u64 - 1;
        if id == BOOT_VCPU {
            return;
        }
        // Each of the others counts once in each round. Acquire and release: what each of them has
        // done before is done for the boot vCPU, and not only what the last of them has.
        if self.waiting.fetch_add(1, Ordering::AcqRel) + 1 == round * others {
            self.let_run(BOOT_VCPU, round);
        }
    }

    /// Waits on the CPU, for `limit` at most: for one that has a CPU of its own, and whose wait is
    /// shorter than a wake-up. Then comes [`wait`](Self::wait).
    pub fn spin(&self, id: VcpuId, round: u64, limit: Duration) {
        let seat = &self.seats[id.index()];
        let began = Instant::now();
        while seat.may_run.load(Ordering::Acquire) < round
            && !self.is_closed()
            && began.elapsed() < limit
        {
            std::hint::spin_loop();
        }
    }

    /// Waits until vCPU `id` may run `round`, counted from 1; false if there are no more rounds.
    pub fn wait(&self, id: VcpuId, round: u64) -> bool {
        let seat = &self.seats[id.index()];
        loop {
            // First: one that was let run has begun its round, and says so when it is stopped.
            if seat.may_run.load(Ordering::Acquire) >= round {
                return true;
            }
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            seat.bed.park(None);
        }
    }

    /// No more rounds: all who wait, and all who still come, are sent home.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for seat in &self.seats {
            seat.bed.unpark();
        }
    }

    /// Whether there are no more rounds.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A vCPU has ended in this round; the order of the ends counts from 0. If its end is that of
    /// the whole round, the others are told to come.
    pub fn note_end(&self, id: VcpuId, ends_round: bool) -> u64 {
        let mut state = self.state.lock();
        let order = state.ended;
        state.ended += 1;
        if ends_round {
            self.tell_all(&state, Some(id));
        }
        order
    }

    /// Ends `round` from outside, if it is still going on.
    pub fn end(&self, round: u64) {
        let mut state = self.state.lock();
        if state.opened == round && state.missing > 0 {
            state.cut = true;
            self.tell_all(&state, None);
        }
    }

    /// The lock is held: see the invariants.
    fn tell_all(&self, _: &MutexGuard<'_, State<E>>, but: Option<VcpuId>) {
        for (id, seat) in (0..).map(VcpuId).zip(&self.seats) {
            if Some(id) != but {
                seat.control.end_round();
            }
        }
    }

    /// The control of a vCPU.
    pub fn control(&self, id: VcpuId) -> Option<&VcpuControl> {
        self.seats.get(id.index()).map(|seat| &*seat.control)
    }

    /// How many vCPUs there are.
    pub fn vcpus(&self) -> usize {
        self.seats.len()
    }
}

impl<E> fmt::Debug for Rounds<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds").field("closed", &self.closed).finish_non_exhaustive()
    }
}
