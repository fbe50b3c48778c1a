//! From one serial port to the host: when its output is taken, and what becomes of it. Part of the
//! device thread.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{DeviceControl, Phase, to_u64};
use crate::console::Output;
use crate::devices::serial::SerialPort;
use crate::devices::watch::WatchOutput;

/// Output is written when there is this much of it, ...
pub(super) const FLUSH_LEN: usize = 8192;
/// ... or when it has waited this long; with less than both only if no more is coming, so that
/// a prompt shows at once and a flood makes few write(2) calls: a real-mode guest fills
/// [`FLUSH_LEN`] in 70 ms.
pub(super) const FLUSH_AGE: Duration = Duration::from_millis(100);

/// See the module's text.
pub(super) struct Stream {
    output: Box<dyn Output>,
    /// It failed: from then on output is only counted.
    failed: bool,
    /// Output taken from the devices; empty between rounds, kept for its allocation.
    batch: Vec<u8>,
    /// Bytes written so far.
    written: u64,
    pacing: Pacing,
}

impl Stream {
    pub(super) fn new(output: Box<dyn Output>) -> Self {
        Self { output, failed: false, batch: Vec::new(), written: 0, pacing: Pacing::new() }
    }

    /// Takes the port's output if it is due, or `at_once`, and returns how much that is. Once a
    /// round, with the devices held.
    pub(super) fn take(&mut self, port: &mut SerialPort, at_once: bool, now: Instant) -> usize {
        let len = port.output_len();
        if self.pacing.is_due(len, now) || (at_once && len > 0) {
            port.take_output(&mut self.batch);
            self.pacing.waiting_len = 0;
        }
        self.batch.len()
    }

    /// Writes what was taken, and returns the error if that fails for the first time.
    pub(super) fn write(
        &mut self,
        control: &DeviceControl,
        watch: &mut impl WatchOutput,
    ) -> Option<io::Error> {
        let mut start = 0;
        let mut first_error = None;
        while start < self.batch.len() && !self.failed && !control.reached(Phase::Abandon) {
            let began = watch.now();
            match self.output.write(&self.batch[start..]) {
                Ok(count) => {
                    start += count;
                    control.written.fetch_add(to_u64(count), Ordering::Relaxed);
                    control.writes.fetch_add(1, Ordering::Relaxed);
                    watch.wrote(began, self.written, count);
                    self.written += to_u64(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    first_error = Some(error);
                }
            }
        }
        self.batch.clear();
        first_error
    }

    /// Whether the host has taken all that was written, or will not.
    pub(super) fn is_taken(&self) -> bool {
        self.failed || self.output.is_taken()
    }

    /// Takes back what it has not taken, and returns how much that is.
    pub(super) fn take_back(&mut self) -> u64 {
        self.output.take_back()
    }
}

/// What decides when to write.
#[derive(Debug)]
pub(super) struct Pacing {
    waiting_len: usize,
    waiting_since: Instant,
}

impl Pacing {
    pub(super) fn new() -> Self {
        Self { waiting_len: 0, waiting_since: Instant::now() }
    }

    /// Whether `len` bytes of output are to be written now. Asked once a round.
    pub(super) fn is_due(&mut self, len: usize, now: Instant) -> bool {
        if self.waiting_len == 0 {
            self.waiting_since = now;
        }
        let no_more_came = len == self.waiting_len;
        let due = len > 0
            && (len >= FLUSH_LEN
                || no_more_came
                || now.duration_since(self.waiting_since) >= FLUSH_AGE);
        self.waiting_len = if due { 0 } else { len };
        due
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("failed", &self.failed)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
