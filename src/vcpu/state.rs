//! What other threads may ask of a vCPU's thread: to stop, to end the round it runs (`rounds.rs`),
//! or just to leave the guest for a moment.
//!
//! Each is a kick ([`VcpuControl`]): the request is published, then the vCPU is made to leave the
//! guest. Invariant: once [`VcpuControl::stop`] has returned, the vCPU's next look at the request
//! sees it, and a [`VcpuRun::run`](super::VcpuRun::run) that has begun, or begins, returns. See
//! docs/concurrency.md; the model checker runs it.

use std::{fmt, mem};

use crate::sync::{Arc, AtomicBool, Mutex, Ordering, Parker};
use crate::trace::flight::FlightRecorder;
use crate::vcpu::Kick;

/// A gate at which threads wait until they are told how to go on. Each waits in a bed of its own,
/// as in `rounds.rs`.
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

/// The part of a vCPU that is shared between its thread and the others.
pub struct VcpuControl {
    /// Stored before the kick, which the vCPU's answer to it is ordered after.
    stop: AtomicBool,
    /// The same, for the end of a round: taken back when the next one begins.
    round_over: AtomicBool,
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
            round_over: AtomicBool::new(false),
            kicker: Mutex::new(None),
            exits: FlightRecorder::default(),
        }
    }

    /// Asks the vCPU to stop and makes it leave the guest.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.kick();
    }

    /// Asks the vCPU to end its round and makes it leave the guest.
    pub fn end_round(&self) {
        self.round_over.store(true, Ordering::Release);
        self.kick();
    }

    /// A round begins: of what was asked of the vCPU only the stop remains. To be called while
    /// nobody can end a round and the vCPU does not run. A stop that is asked for meanwhile is seen
    /// before the next entry, whether its kick is taken back with the others or not.
    pub fn begin_round(&self) {
        self.round_over.store(false, Ordering::Relaxed);
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.take_back();
        }
    }

    /// Makes the vCPU leave the guest, if it can be kicked yet; it goes back in by itself.
    pub fn kick(&self) {
        if let Some(kicker) = &*self.kicker.lock() {
            kicker.kick();
        }
        // With no kicker yet, the vCPU's thread takes this lock after us to publish it, and
        // then sees the request before it enters the guest for the first time.
    }

    /// Whether the vCPU is to leave its run loop; its thread asks before every entry into the
    /// guest.
    pub fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.round_over.load(Ordering::Acquire)
    }

    /// Whether it is to stop for good.
    pub fn is_stopping(&self) -> bool {
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
