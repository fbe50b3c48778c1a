//! The checker itself: that the atomics of `sync.rs` make up for two shortcomings of loom 0.7.
//! Where a test shows that loom alone falls short, its failure will be good news.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use loom::thread;
use minivmm::sync::{AtomicUsize, Ordering};

use crate::explore;

/// All results that `scenario` can have.
fn results<R: Ord + Send + 'static>(scenario: fn() -> R) -> BTreeSet<R> {
    let results = Arc::new(Mutex::new(BTreeSet::new()));
    let found = Arc::clone(&results);
    explore::all(move || {
        let result = scenario();
        found.lock().unwrap().insert(result);
    });
    Arc::into_inner(results).unwrap().into_inner().unwrap()
}

/// What a load sees of a thread that loads and then stores.
macro_rules! load_beside_load_and_store {
    ($atomic:ty) => {
        || {
            let atomic = Arc::new(<$atomic>::default());
            let thread = thread::spawn({
                let atomic = Arc::clone(&atomic);
                move || {
                    let value = atomic.load(Ordering::Relaxed);
                    atomic.store(value + 1, Ordering::Relaxed);
                }
            });
            let seen = atomic.load(Ordering::Relaxed);
            thread.join().unwrap();
            seen
        }
    };
}

#[test]
fn a_load_is_tried_before_and_after_a_store() {
    assert_eq!(results(load_beside_load_and_store!(AtomicUsize)), [0, 1].into());
}

#[test]
fn loom_alone_tries_one_of_the_two() {
    type Plain = loom::sync::atomic::AtomicUsize;
    assert_eq!(results(load_beside_load_and_store!(Plain)), [0].into());
}

/// What a swap beside two stores returns, and what is left in the end.
macro_rules! swap_beside_stores {
    ($atomic:ty) => {
        || {
            let atomic = Arc::new(<$atomic>::default());
            let thread = thread::spawn({
                let atomic = Arc::clone(&atomic);
                move || atomic.swap(true, Ordering::Relaxed)
            });
            atomic.store(true, Ordering::Relaxed);
            atomic.store(false, Ordering::Relaxed);
            let swapped = thread.join().unwrap();
            (swapped, atomic.load(Ordering::Relaxed))
        }
    };
}

/// (false, true): after both stores; (true, false): between the two; (false, false): before
/// both. A swap between the two cannot be the last.
const SWAPS: [(bool, bool); 3] = [(false, true), (true, false), (false, false)];

#[test]
fn nothing_comes_between_the_halves_of_a_swap() {
    let results = results(swap_beside_stores!(minivmm::sync::AtomicBool));
    assert_eq!(results, SWAPS.into());
}

#[test]
fn loom_alone_lets_a_store_come_between() {
    let results = results(swap_beside_stores!(loom::sync::atomic::AtomicBool));
    assert!(results.contains(&(true, true)), "{results:?}");
}
