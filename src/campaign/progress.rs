//! How far a campaign is, and what has failed, for the user: a bar on a terminal, a line from time
//! to time elsewhere. On a thread of its own, since whoever reads standard error may take his time,
//! or not read at all, while the VMs have to be watched over.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::campaign::ledger::Ledger;

/// How often it is looked what is new.
const LOOK: Duration = Duration::from_millis(100);
/// How long whoever reads standard error may take at an end from outside.
const GRACE: Duration = Duration::from_millis(300);
/// The distance of the lines.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Teller(JoinHandle<()>);

impl Teller {
    /// Tells of a campaign of so many iterations, if that is known.
    ///
    /// # Errors
    ///
    /// The host has no thread to give.
    pub(super) fn start(ledger: Arc<Ledger>, total: Option<u64>, quiet: bool) -> io::Result<Self> {
        let tell = move || {
            let mut progress = Progress::new(total, quiet);
            loop {
                // Asked first: what comes later is not the last.
                let is_over = ledger.is_over();
                for story in ledger.take_stories() {
                    progress.say(&format!("minivmm: {story}"));
                }
                if is_over {
                    return progress.finish();
                }
                let (run, failed) = ledger.progress();
                progress.show(run, failed);
                thread::park_timeout(LOOK);
            }
        };
        thread::Builder::new().name("progress".into()).spawn(tell).map(Self)
    }

    /// The ledger is closed: waits until all is told, or, if somebody outside wanted the end, only
    /// for a short grace.
    pub(super) fn finish(self, hurry: bool) {
        self.0.thread().unpark();
        let began = Instant::now();
        while hurry && !self.0.is_finished() {
            if began.elapsed() >= GRACE {
                return;
            }
            thread::sleep(GRACE / 100);
        }
        // A panic of it was printed.
        let _ = self.0.join();
    }
}

/// On standard error.
#[derive(Debug)]
enum Progress {
    Bar(ProgressBar),
    Lines { total: Option<u64>, started: Instant, last: Instant },
    Silent,
}

impl Progress {
    /// For so many iterations, if that is known.
    fn new(total: Option<u64>, quiet: bool) -> Self {
        if quiet {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            let now = Instant::now();
            return Self::Lines { total, started: now, last: now };
        }
        let target = ProgressDrawTarget::stderr_with_hz(8);
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{wide_bar} {pos}/{len} {msg} {per_sec} ETA {eta}",
            None => "{spinner} {pos} iterations {msg} {per_sec} {elapsed}",
        };
        // The templates are right, as a test sees.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key(
                "per_sec",
                |state: &ProgressState, out: &mut dyn fmt::Write| {
                    let _ = write!(out, "{:.0}/s", state.per_sec());
                },
            ));
        }
        Self::Bar(bar)
    }

    /// So many are over, and so many of them have failed.
    fn show(&mut self, run: u64, failed: u64) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => {
                bar.set_message(format!("{failed} failed"));
                bar.set_position(run);
            }
            Self::Lines { total, started, last } => {
                if last.elapsed() >= LINE_PERIOD {
                    *last = Instant::now();
                    let line = line(*total, run, failed, started.elapsed());
                    let _ = writeln!(std::io::stderr(), "minivmm: {line}");
                }
            }
        }
    }

    /// Writes `text` to standard error, beside the bar.
    fn say(&self, text: &str) {
        let write = || {
            let _ = std::io::stderr().write_all(text.as_bytes());
        };
        match self {
            Self::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    /// The end: a bar goes.
    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(total: Option<u64>, run: u64, failed: u64, took: Duration) -> String {
    // For people: a rate is exact to far more digits than are shown.
    #[allow(clippy::cast_precision_loss)]
    let rate = run as f64 / took.as_secs_f64().max(1e-9);
    let Some(total) = total else {
        return format!("{run} iterations, {failed} failed, {rate:.0}/s");
    };
    #[allow(clippy::cast_precision_loss)]
    let left = total.saturating_sub(run) as f64 / rate.max(1e-9);
    let left = Duration::try_from_secs_f64(left.round()).unwrap_or(Duration::MAX);
    let left = humantime::format_duration(left);
    format!("{run} of {total} iterations, {failed} failed, {rate:.0}/s, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let took = Duration::from_secs(10);
        assert_eq!(
            line(Some(1000), 100, 2, took),
            "100 of 1000 iterations, 2 failed, 10/s, 1m 30s left"
        );
        assert_eq!(line(None, 100, 0, took), "100 iterations, 0 failed, 10/s");
        assert!(line(Some(u64::MAX), 0, 0, Duration::ZERO).contains("left"));
    }

    #[test]
    fn the_templates_are_right() {
        for total in [Some(3), None] {
            let bar = Progress::new(total, false);
            bar.say("");
            bar.finish();
        }
    }
}
