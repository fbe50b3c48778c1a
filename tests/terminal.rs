//! A person at a terminal: minivmm with a real pseudo-terminal as its controlling terminal. What
//! is typed reaches the guest, the escape keys reach minivmm, and however the run ends the
//! terminal is as it was.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};

use support::{Finished, Running, command_of, prompting, read_exactly, require_kvm};

/// A session whose terminal is a pseudo-terminal of ours, with minivmm in the foreground. Its
/// standard error is a pipe, so that what the user is told is apart from what the guest sends.
struct Session {
    running: Running,
    /// What the person sees and types at.
    screen: File,
    /// The terminal, for its mode.
    terminal: File,
    before: Termios,
}

impl Session {
    fn start(line: &str) -> Self {
        // O_CLOEXEC: the terminal hangs up when its last master closes, so no child may have it.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname_r(&master).unwrap();
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(&path)
            .unwrap();
        let before = tcgetattr(&terminal).unwrap();
        assert!(before.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        // A session's leader without a terminal gets the first that it opens (setsid(2)).
        let mut command = command_of("setsid", "sh -c");
        command.args([r#"exec "$@" <>"$TERMINAL" >&0"#, "sh", env!("CARGO_BIN_EXE_minivmm")]);
        command.args(line.split_whitespace()).env("TERMINAL", path);
        Self {
            running: Running::start(command),
            screen: OwnedFd::from(master).into(),
            terminal,
            before,
        }
    }

    /// Starts this demo after a prompt, and waits for that: minivmm has the terminal by then.
    fn prompting(demo: &str) -> Self {
        let guest = prompting(demo);
        let mut session = Self::start(guest.path().to_str().unwrap());
        assert_eq!(session.read(1), b">");
        assert!(session.is_raw());
        session
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    /// Whether every key goes to the program at once, unchanged and unseen.
    fn is_raw(&self) -> bool {
        let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        !self.mode().local_flags.intersects(cooked)
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.screen.write_all(keys).unwrap();
    }

    /// What the screen shows next.
    fn read(&mut self, len: usize) -> Vec<u8> {
        read_exactly(&mut self.screen, len)
    }

    /// Waits for the end and checks that the terminal is as it was.
    #[track_caller]
    fn finish(self, code: i32) -> Finished {
        let run = self.running.finish().assert_code(code);
        assert_eq!(tcgetattr(&self.terminal).unwrap(), self.before, "the mode is not restored");
        run
    }
}

#[test]
fn keys_reach_the_guest_as_they_are_and_are_not_echoed() {
    if !require_kvm() {
        return;
    }
    let mut session = Session::prompting("echo");
    // ^C, ^Z, ^\, ^S, ^Q, erase and carriage return; with echo each would come twice.
    let keys = b"a\x03b\x1ac\x1cd\x13e\x11f\x7fg\rh";
    session.type_keys(keys);
    assert_eq!(session.read(keys.len()), keys);
    session.type_keys(b"\x04");
    assert_eq!(session.finish(0).stderr, "");
}

#[test]
fn ctrl_a_x_ends_the_vm_with_success() {
    if !require_kvm() {
        return;
    }
    for demo in ["spin", "echo"] {
        let mut session = Session::prompting(demo);
        session.type_keys(b"\x01x");
        assert_eq!(session.finish(0).stderr, "");
    }
}

#[test]
fn ctrl_a_h_explains_the_keys_on_standard_error() {
    if !require_kvm() {
        return;
    }
    let mut session = Session::prompting("echo");
    session.type_keys(b"\x01h");
    session.running.wait_for_stderr("Ctrl-A Ctrl-A  send one Ctrl-A to the guest\n");
    session.type_keys(b"!\x04");
    assert_eq!(session.read(1), b"!", "the help is not the guest's");
    session.finish(0).assert_says("Ctrl-A x       end the VM\n");
}

#[test]
fn ctrl_a_twice_sends_one() {
    if !require_kvm() {
        return;
    }
    let mut session = Session::prompting("echo");
    session.type_keys(b"<\x01\x01>\x04");
    assert_eq!(session.read(3), b"<\x01>");
    session.finish(0);
}

#[test]
fn the_terminal_is_restored_after_a_signal() {
    if !require_kvm() {
        return;
    }
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let session = Session::prompting("spin");
        session.running.signal(signal);
        session.finish(code);
    }
}

#[test]
fn the_terminal_is_restored_after_every_end_of_the_guest() {
    if !require_kvm() {
        return;
    }
    for (line, code) in [
        ("--demo hello", 0),
        ("--demo exit-code", 43),
        ("--demo reset-cf9", 16),
        ("--demo triple-fault", 8),
        ("--demo spin --timeout 100ms", 124),
    ] {
        Session::start(line).finish(code);
    }
}

#[test]
fn the_terminal_is_restored_after_an_error() {
    if !require_kvm() {
        return;
    }
    for (line, code) in [("--demo hello --entry 0xffffffff", 4), ("--vcpus 0 g", 2)] {
        Session::start(line).finish(code);
    }
}

#[test]
fn the_terminal_is_the_users_while_the_process_is_stopped() {
    if !require_kvm() {
        return;
    }
    let mut session = Session::prompting("echo");
    session.running.signal(Signal::SIGTSTP);
    session.running.wait_until_stopped();
    assert_eq!(session.mode(), session.before);
    session.running.signal(Signal::SIGCONT);
    // It answers once it goes on, and takes the terminal before it reads.
    session.type_keys(b"\x01h");
    session.running.wait_for_stderr("Ctrl-A x");
    assert!(session.is_raw());
    session.type_keys(b"\x01x");
    session.finish(0);
}

#[test]
fn a_terminal_that_hangs_up_ends_the_vm() {
    if !require_kvm() {
        return;
    }
    let Session { running, screen, .. } = Session::prompting("spin");
    drop(screen);
    running.finish().assert_code(129);
}

#[test]
fn a_terminal_that_is_not_the_serial_port_is_left_alone() {
    if !require_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let guest = prompting("spin");
    let (path, guest) = (dir.path().join("serial"), guest.path().display());
    let mut session = Session::start(&format!("-vvv --serial file:{} {guest}", path.display()));
    session.running.wait_for_stderr("io-out");
    assert_eq!(session.mode(), session.before);
    session.running.signal(Signal::SIGTERM);
    session.finish(143);
    assert_eq!(fs::read(path).unwrap(), b">");
}
