//! What other threads may ask of a vCPU's thread: to start, and to stop.
//!
//! A start is one command to all ([`StartGate`]), not a barrier that counts: a thread that
//! fails before it is ready would leave a barrier's others waiting for ever.
//!
//! A stop is a kick ([`VcpuControl`]): the request is published, then the vCPU is made to
//! leave the guest. Invariant: once [`VcpuControl::stop`] has returned, the vCPU's next look
//! at the request sees it, and a [`VcpuRun::run`](super::VcpuRun::run) that has begun, or
//! begins, returns. See docs/concurrency.md; the model checker runs it.

use std::fmt;

use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};
use crate::trace::ring::ExitRing;
use crate::vcpu::Kick;

/// A gate at which vCPU threads wait, ready to run, until they are all let go or sent home.
#[derive(Debug)]
pub struct StartGate {
    command: Mutex<Option<StartCommand>>,
    given: Condvar,
}

/// What the threads at a gate are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCommand {
    /// Run.
    Run,
    /// Another thread could not get ready: do not run.
    Abort,
}

impl StartGate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { command: Mutex::new(None), given: Condvar::new() }
    }

    /// Gives the command. The first one stays.
    pub fn give(&self, command: StartCommand) {
        self.command.lock().get_or_insert(command);
        self.given.notify_all();
    }

    /// Waits for the command.
    pub fn wait(&self) -> StartCommand {
        let mut command = self.command.lock();
        loop {
            if let Some(command) = *command {
                return command;
            }
            self.given.wait(&mut command);
        }
    }
}

impl Default for StartGate {
    fn default() -> Self {
        Self::new()
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
    pub exits: ExitRing,
}

impl VcpuControl {
    /// A vCPU that is not to stop and cannot be kicked yet.
    pub fn new() -> Self {
        Self { stop: AtomicBool::new(false), kicker: Mutex::new(None), exits: ExitRing::new() }
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
