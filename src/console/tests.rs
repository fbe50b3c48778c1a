//! The console on real pipes, files and pseudo-terminals.
//!
//! Tests that need a process of their own (its session, its panic hook, its standard input) run
//! again in one, see [`alone`].

use std::env;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::os::unix::thread::JoinHandleExt;
use std::panic;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{
    InputFlags, LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr,
};
use nix::unistd::{Pid, getpgrp, setsid, tcsetpgrp};
use vmm_sys_util::signal::register_signal_handler;

use super::*;

fn all_bytes() -> Vec<u8> {
    (0..=u8::MAX).collect()
}

fn output_to(sink: impl Into<OwnedFd>) -> ConsoleOutput {
    ConsoleOutput { sink: Some(sink.into()), pty_slave: None }
}

fn write_all(output: &mut ConsoleOutput, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let len = output.write(bytes).unwrap();
        bytes = &bytes[len..];
    }
}

/// Waits until poll reports something about the input; fails the test if nothing ever comes.
fn wait(input: &ConsoleInput, room: usize) {
    let fd = input.fd(room).expect("there is something to wait for");
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 60_000_u16), Ok(1), "no input in a minute");
}

/// Reads, at most `room` bytes at a time, until `len` bytes have come.
fn read_exactly(input: &mut ConsoleInput, room: usize, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let bytes = input.read(room).unwrap().bytes;
        assert!(bytes.len() <= room);
        all.extend_from_slice(bytes);
        // What was read ahead comes without waiting.
        if bytes.is_empty() {
            wait(input, room);
        }
    }
    all
}

/// Reads until poll has reported the end.
fn read_to_end(input: &mut ConsoleInput, room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while input.fd(room).is_some() {
        wait(input, room);
        all.extend_from_slice(input.read(room).unwrap().bytes);
    }
    all
}

/// A pseudo-terminal as a terminal program sets one up: the "screen and keyboard", and the
/// terminal in its initial, cooked mode.
fn terminal() -> (File, OwnedFd) {
    let pty = nix::pty::openpty(None, None).unwrap();
    (pty.master.into(), pty.slave)
}

fn mode(terminal: impl AsFd) -> Termios {
    tcgetattr(terminal).unwrap()
}

fn is_raw(mode: &Termios) -> bool {
    let local = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN;
    let input = InputFlags::ICRNL | InputFlags::IXON | InputFlags::ISTRIP;
    !mode.local_flags.intersects(local) && !mode.input_flags.intersects(input)
}

/// Runs the test called `name` (the caller) again in a process of its own, and there `body`.
///
/// `shell` is how a shell starts that process, as "$0" "$@".
fn alone(name: &str, shell: &str, body: impl FnOnce()) {
    const ALONE: &str = "MINIVMM_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return body();
    }
    let run = Command::new("sh")
        .args(["-c", shell])
        .arg(env::current_exe().unwrap())
        .args([&format!("console::tests::{name}"), "--exact", "--nocapture"])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains(" 1 passed"), "{out}\n{err}");
}

mod sinks {
    use super::*;

    #[test]
    fn null_takes_everything_and_has_no_input() {
        let mut console = Console::open(&SerialConfig::Null).unwrap();
        assert_eq!(console.output.write(&[0; 5000]).unwrap(), 5000);
        assert!(console.input.fd(1).is_none());
        assert_eq!(console.input.read(1).unwrap(), Input { bytes: b"", action: None });
        assert!(console.terminal.is_none() && console.pty_path().is_none());
    }

