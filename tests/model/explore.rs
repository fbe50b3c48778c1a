//! How a scenario is explored, and how many interleavings that were.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Runs `scenario` in every interleaving of its threads.
pub fn all(scenario: impl Fn() + Send + Sync + 'static) {
    run(None, scenario);
}

/// Runs `scenario` in every interleaving that takes the processor away from a thread which
/// could have gone on at most `preemptions` times; for scenarios that have too many to run
/// them all. The environment's `LOOM_MAX_PREEMPTIONS` goes before.
pub fn bounded(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    run(Some(preemptions), scenario);
}

fn run(bound: Option<usize>, scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(bound);
    let count = Count { interleavings: Arc::default(), bound: builder.preemption_bound };
    let interleavings = Arc::clone(&count.interleavings);
    builder.check(move || {
        interleavings.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
}

/// Says at the end, however it comes, how many interleavings there were.
struct Count {
    interleavings: Arc<AtomicUsize>,
    bound: Option<usize>,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interleavings, ", self.interleavings.load(Ordering::Relaxed))?;
        match self.bound {
            Some(bound) => write!(f, "up to {bound} preemptions"),
            None => write!(f, "exhaustive"),
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let end = if thread::panicking() { "an error after" } else { "no error in" };
        println!("{}: {end} {self}", thread::current().name().unwrap_or_default());
    }
}
