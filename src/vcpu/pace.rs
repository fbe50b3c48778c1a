//! What keeps a vCPU from just going on: the perturbations of chaos, and the turns of lockstep. The
//! run loop asks before each entry into the guest and after each exit; without a campaign that
//! wants it there is none of this.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::VcpuId;
use crate::stress::chaos::{Chaos, Perturbation};
use crate::stress::iteration::Iteration;
use crate::stress::lockstep::Lockstep;
use crate::vcpu::state::VcpuControl;

/// See the module's text.
#[derive(Debug)]
pub struct Pace<'a> {
    /// Its perturbations.
    pub chaos: Option<Chaos>,
    /// The turns.
    pub lockstep: Option<&'a Lockstep>,
    /// Those of all vCPUs.
    pub controls: &'a [Arc<VcpuControl>],
}

/// What a vCPU does before it enters the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It enters.
    Enter,
    /// It serves the devices first.
    Help,
    /// It was told to stop while it waited.
    Stop,
}

impl Pace<'_> {
    /// An iteration begins.
    pub fn begin(&mut self, iteration: Iteration) {
        if let Some(chaos) = &mut self.chaos {
            chaos.begin(iteration);
        }
    }

    /// Waits for the vCPU's turn, and disturbs it if that is drawn.
    pub fn before_entry(&mut self, id: VcpuId) -> Next {
        if let Some(lockstep) = self.lockstep {
            let is_stopping = || self.controls[id.index()].stop_requested();
            if !lockstep.wait(id, is_stopping, |other| self.kick(other)) {
                return Next::Stop;
            }
        }
        match self.chaos.as_mut().and_then(Chaos::draw) {
            Some(Perturbation::Delay(time)) => spin(time),
            Some(Perturbation::Pause(time)) => thread::sleep(time),
            Some(Perturbation::Kick(other)) => self.kick(other),
            Some(Perturbation::Help) => return Next::Help,
            None => {}
        }
        Next::Enter
    }

    /// The vCPU has handled an exit.
    pub fn after_exit(&self) {
        if let Some(lockstep) = self.lockstep {
            lockstep.pass();
        }
    }

    /// How often it was disturbed in this iteration.
    pub fn perturbations(&self) -> u64 {
        self.chaos.as_ref().map_or(0, Chaos::drawn)
    }

    fn kick(&self, id: VcpuId) {
        if let Some(control) = self.controls.get(id.index()) {
            control.kick();
        }
    }
}

fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}
