//! What the tests of the binary share: starting minivmm as a user does, with a watchdog so that
//! no test hangs; waiting for what it prints; guest images made on the spot. What is expected
//! of minivmm is in the tests.
//!
//! No test sleeps to let something happen. One that needs the guest to have got somewhere has the guest, or the log,
//! say so, and waits for that.

#![allow(dead_code, reason = "each file of tests is a program of its own and uses a part of it")]

pub mod vcpu;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

/// How long anything may take before its test fails. Nothing takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);

/// Real mode: `mov dx, 0x3f8; mov al, '>'; out dx, al`. Before a guest's code it makes every
/// vCPU say that it runs.
const PROMPT: [u8; 6] = [0xba, 0xf8, 0x03, 0xb0, b'>', 0xee];

/// Whether this host lets us run guests. Without KVM the test is to return, which has then been
/// said, unless `MINIVMM_REQUIRE_KVM=1` makes that a failure.
pub fn require_kvm() -> bool {
    let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") else {
        return true;
    };
    let required = std::env::var_os("MINIVMM_REQUIRE_KVM").is_some_and(|value| value == "1");
    assert!(!required, "MINIVMM_REQUIRE_KVM=1, but /dev/kvm cannot be opened: {error}");
    skipped(&format!("no /dev/kvm: {error}"));
    false
}

/// Says that the calling test does not run, past the test harness, which hides what is printed
/// by tests that pass.
pub fn skipped(why: &str) {
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    let _ = writeln!(io::stderr(), "SKIPPED: {test}: {why}");
}

/// A minivmm to be started with `line` as its arguments (split at spaces), without input.
pub fn minivmm(line: &str) -> Command {
    command_of(env!("CARGO_BIN_EXE_minivmm"), line)
}

