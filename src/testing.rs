//! What tests of threads have in common: they wait for what is certain to come, and fail rather
//! than hang if it does not.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// What takes longer than this hangs. Nothing here takes a tenth of it on a host that is not
/// overloaded.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `run` on a thread of its own; fails the test if it does not return.
pub(crate) fn watched<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Nobody listens any more if it was given up.
        let _ = done.send(run());
    });
    let result = result.recv_timeout(WATCHDOG);
    assert!(!matches!(result, Err(RecvTimeoutError::Timeout)), "a thread hangs");
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
    result.unwrap()
}

/// Lets others run until `condition` holds.
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WATCHDOG, "waited in vain");
        thread::yield_now();
    }
}
