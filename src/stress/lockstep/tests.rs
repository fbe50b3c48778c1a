use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::thread;

use super::*;
use crate::stress::seed::Seed;
use crate::testing::watched;

fn iteration(seed: u64) -> Iteration {
    Iteration { number: 0, seed: Seed(seed) }
}

/// Each of three vCPUs takes so many turns; the order in which they did.
fn turns(seed: u64, counts: [usize; 3]) -> Vec<u32> {
    watched(move || {
        let lockstep = Arc::new(Lockstep::new(3, Some(QUANTUM)));
        lockstep.begin(iteration(seed));
        let order = Arc::new(StdMutex::new(Vec::new()));
        let inside = Arc::new(AtomicUsize::new(0));
        let threads = [0, 1, 2].map(|id| {
            let (lockstep, order) = (Arc::clone(&lockstep), Arc::clone(&order));
            let inside = Arc::clone(&inside);
            let vcpu = VcpuId(id);
            thread::spawn(move || {
                lockstep.adopt(vcpu);
                for _ in 0..counts[vcpu.index()] {
                    assert!(lockstep.wait(vcpu, || false, |_| {}));
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                    order.lock().unwrap().push(id);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    lockstep.pass();
                }
                assert!(lockstep.wait(vcpu, || false, |_| {}));
                lockstep.leave(vcpu);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let order = order.lock().unwrap();
        order.clone()
    })
}

#[test]
fn one_at_a_time_in_an_order_that_the_seed_draws() {
    let counts = [30, 20, 10];
    let order = turns(1, counts);
    for (id, count) in (0..).zip(counts) {
        assert_eq!(order.iter().filter(|turn| **turn == id).count(), count);
    }
    assert_eq!(turns(1, counts), order);
    assert_ne!(turns(2, counts), order);
}

#[test]
fn one_that_does_not_come_back_is_interrupted() {
    watched(|| {
        let lockstep = Lockstep::new(2, Some(QUANTUM));
        // Whoever of the two has the turn does not take it.
        let seed = (0..).find(|seed| {
            lockstep.begin(iteration(*seed));
            lockstep.state.lock().turn == Some(VcpuId(1))
        });
        lockstep.adopt(VcpuId(0));
        let preempt = |id| {
            assert_eq!(id, VcpuId(1));
            lockstep.leave(id);
        };
        assert!(lockstep.wait(VcpuId(0), || false, preempt));
        assert_eq!(lockstep.preemptions(), 1);
        lockstep.begin(iteration(seed.unwrap()));
        assert_eq!(lockstep.preemptions(), 0, "of this iteration");
    });
}

#[test]
fn one_that_is_to_stop_does_not_wait_for_its_turn() {
    watched(|| {
        let lockstep = Lockstep::new(2, Some(QUANTUM));
        (0..).find(|seed| {
            lockstep.begin(iteration(*seed));
            lockstep.state.lock().turn == Some(VcpuId(1))
        });
        lockstep.adopt(VcpuId(0));
        let stop = AtomicBool::new(false);
        let is_stopping = || stop.swap(true, Ordering::SeqCst);
        assert!(!lockstep.wait(VcpuId(0), is_stopping, |_| {}));
    });
}
