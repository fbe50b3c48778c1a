//! A guest's serial console, read and typed at while the guest runs.

use std::io::{Read, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Finished, Running};

/// What no guest should take: the time in which any of them is done on a slow, busy host, several
/// times over.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// How much of the output a failure shows.
const SHOWN: usize = 4096;

/// A guest and what it has printed.
pub struct Console {
    running: Running,
    keys: ChildStdin,
    output: ChildStdout,
    printed: Vec<u8>,
}

impl Console {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        let mut running = Running::start_within(LIMIT, command);
        let (keys, output) = (running.stdin(), running.stdout());
        Self { running, keys, output, printed: Vec::new() }
    }

    /// Waits until what has been printed is as `found` wants it.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, found: impl Fn(&[u8]) -> Option<T>) -> T {
        let mut chunk = [0; 4096];
        loop {
            if let Some(found) = found(&self.printed) {
                return found;
            }
            match self.output.read(&mut chunk).unwrap() {
                0 => panic!("the end, and no {what} in: {}", self.tail()),
                len => self.printed.extend(&chunk[..len]),
            }
        }
    }

    /// Waits until `text` has been printed, at `from` or behind it; returns where it ends.
    #[track_caller]
    pub fn wait_for_text(&mut self, from: usize, text: &str) -> usize {
        self.wait_for(text, |printed| {
            let behind = printed.get(from..)?;
            let at = behind.windows(text.len()).position(|window| window == text.as_bytes())?;
            Some(from + at + text.len())
        })
    }

    /// Types at the guest's console.
    pub fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Ends the guest, which would go on for ever.
    pub fn terminate(self) -> Finished {
        self.running.signal(Signal::SIGTERM);
        self.finish()
    }

    /// Waits for the end; all that was printed is in the result.
    pub fn finish(mut self) -> Finished {
        self.output.read_to_end(&mut self.printed).unwrap();
        Finished { stdout: self.printed, ..self.running.finish() }
    }

    fn tail(&self) -> String {
        let start = self.printed.len().saturating_sub(SHOWN);
        self.printed[start..].escape_ascii().to_string()
    }
}
