//! What hangs is shown, with all its threads, and aborted.

use std::fmt::Write as _;
use std::fs;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use minivmm::sync::Mutex;

use crate::support;

/// How long a round may take. None takes a tenth of it on a host that is not overloaded.
const LIMIT: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(1);

/// What is going on, and since when.
static WATCHED: Mutex<Option<(String, Instant)>> = Mutex::new(None);

/// Starts to watch, for as long as the process lives.
pub fn start() {
    let (sender, started) = mpsc::channel();
    let watch = move || {
        sender.send(()).unwrap();
        watch()
    };
    thread::Builder::new().name("watchdog".into()).spawn(watch).unwrap();
    // It has its name by now, by which it is known.
    started.recv().unwrap();
}

fn watch() -> ! {
    loop {
        thread::park_timeout(LOOK);
        let watched = WATCHED.lock().clone();
        if let Some((what, since)) = watched
            && since.elapsed() > LIMIT
        {
            let mut text = format!("{what} hangs:\n{}", support::threads_of(process::id()));
            for child in children() {
                let _ = write!(text, "child {child}:\n{}", support::threads_of(child));
            }
            eprint!("{text}");
            process::abort();
        }
    }
}

fn children() -> Vec<u32> {
    let lists = fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    let lists = lists.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let text = lists.collect::<Vec<_>>().join(" ");
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// While this exists, its end is expected.
pub struct Watched(());

/// Something begins that is to end soon.
pub fn expect_soon(what: String) -> Watched {
    *WATCHED.lock() = Some((what, Instant::now()));
    Watched(())
}

impl Drop for Watched {
    fn drop(&mut self) {
        *WATCHED.lock() = None;
    }
}