/// The same for another program; minivmm's own path is added for `sh -c` to use as "$0".
pub fn command_of(program: impl AsRef<OsStr>, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A minivmm that the shell starts as `"$@"` in `script`, with whatever redirections.
pub fn minivmm_in_shell(script: &str, line: &str) -> Command {
    let mut command = command_of("sh", "-c");
    command.args([script, "sh", env!("CARGO_BIN_EXE_minivmm")]).args(line.split_whitespace());
    command
}

/// Runs a command to its end.
pub fn run(command: Command) -> Finished {
    Running::start(command).finish()
}

/// A file with a guest's code in it.
pub fn image(code: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(code).unwrap();
    file
}

/// Runs `code` from a file.
pub fn run_code(code: &[u8], line: &str) -> Finished {
    let image = image(code);
    let mut command = minivmm(line);
    command.arg(image.path());
    run(command)
}

/// Has the C compiler (`$CC`, or `cc`) make something with these arguments.
#[track_caller]
pub fn compile<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) {
    let compiler = env::var("CC").unwrap_or_else(|_| String::from("cc"));
    let mut words = compiler.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A real-mode demo guest without data, every vCPU of which sends `>` first.
pub fn prompting(demo: &str) -> NamedTempFile {
    let demo = minivmm_guests::find(demo).unwrap();
    image(&[&PROMPT[..], demo.image].concat())
}

/// What each thread of a process does, as far as the kernel says it: for what hangs.
pub fn threads_of(process: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    let mut text = String::new();
    for task in tasks.filter_map(Result::ok) {
        text += &format!("  thread {}:", task.file_name().display());
        for file in ["comm", "wchan", "syscall", "stat", "stack"] {
            let said = fs::read_to_string(task.path().join(file)).unwrap_or_default();
            text += &format!(" {file} {}", said.trim().replace('\n', " < "));
        }
        text.push('\n');
    }
    text
}

/// Ends `child` when it takes too long, and tells so.
struct Watchdog {
    cancel: Sender<()>,
    thread: JoinHandle<bool>,
    limit: Duration,
}

impl Watchdog {
    fn over(child: Pid, limit: Duration) -> Self {
        let (cancel, cancelled) = mpsc::channel();
        let thread = thread::spawn(move || {
            let late = cancelled.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if late {
                eprintln!("minivmm hangs:\n{}", threads_of(child.as_raw().cast_unsigned()));
            }
            // The child has not been waited for yet, so its id is still its own.
            late && kill(child, Signal::SIGKILL).is_ok()
        });
        Self { cancel, thread, limit }
    }

    /// The limit, if it had to act.
    fn dismiss(self) -> Option<Duration> {
        drop(self.cancel);
        self.thread.join().unwrap().then_some(self.limit)
    }
}

/// A minivmm at work; one that is dropped is killed.
pub struct Running {
    child: Child,
    watchdog: Option<Watchdog>,
    errors: Receiver<Vec<u8>>,
    stderr: Vec<u8>,
}

impl Running {
    /// Starts `command`. It is taken so that its copies of the child's files are closed.
    pub fn start(command: Command) -> Self {
        Self::start_within(LIMIT, command)
    }

    /// The same with another limit on the time that it takes.
    pub fn start_within(limit: Duration, mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stderr.take().unwrap();
        let (sender, errors) = mpsc::channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut chunk) {
                let _ = sender.send(chunk[..len].to_vec());
            }
        });
        let watchdog = Some(Watchdog::over(pid_of(&child), limit));
        Self { child, watchdog, errors, stderr: Vec::new() }
    }

    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// Its standard input, if the command asked for a pipe.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Its standard output, which [`finish`](Self::finish) then does not read.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Waits until every one of `vcpus` vCPUs has sent its prompt.
    pub fn wait_for_prompts(&mut self, vcpus: usize) -> ChildStdout {
        let mut stdout = self.stdout();
        assert_eq!(read_exactly(&mut stdout, vcpus), vec![b'>'; vcpus]);
        stdout
    }

    /// Waits until `text` is on standard error.
    pub fn wait_for_stderr(&mut self, text: &str) -> String {
        while !String::from_utf8_lossy(&self.stderr).contains(text) {
            match self.errors.recv_timeout(LIMIT) {
                Ok(chunk) => self.stderr.extend(chunk),
                Err(_) => panic!("no {text:?} in {}", String::from_utf8_lossy(&self.stderr)),
            }
        }
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until a signal has stopped it.
    pub fn wait_until_stopped(&self) {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(self.pid()), flags).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    /// Waits for its end, reading all that it still prints. It must exit.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_with(|status| status.code())
    }

    /// The same, but a signal may have killed it: that is 128 and its number, as in a shell.
    #[track_caller]
    pub fn finish_as_in_a_shell(self) -> Finished {
        self.finish_with(|status| status.code().or(status.signal().map(|signal| 128 + signal)))
    }

    #[track_caller]
    fn finish_with(mut self, code: impl Fn(ExitStatus) -> Option<i32>) -> Finished {
        drop(self.child.stdin.take());
        let mut stdout = Vec::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_end(&mut stdout).unwrap();
        }
        waitid(Id::Pid(self.pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let late = self.watchdog.take().and_then(Watchdog::dismiss);
        let status = self.child.wait().unwrap();
        self.stderr.extend(self.errors.iter().flatten());
        let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
        assert!(late.is_none(), "killed: it took more than {late:?}; stderr: {stderr}");
        let code = code(status).unwrap_or_else(|| panic!("{status}; stderr: {stderr}"));
        assert!(!stderr.contains("panicked"), "{stderr}");
        Finished { code, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.watchdog.take().and_then(Watchdog::dismiss);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Lets others run until `condition` holds.
pub fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "waited in vain");
        thread::yield_now();
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stderr: {}", self.stderr);
        self
    }

    /// Fails the test unless this is on standard output, and nothing on standard error.
    #[track_caller]
    pub fn assert_prints(self, stdout: &[u8]) -> Self {
        assert_eq!(self.stdout.escape_ascii().to_string(), stdout.escape_ascii().to_string());
        assert_eq!(self.stderr, "");
        self
    }

    /// Fails the test unless `text` is on standard error.
    #[track_caller]
    pub fn assert_says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in {}", self.stderr);
        self
    }
}

/// Reads `len` bytes, which must come before the limit.
#[track_caller]
pub fn read_exactly(source: &mut (impl Read + AsFd), len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut start = 0;
    while start < len {
        let limit = PollTimeout::try_from(LIMIT).unwrap();
        let ready = poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], limit).unwrap();
        assert_eq!(ready, 1, "only {start} of {len} bytes came");
        match source.read(&mut bytes[start..]).unwrap() {
            0 => panic!("the end after {start} of {len} bytes"),
            more => start += more,
        }
    }
    bytes
}

/// A pipe with no room left, and how many bytes are in it: what writes to it waits at once.
pub fn full_pipe() -> (io::PipeReader, io::PipeWriter, usize) {
    let (reader, mut writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut len = 0;
    while let Ok(more) = writer.write(&[0; 4096]) {
        len += more;
    }
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer, len)
}
