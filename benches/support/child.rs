//! A program run as a user runs it, in a process of its own, with its output in a pipe.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A running program.
pub struct Running {
    child: Child,
    stdout: ChildStdout,
}

impl Running {
    /// Starts it, with no input. `Command` does it as posix_spawn(3) does, so that the size of
    /// this process does not count.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, stdout })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads so many bytes of its output.
    pub fn read(&mut self, count: usize) -> io::Result<()> {
        self.stdout.read_exact(&mut vec![0; count])
    }

    /// Reads the rest of its output and waits for its end.
    pub fn end(mut self) -> io::Result<(Vec<u8>, ExitStatus)> {
        let mut rest = Vec::new();
        self.stdout.read_to_end(&mut rest)?;
        Ok((rest, self.child.wait()?))
    }
}