    #[test]
    fn file_is_emptied_and_then_holds_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        fs::write(&path, [b'x'; 1000]).unwrap();
        let mut console = Console::open(&SerialConfig::File(path.clone())).unwrap();
        write_all(&mut console.output, &all_bytes());
        // Nothing is buffered: the bytes are there while the console is open.
        assert_eq!(fs::read(&path).unwrap(), all_bytes());
        assert!(console.input.fd(1).is_none());
    }

    #[test]
    fn file_errors_name_path_and_cause() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing").join("serial.log");
        for (path, cause) in [(dir.path(), "Is a directory"), (&missing, "No such file")] {
            let error = Console::open(&SerialConfig::File(path.to_owned())).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()) && text.contains(cause), "{text}");
            assert!(error.source().is_some());
        }
    }

    /// A pipe that has no room left, and how much is in it.
    fn full_pipe() -> (File, File, usize) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut writer = File::from(writer);
        let mut len = 0;
        while let Ok(more) = writer.write(&[0; 4096]) {
            len += more;
        }
        (reader.into(), writer, len)
    }

    fn is_nonblocking(file: &File) -> bool {
        let flags = fcntl(file, FcntlArg::F_GETFL).unwrap();
        OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn nonblocking_pipe_waits_and_loses_nothing() {
        let (mut reader, writer, full) = full_pipe();
        let mut output = output_to(writer.try_clone().unwrap());
        let text: Vec<u8> = all_bytes().repeat(4096);
        let thread = thread::spawn({
            let text = text.clone();
            move || write_all(&mut output, &text)
        });
        let mut all = vec![0; full + text.len()];
        reader.read_exact(&mut all).unwrap();
        thread.join().unwrap();
        assert!(all[full..] == text);
        assert!(is_nonblocking(&writer), "the flag is not ours to change");
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        let (reader, writer, _) = full_pipe();
        drop(reader);
        let error = output_to(writer).write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    extern "C" fn ignore(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

    /// Writes to a sink that nobody reads, and signals the thread until it is out of the write.
    fn interrupt(mut output: ConsoleOutput) -> io::Error {
        register_signal_handler(libc::SIGUSR1, ignore).unwrap();
        let thread = thread::spawn(move || output.write(b"x").unwrap_err());
        while !thread.is_finished() {
            // One signal may come before the thread waits, so one is not enough.
            pthread_kill(thread.as_pthread_t(), Signal::SIGUSR1).unwrap();
            thread::yield_now();
        }
        thread.join().unwrap()
    }

    #[test]
    fn a_signal_interrupts_a_write_that_waits() {
        let (_reader, writer, _) = full_pipe();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        assert_eq!(interrupt(output_to(writer)).kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_signal_interrupts_the_wait_for_a_nonblocking_sink() {
        let (_reader, writer, _) = full_pipe();
        assert_eq!(interrupt(output_to(writer)).kind(), io::ErrorKind::Interrupted);
    }
}

mod sources {
    use super::*;

    #[test]
    fn pipe_passes_all_within_the_room_and_then_ends() {
        for room in [1, 3, 16, 1000] {
            let (reader, writer) = io::pipe().unwrap();
            let text = all_bytes().repeat(3);
            (&writer).write_all(&text).unwrap();
            let mut input = ConsoleInput::plain(reader.into());
            assert_eq!(read_exactly(&mut input, room, text.len()), text);
            assert_eq!(input.read(room).unwrap().bytes, b"", "an empty pipe does not make it wait");
            assert!(input.fd(room).is_some());
            drop(writer);
            assert_eq!(read_to_end(&mut input, room), b"");
        }
    }

    #[test]
    fn without_room_nothing_is_taken() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"ab").unwrap();
        let mut input = ConsoleInput::plain(reader.into());
        assert!(input.fd(0).is_none());
        assert_eq!(input.read(0).unwrap().bytes, b"");
        assert_eq!(input.read(2).unwrap().bytes, b"ab");
    }

    #[test]
    fn only_a_terminal_has_escapes() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"\x01x").unwrap();
        let mut input = ConsoleInput::plain(reader.into());
        assert_eq!(input.read(8).unwrap(), Input { bytes: b"\x01x", action: None });
    }

    #[test]
    fn dev_null_and_files_end() {
        assert_eq!(
            read_to_end(&mut ConsoleInput::plain(File::open("/dev/null").unwrap().into()), 1),
            b""
        );
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&all_bytes()).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        assert_eq!(read_to_end(&mut ConsoleInput::plain(file.into()), 16), all_bytes());
    }

    #[test]
    fn an_error_is_returned_once_and_ends_the_input() {
        let mut input = ConsoleInput::plain(File::open("/").unwrap().into());
        assert_eq!(input.read(1).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(input.fd(1).is_none());
        assert_eq!(input.read(1).unwrap().bytes, b"");
    }

    #[test]
    fn standard_input_that_was_closed_is_no_input() {
        alone(
            "sources::standard_input_that_was_closed_is_no_input",
            r#"exec "$0" "$@" <&-"#,
            || {
                let mut console = Console::open(&SerialConfig::Stdio).unwrap();
                assert!(console.terminal.is_none());
                assert_eq!(read_to_end(&mut console.input, 1), b"");
            },
        );
    }
}

