//! How the boot vCPU comes last: the others are let run first, and the last of them to be about to
//! enter the guest lets it run.

use std::sync::Arc;

use loom::thread;
use minivmm::exit::VcpuId;
use minivmm::sync::{AtomicU64, Ordering};
use minivmm::vcpu::rounds::{BOOT_VCPU, Rounds};
use minivmm::vcpu::state::VcpuControl;

use crate::explore;

const OTHERS: [VcpuId; 2] = [VcpuId(1), VcpuId(2)];

/// Says on the others' behalf that they are about to enter the guest; the product's way or another.
type WaitInGuest = fn(&Rounds<()>, &AtomicU64, VcpuId, u64);

/// Three vCPUs and a round; the boot vCPU looks who waits in the guest when it is let run.
fn boot_vcpu_comes_last(wait_in_guest: WaitInGuest) {
    let controls = [(); 3].map(|()| minivmm::sync::Arc::new(VcpuControl::new()));
    let rounds = Arc::new(Rounds::<()>::new(controls));
    let count = Arc::new(AtomicU64::new(0));
    // In which round the others have come to the guest.
    let in_guest = Arc::new([(); 2].map(|()| AtomicU64::new(0)));
    let others = OTHERS.map(|id| {
        let (rounds, count) = (Arc::clone(&rounds), Arc::clone(&count));
        let in_guest = Arc::clone(&in_guest);
        thread::spawn(move || {
            rounds.adopt(id);
            in_guest[id.index() - 1].store(1, Ordering::Relaxed);
            wait_in_guest(&rounds, &count, id, 1);
        })
    });
    rounds.adopt(BOOT_VCPU);
    assert!(rounds.wait(BOOT_VCPU, 1));
    for came in &*in_guest {
        assert_eq!(came.load(Ordering::Relaxed), 1, "the boot vCPU runs before another");
    }
    others.into_iter().for_each(|other| other.join().unwrap());
}

/// (j) It runs, and after all others.
#[test]
fn the_boot_vcpu_runs_after_all_others() {
    explore::all(|| boot_vcpu_comes_last(|rounds, _, id, round| rounds.wait_in_guest(id, round)));
}

#[test]
#[should_panic(expected = "before another")]
fn if_any_other_vcpu_may_let_it_run_it_comes_too_early() {
    explore::all(|| boot_vcpu_comes_last(|rounds, _, _, round| rounds.let_run(BOOT_VCPU, round)));
}

#[test]
#[should_panic(expected = "before another")]
fn if_the_count_orders_nothing_it_sees_only_the_last_of_them() {
    explore::all(|| {
        boot_vcpu_comes_last(|rounds, count, _, round| {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == 2 * round {
                rounds.let_run(BOOT_VCPU, round);
            }
        });
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn if_the_count_is_two_steps_nobody_is_the_last() {
    explore::all(|| {
        boot_vcpu_comes_last(|rounds, count, _, round| {
            let others = count.load(Ordering::SeqCst) + 1;
            count.store(others, Ordering::SeqCst);
            if others == 2 * round {
                rounds.let_run(BOOT_VCPU, round);
            }
        });
    });
}
