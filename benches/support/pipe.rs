//! A pipe as the guest's output, and a thread that reads it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::thread::{self, JoinHandle};

use minivmm::console::Output;

/// An output that is a pipe.
pub struct ToPipe(pub PipeWriter);

impl Output for ToPipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
}

/// A pipe with a thread that reads it to its end, and comes back with the number of bytes.
pub fn drained_pipe() -> io::Result<(PipeWriter, JoinHandle<io::Result<u64>>)> {
    let (reader, writer) = io::pipe()?;
    Ok((writer, thread::spawn(move || drain(reader))))
}

fn drain(mut pipe: PipeReader) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match pipe.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += u64::try_from(count).unwrap_or(u64::MAX),
        }
    }
}