mod pseudo_terminal {
    use super::*;

    /// A terminal program that attaches to the console's path.
    fn attach(console: &Console) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(console.pty_path().unwrap())
            .unwrap()
    }

    #[test]
    fn every_byte_passes_both_ways() {
        let mut console = Console::open(&SerialConfig::Pty).unwrap();
        let mut user = attach(&console);
        write_all(&mut console.output, &all_bytes());
        let mut received = vec![0; 256];
        user.read_exact(&mut received).unwrap();
        assert_eq!(received, all_bytes());

        user.write_all(&all_bytes()).unwrap();
        assert_eq!(read_exactly(&mut console.input, 16, 256), all_bytes());
        assert_eq!(console.input.read(16).unwrap().bytes, b"", "no echo of the output");
    }

    #[test]
    fn users_may_come_and_go() {
        let mut console = Console::open(&SerialConfig::Pty).unwrap();
        assert_eq!(console.input.read(1).unwrap().bytes, b"", "before the first");
        for _ in 0..2 {
            let mut user = attach(&console);
            user.write_all(b"in").unwrap();
            assert_eq!(read_exactly(&mut console.input, 2, 2), b"in");
            drop(user);
            // Nobody is there: no error, no end of input, and the output waits for the next.
            assert_eq!(console.input.read(1).unwrap().bytes, b"");
            assert!(console.input.fd(1).is_some());
            write_all(&mut console.output, b"out");
            let mut received = [0; 3];
            attach(&console).read_exact(&mut received).unwrap();
            assert_eq!(&received, b"out");
        }
    }

    #[test]
    fn each_half_works_without_the_other() {
        let console = Console::open(&SerialConfig::Pty).unwrap();
        let path = console.pty_path().unwrap().to_owned();
        let Console { mut input, output, .. } = console;
        drop(output);
        File::options().write(true).open(&path).unwrap().write_all(b"x").unwrap();
        assert_eq!(read_exactly(&mut input, 1, 1), b"x");

        let Console { input, mut output, .. } = Console::open(&SerialConfig::Pty).unwrap();
        drop(input);
        assert_eq!(output.write(b"x").unwrap(), 1);
    }
}

mod terminal_mode {
    use super::*;

    fn guard(terminal: &OwnedFd) -> TerminalGuard {
        TerminalGuard::new(terminal.try_clone().unwrap()).unwrap()
    }

    #[test]
    fn raw_until_dropped() {
        let (_screen, terminal) = terminal();
        let user = mode(&terminal);
        assert!(!is_raw(&user));
        let guard = guard(&terminal);
        assert!(is_raw(&mode(&terminal)));
        drop(guard);
        assert_eq!(mode(&terminal), user);
    }

