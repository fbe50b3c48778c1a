//! What other threads may ask of a vCPU's thread: to start, and to stop.
//!
//! A start is one command to all ([`StartGate`]). The vCPU that is the last to get ready gives
//! it, which spares the boot two thread switches; a thread that fails before it is ready would
//! leave a plain barrier's others waiting for ever, so the supervisor can call the start off.
//!
//! A stop is a kick ([`VcpuControl`]): the request is published, then the vCPU is made to
//! leave the guest. Invariant: once [`VcpuControl::stop`] has returned, the vCPU's next look
//! at the request sees it, and a [`VcpuRun::run`](super::VcpuRun::run) that has begun, or
//! begins, returns. See docs/concurrency.md; the model checker runs it.

use std::{fmt, mem};

use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, Parker};
use crate::trace::flight::FlightRecorder;
use crate::vcpu::Kick;

/// A gate at which threads wait until they are told how to go on.
///
/// Each waits in a bed of its own. With one condition variable for all of them each would be
/// woken by the one before, as that gives back the mutex, and would have to wait for a CPU
/// behind all vCPUs that run already: with 254 vCPUs that spin on 2 CPUs the last one started
/// after 42 s.
#[derive(Debug)]
pub struct Gate<C> {
    state: Mutex<GateState<C>>,
}

#[derive(Debug)]
struct GateState<C> {
    command: Option<C>,
    beds: Vec<Arc<Parker>>,
}

impl<C: Copy> Gate<C> {
    /// A closed gate.
    pub fn new() -> Self {
        Self { state: Mutex::new(GateState { command: None, beds: Vec::new() }) }
    }

    /// Gives the command to all who wait and all who still come. The first one stays; returns
    /// whether it is this one.
    pub fn open(&self, command: C) -> bool {
        let mut state = self.state.lock();
        let first = state.command.is_none();
        state.command.get_or_insert(command);
        let beds = mem::take(&mut state.beds);
        drop(state);
        for bed in beds {
            bed.unpark();
        }
        first
    }

    /// How many threads wait here.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state.lock().beds.len()
    }

    /// Waits for the command.
    pub fn wait(&self) -> C {
        let bed = Arc::new(Parker::default());
        bed.adopt();
        let mut state = self.state.lock();
        if state.command.is_none() {
            state.beds.push(Arc::clone(&bed));
        }
        loop {
            if let Some(command) = state.command {
                return command;
            }
            drop(state);
            bed.park(None);
            state = self.state.lock();
        }
    }
}

impl<C: Copy> Default for Gate<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// The gate at which vCPU threads wait, ready to run, until they are all let go or sent home.
#[derive(Debug)]
pub struct StartGate {
    missing: AtomicUsize,
    gate: Gate<StartCommand>,
}

/// What the threads at the start gate are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCommand {
    /// Run.
    Run,
    /// Another thread could not get ready, or the start was called off: do not run.
    Abort,
}

/// What a thread that came to the start gate was told, and whether it came last and opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The command, the same for all.
    pub command: StartCommand,
    /// The gate opened for this thread's coming.
    pub opened: bool,
}

impl StartGate {
    /// A gate that opens when `threads` have come.
    pub fn new(threads: usize) -> Self {
        Self { missing: AtomicUsize::new(threads), gate: Gate::new() }
    }

    /// Comes to the gate and waits for the command. To be called once by each thread.
    pub fn arrive(&self) -> Arrival {
        let last = self.missing.fetch_sub(1, Ordering::AcqRel) == 1;
        let opened = last && self.gate.open(StartCommand::Run);
        Arrival { command: self.gate.wait(), opened }
    }

    /// Calls the start off, unless it has happened.
    pub fn abort(&self) {
        self.gate.open(StartCommand::Abort);
    }
}

/// The part of a vCPU that is shared between its thread and the others.
pub struct VcpuControl {
    /// Stored before the kick, which the vCPU's answer to it is ordered after.
    stop: AtomicBool,
    /// Present while the vCPU can be kicked. The lock is held across a kick, so that the vCPU
    /// and its thread outlive it.
    kicker: Mutex<Option<Box<dyn Kick>>>,
    /// Its last exits.
    pub exits: FlightRecorder,
}

impl VcpuControl {
    /// A vCPU that is not to stop and cannot be kicked yet.
    pub fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            kicker: Mutex::new(None),
            exits: FlightRecorder::default(),
        }
    }

    /// Asks the vCPU to stop and makes it leave the guest.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.kick();
        }
        // With no kicker yet, the vCPU's thread takes this lock after us to publish it, and
        // then sees the request before it enters the guest for the first time.
    }

    /// Whether the vCPU is to stop; its thread asks before every entry into the guest.
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The vCPU can be kicked from now until the value returned is dropped. Called by the
    /// vCPU's thread, which must drop it before the vCPU.
    pub fn publish(&self, kicker: Box<dyn Kick>) -> Published<'_> {
        *self.kicker.lock() = Some(kicker);
        Published { control: self }
    }
}

impl Default for VcpuControl {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for VcpuControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VcpuControl").field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// While this exists, the vCPU can be kicked.
#[derive(Debug)]
#[must_use]
pub struct Published<'a> {
    control: &'a VcpuControl,
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        *self.control.kicker.lock() = None;
    }
}
