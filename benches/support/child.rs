//! A program run as a user runs it, in a process of its own, with its output in a pipe.

use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

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
    #[allow(dead_code, reason = "not every benchmark does")]
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

/// Runs a command; its VmHWM at its end. (wait4's ru_maxrss begins with the size of the parent.)
#[allow(dead_code, reason = "not every benchmark asks for it")]
pub fn peak_kib(mut command: Command) -> Result<f64, Box<dyn Error>> {
    loop {
        let program = Running::start(&mut command)?;
        let pid = Pid::from_raw(i32::try_from(program.id())?);
        // Stopped at its exit, it still has its memory.
        let stops = ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).is_ok()
            && matches!(waitpid(pid, None)?, WaitStatus::PtraceEvent(..));
        if stops {
            let peak = vm_hwm(&fs::read_to_string(format!("/proc/{pid}/status"))?);
            ptrace::detach(pid, None)?;
            program.end()?;
            return peak.ok_or("no VmHWM".into());
        }
        // It was over before we were there.
        program.end()?;
    }
}

fn vm_hwm(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