    #[test]
    fn log_lines_stay_readable() {
        let (mut screen, terminal) = terminal();
        let user = mode(&terminal).output_flags;
        assert!(user.contains(OutputFlags::OPOST | OutputFlags::ONLCR));
        let _guard = guard(&terminal);
        assert_eq!(mode(&terminal).output_flags, user);
        File::from(terminal.try_clone().unwrap()).write_all(b"one\ntwo").unwrap();
        let mut shown = [0; 8];
        screen.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"one\r\ntwo");
    }

    #[test]
    fn suspend_and_resume_any_number_of_times() {
        let (_screen, terminal) = terminal();
        let user = mode(&terminal);
        let guard = guard(&terminal);
        for times in [1, 2] {
            (0..times).for_each(|_| guard.suspend());
            assert_eq!(mode(&terminal), user);
            (0..times).for_each(|_| guard.resume().unwrap());
            assert!(is_raw(&mode(&terminal)));
        }
        guard.suspend();
        drop(guard);
        assert_eq!(mode(&terminal), user);
    }

    #[test]
    fn resume_after_an_unseen_stop() {
        let (_screen, terminal) = terminal();
        let user = mode(&terminal);
        let guard = guard(&terminal);
        // SIGSTOP: the shell sets its own mode and nobody calls `suspend`.
        let mut shell = user.clone();
        shell.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&terminal, SetArg::TCSANOW, &shell).unwrap();
        guard.resume().unwrap();
        assert!(is_raw(&mode(&terminal)));
        drop(guard);
        assert_eq!(mode(&terminal), user);
    }

    #[test]
    fn a_terminal_that_has_gone_is_no_trouble() {
        let (screen, terminal) = terminal();
        let guard = guard(&terminal);
        drop(screen);
        guard.suspend();
        guard.resume().unwrap();
        drop(guard);
        assert!(tcgetattr(&terminal).is_err());
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let null = File::open("/dev/null").unwrap();
        assert!(TerminalGuard::new(null.into()).is_err());
    }

    #[test]
    fn a_panic_on_any_thread_restores_before_its_message() {
        alone(
            "terminal_mode::a_panic_on_any_thread_restores_before_its_message",
            r#"exec "$0" "$@""#,
            || {
                let (_screen, terminal) = terminal();
                let user = mode(&terminal);
                let (printed, messages) = mpsc::channel();
                let at_message = terminal.try_clone().unwrap();
                panic::set_hook(Box::new(move |_| printed.send(mode(&at_message)).unwrap()));

                let first = guard(&terminal);
                first.restore_on_panic();
                thread::spawn(|| panic!("on purpose")).join().unwrap_err();
                assert_eq!(messages.recv().unwrap(), user);
                assert_eq!(messages.try_recv(), Err(mpsc::TryRecvError::Empty));
                drop(first);
                assert_eq!(mode(&terminal), user);

                // Another guard uses the same hook; once it is gone, so is its part in panics.
                let second = guard(&terminal);
                second.restore_on_panic();
                thread::spawn(|| panic!("on purpose")).join().unwrap_err();
                assert_eq!(messages.recv().unwrap(), user);
                second.resume().unwrap();
                assert!(is_raw(&mode(&terminal)));
                drop(second);
                thread::spawn(|| panic!("on purpose")).join().unwrap_err();
                assert_eq!(messages.recv().unwrap(), user);
                assert_eq!(messages.try_recv(), Err(mpsc::TryRecvError::Empty));
            },
        );
    }

    #[test]
    fn a_process_that_ends_on_the_spot_restores_unless_that_would_wait() {
        alone(
            "terminal_mode::a_process_that_ends_on_the_spot_restores_unless_that_would_wait",
            r#"exec "$0" "$@""#,
            || {
                // Without a terminal there is nothing to do.
                restore_at_once();
                let (_screen, terminal) = terminal();
                let user = mode(&terminal);
                let guard = guard(&terminal);
                guard.restore_on_panic();
                let changing = guard.terminal.saved.lock();
                restore_at_once();
                assert!(is_raw(&mode(&terminal)));
                drop(changing);
                restore_at_once();
                assert_eq!(mode(&terminal), user);
            },
        );
    }

    /// Gives the terminal to another job, as a shell does.
    fn give_to(terminal: &OwnedFd, group: Pid) {
        let ttou = SigSet::from(Signal::SIGTTOU);
        ttou.thread_block().unwrap();
        tcsetpgrp(terminal, group).unwrap();
        ttou.thread_unblock().unwrap();
    }

    #[test]
    fn in_the_background_the_terminal_is_left_alone() {
        alone(
            "terminal_mode::in_the_background_the_terminal_is_left_alone",
            r#"exec "$0" "$@""#,
            || {
                // The first terminal that a session leader opens is its controlling terminal.
                setsid().unwrap();
                let pty = Pty::open().unwrap();
                let terminal: OwnedFd =
                    OpenOptions::new().read(true).write(true).open(&pty.path).unwrap().into();
                let mut cooked = mode(&terminal);
                cooked.local_flags.insert(LocalFlags::ECHO | LocalFlags::ICANON);
                tcsetattr(&terminal, SetArg::TCSANOW, &cooked).unwrap();
                let user = mode(&terminal);
                let mut job =
                    Command::new("cat").process_group(0).stdin(Stdio::piped()).spawn().unwrap();
                let other = Pid::from_raw(i32::try_from(job.id()).unwrap());

                // Started in the background: no raw mode, no input, until it is in the foreground.
                give_to(&terminal, other);
                let started = guard(&terminal);
                let mut input = ConsoleInput::terminal(terminal.try_clone().unwrap());
                File::from(pty.master.try_clone().unwrap()).write_all(b"for cat\n").unwrap();
                assert!(input.fd(1).is_none());
                assert_eq!(input.read(1).unwrap().bytes, b"");
                started.resume().unwrap();
                assert_eq!(mode(&terminal), user);
                give_to(&terminal, getpgrp());
                started.resume().unwrap();
                assert!(is_raw(&mode(&terminal)));
                assert!(input.fd(1).is_some());

                // Moved there while raw: what the shell sets stays, the end of the VM included.
                give_to(&terminal, other);
                started.suspend();
                assert!(is_raw(&mode(&terminal)));
                give_to(&terminal, getpgrp());
                started.suspend();
                assert_eq!(mode(&terminal), user);
                started.resume().unwrap();
                give_to(&terminal, other);
                // Moved there just after we looked: no SIGTTOU (which here would be an error).
                terminal::set_mode(terminal.as_fd(), &mode(&terminal)).unwrap();
                drop(started);
                assert!(is_raw(&mode(&terminal)));

                drop(job.stdin.take());
                assert!(job.wait().unwrap().success());
                // Closing the master hangs up on the session's leader, which is us.
                std::mem::forget(pty);
            },
        );
    }
}

