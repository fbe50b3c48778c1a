//! The part of chaos that comes from outside: a thread for each VM that kicks its vCPUs at moments
//! which the iteration's seed draws, so that a guest without exits is disturbed, too.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::campaign::ledger::Ledger;
use crate::stress::chaos;
use crate::vmm::RoundHandle;

/// How often it is looked whether the campaign goes on.
const LOOK: Duration = Duration::from_millis(20);

/// Kicks the vCPUs of a VM, on average once a `period`, until the campaign ends.
pub(super) fn kick(
    ledger: &Arc<Ledger>,
    vm: usize,
    vcpus: u32,
    handle: &RoundHandle,
    period: Duration,
) {
    while !ledger.is_over() {
        let round = ledger.running(vm);
        let drawn = chaos::draw_kicks(round.iteration, vcpus, period);
        for (wait, vcpu) in drawn {
            let is_over = || ledger.running(vm).round != round.round || ledger.is_over();
            if wait_or(wait, is_over) {
                break;
            }
            handle.kick(vcpu);
        }
    }
}

/// Waits for `time`; true, and sooner, if `is_over`.
fn wait_or(time: Duration, is_over: impl Fn() -> bool) -> bool {
    let until = Instant::now() + time;
    loop {
        if is_over() {
            return true;
        }
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(LOOK)),
            _ => return false,
        }
    }
}
