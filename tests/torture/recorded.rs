//! A campaign that keeps what its iterations come to.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use minivmm::stress::iteration::Iteration;
use minivmm::stress::seed::Seed;
use minivmm::sync::Mutex;
use minivmm::vcpu::campaign::{Campaign, Finished};

use crate::draw::Draw;

/// See the module's text.
#[derive(Debug)]
pub struct Recorded {
    iterations: u64,
    seed: Seed,
    next: AtomicU64,
    finished: Mutex<Vec<Finished>>,
}

impl Recorded {
    pub fn new(iterations: u64, draw: &mut Draw) -> Self {
        let seed = Seed(draw.number(0..=u64::MAX - 1));
        Self { iterations, seed, next: AtomicU64::new(0), finished: Mutex::default() }
    }

    pub fn take_finished(&self) -> Vec<Finished> {
        mem::take(&mut *self.finished.lock())
    }
}

impl Campaign for Recorded {
    fn next(&self, _: usize) -> Option<Iteration> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seed = self.seed.iteration(number);
        (number < self.iterations).then_some(Iteration { number, seed })
    }

    fn finished(&self, _: usize, finished: Finished) {
        self.finished.lock().push(finished);
    }
}