mod at_the_terminal {
    use super::*;

    /// A console with its standard input and output at a terminal.
    fn console() -> (File, Console) {
        let (keyboard, terminal) = terminal();
        let console = Console::stdio(terminal.as_fd(), terminal.as_fd()).unwrap();
        (keyboard, console)
    }

    #[test]
    fn every_key_but_the_prefix_reaches_the_guest() {
        let (mut keyboard, mut console) = console();
        let keys: Vec<u8> = all_bytes().into_iter().filter(|key| *key != 1).collect();
        keyboard.write_all(&keys).unwrap();
        assert_eq!(read_exactly(&mut console.input, 16, keys.len()), keys);
    }

    #[test]
    fn output_reaches_the_screen() {
        let (mut screen, mut console) = console();
        write_all(&mut console.output, b"login: ");
        let mut shown = [0; 7];
        screen.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"login: ");
    }

    /// Reads until an action comes.
    fn next_action(input: &mut ConsoleInput, room: usize) -> Action {
        loop {
            wait(input, room);
            if let Some(action) = input.read(room).unwrap().action {
                return action;
            }
        }
    }

    #[test]
    fn sequences_work_however_they_arrive() {
        let (mut keyboard, mut console) = console();
        keyboard.write_all(b"\x01h").unwrap();
        assert_eq!(next_action(&mut console.input, 8), Action::Help);
        keyboard.write_all(b"\x01").unwrap();
        wait(&console.input, 8);
        assert_eq!(console.input.read(8).unwrap(), Input { bytes: b"", action: None });
        keyboard.write_all(b"x").unwrap();
        assert_eq!(next_action(&mut console.input, 8), Action::Quit);
    }

    #[test]
    fn a_guest_that_does_not_read_can_be_ended_and_loses_nothing() {
        let (mut keyboard, mut console) = console();
        keyboard.write_all(&[b'k'; 1000]).unwrap();
        keyboard.write_all(b"\x01x").unwrap();
        assert_eq!(next_action(&mut console.input, 0), Action::Quit);
        let mut received = 0;
        while let len @ 1.. = console.input.read(16).unwrap().bytes.len() {
            assert!(len <= 16);
            received += len;
        }
        assert_eq!(received, 1000);
    }

    #[test]
    fn more_than_is_read_ahead_waits_in_the_terminal() {
        let (mut keyboard, mut console) = console();
        let paste: Vec<u8> = (b'a'..=b'z').cycle().take(200_000).collect();
        let typing = thread::spawn({
            let paste = paste.clone();
            move || {
                keyboard.write_all(&paste).unwrap();
                keyboard
            }
        });
        while console.input.fd(0).is_some() {
            wait(&console.input, 0);
            assert_eq!(console.input.read(0).unwrap().bytes, b"");
        }
        assert!(!typing.is_finished(), "the terminal holds the rest back");
        assert!(read_exactly(&mut console.input, 1000, paste.len()) == paste);
        typing.join().unwrap();
    }

    #[test]
    fn room_for_one_byte_is_enough_for_two() {
        let (mut keyboard, mut console) = console();
        keyboard.write_all(b"\x01d").unwrap();
        assert_eq!(read_exactly(&mut console.input, 1, 1), b"\x01");
        assert_eq!(console.input.read(1).unwrap().bytes, b"d");
    }

    #[test]
    fn a_hang_up_ends_the_input() {
        let (keyboard, mut console) = console();
        drop(keyboard);
        assert_eq!(read_to_end(&mut console.input, 8), b"");
        assert_eq!(console.input.read(8).unwrap(), Input { bytes: b"", action: None });
    }
}
