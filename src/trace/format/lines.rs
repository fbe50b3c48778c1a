//! A trace's lines, one at a time: where each begins, and whether the last one is whole.

use std::io::{BufRead, Read};

use super::error::{Fault, TraceProblem};

/// More than the longest line, in bytes, so that a file without line ends does not fill the
/// memory. A line with every field takes less than 1 KiB without its symbol, the guest's path and
/// the filter.
const MAX_LINE: u64 = 256 * 1024;

/// Reads lines.
pub(super) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    start: u64,
    end: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0, start: 0, end: 0 }
    }

    /// The next whole line, without its end; `None` if there is none. What comes after the last
    /// line end is no whole line: the writer was stopped in the middle of it.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        self.line.clear();
        self.number += 1;
        self.start = self.end;
        if let Err(error) = (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut self.line) {
            return Err(self.fault(error));
        }
        if self.line.last() == Some(&b'\n') {
            self.end += self.line.len() as u64;
            return Ok(Some(self.last()));
        }
        if self.line.len() as u64 == MAX_LINE {
            return Err(self.fault(TraceProblem::LongLine));
        }
        Ok(None)
    }

    /// The line that was read last, or the part of one at the end of the file.
    pub fn last(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Where the last whole line ends, in bytes from the beginning of the file.
    pub fn offset(&self) -> u64 {
        self.end
    }

    /// Whether nothing follows the last whole line. Waits for what does, if it is a pipe.
    pub fn at_end(&mut self) -> Result<bool, Fault> {
        let rest = self.input.fill_buf().map(<[u8]>::is_empty);
        rest.map_err(|error| Fault::new(error, self.end))
    }

    /// A problem with the line that was read last.
    pub fn fault(&self, problem: impl Into<TraceProblem>) -> Fault {
        Fault::in_line(problem, self.start, self.number)
    }

    /// Why a file that ends within its first line is none of ours, or which part of ours it is.
    pub fn cut_header(&self, start: &str) -> Fault {
        let line = self.last();
        if line.starts_with(start.as_bytes()) || start.as_bytes().starts_with(line) {
            Fault::new(TraceProblem::CutHeader, self.start + line.len() as u64)
        } else {
            self.fault(TraceProblem::NotATrace)
        }
    }
}
