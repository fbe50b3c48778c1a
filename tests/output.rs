//! The guest's serial port on the host's files, whatever they do: readers that are slow, stall
//! or go away, a full disk, a shared non-blocking pipe, input in any amount.
//!
//! A stalled reader is a pipe that is full before minivmm starts, so that no timing is involved.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread;

use minivmm_guests::expect::Output;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use support::{
    Finished, Running, full_pipe, image, minivmm, minivmm_in_shell, prompting, read_exactly,
    require_kvm, run,
};

/// Bytes from each of two vCPUs.
const STORM_BYTES: usize = 30_000;

fn storm() -> Command {
    minivmm(&format!("--demo uart-storm --vcpus 2 --reg rbp={STORM_BYTES}"))
}

/// More bytes than there is time for: what ends it is something else.
fn endless_storm() -> Command {
    minivmm("--demo uart-storm --vcpus 2 --reg rbp=0xffffffff")
}

#[track_caller]
fn assert_is_storm(bytes: &[u8]) {
    assert_eq!(Output::Marked(STORM_BYTES).check(2, bytes), Ok(()));
}

/// How many bytes minivmm says were not written.
#[track_caller]
fn not_written(run: &Finished) -> u64 {
    let said = " bytes of the guest's output were not written";
    let line = run.stderr.lines().find_map(|line| line.strip_suffix(said));
    let count = line.and_then(|line| line.strip_prefix("minivmm: ")?.parse().ok());
    count.unwrap_or_else(|| panic!("no number of bytes in {}", run.stderr))
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap();
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

/// A guest whose output has no reader, and which has noticed.
struct Stalled {
    running: Running,
    reader: PipeReader,
    /// Bytes in the pipe that are not the guest's.
    filling: usize,
    _guest: NamedTempFile,
}

impl Stalled {
    /// Bytes that the guest writes after the transmitter has told it to wait.
    const RUDE: usize = 3000;

    /// vCPU 0 writes counting bytes below 0x80, as many as the FIFO holds whenever THRE is set;
    /// when it is not, it tells vCPU 1, writes [`RUDE`](Self::RUDE) more without a look, then
    /// 0xff, and halts. vCPU 1 halts when it is told, and the log says so.
    fn start() -> Self {
        let code = [
            0x31, 0xdb, // xor bx, bx
            0x85, 0xff, // test di, di
            0x75, 0x32, // jnz second
            0xba, 0xfa, 0x03, // mov dx, 0x3fa: FCR
            0xb0, 0x01, // mov al, 1: FIFOs on
            0xee, // out dx, al
            // polite:
            0xba, 0xfd, 0x03, // mov dx, 0x3fd: LSR
            0xec, // in al, dx
            0xa8, 0x20, // test al, 0x20: THRE
            0x74, 0x10, // jz full
            0xba, 0xf8, 0x03, // mov dx, 0x3f8: THR
            0xb9, 0x10, 0x00, // mov cx, 16
            // burst:
            0x88, 0xd8, // mov al, bl
            0x24, 0x7f, // and al, 0x7f
            0xee, // out dx, al
            0x43, // inc bx
            0xe2, 0xf8, // loop burst
            0xeb, 0xe8, // jmp polite
            // full:
            0xfe, 0x06, 0x00, 0x08, // inc byte [0x800]
            0xba, 0xf8, 0x03, // mov dx, 0x3f8
            // rude:
            0x88, 0xd8, // mov al, bl
            0x24, 0x7f, // and al, 0x7f
            0xee, // out dx, al
            0x43, // inc bx
            0x4d, // dec bp
            0x75, 0xf7, // jnz rude
            0xb0, 0xff, // mov al, 0xff
            0xee, // out dx, al
            0xf4, // hlt
            // second:
            0xf3, 0x90, // pause
            0x80, 0x3e, 0x00, 0x08, 0x00, // cmp byte [0x800], 0
            0x74, 0xf7, // je second
            0xf4, // hlt
        ];
        let guest = image(&code);
        let (reader, writer, filling) = full_pipe();
        let mut command = minivmm(&format!("--vcpus 2 --reg rbp={}", Self::RUDE));
        command.arg(guest.path()).env("RUST_LOG", "minivmm::vcpu=debug").stdout(writer);
        let mut running = Running::start(command);
        running.wait_for_stderr("vCPU 1 has ended");
        Self { running, reader, filling, _guest: guest }
    }

    /// Reads to the end and checks that all of the guest's output has come, in order.
    fn read(&mut self) {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap();
        let output = bytes.split_off(self.filling);
        let (last, counting) = output.split_last().unwrap();
        let out_of_order = (0..=0x7f).cycle().zip(counting).position(|(due, byte)| due != *byte);
        assert_eq!((out_of_order, *last), (None, 0xff));
        // What the port holds before it tells the guest to wait, and what came after.
        assert!(counting.len() >= (64 << 10) + Self::RUDE, "only {}", counting.len());
    }
}

#[test]
fn a_slow_reader_gets_everything_in_order() {
    if !require_kvm() {
        return;
    }
    let (mut reader, writer) = io::pipe().unwrap();
    // The smallest there is, so that the reader sets the pace.
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = storm();
    command.stdout(writer);
    let running = Running::start(command);
    let mut bytes = Vec::new();
    let mut chunk = [0; 7];
    while let len @ 1.. = reader.read(&mut chunk).unwrap() {
        bytes.extend(&chunk[..len]);
    }
    assert_is_storm(&bytes);
    running.finish().assert_code(0);
}

#[test]
fn a_reader_that_stalls_and_goes_on_gets_everything_in_order() {
    if !require_kvm() {
        return;
    }
    let mut stalled = Stalled::start();
    stalled.read();
    stalled.running.finish().assert_code(0);
}

#[test]
fn sigterm_ends_a_guest_whose_output_is_stalled_and_what_is_lost_is_said() {
    if !require_kvm() {
        return;
    }
    let stalled = Stalled::start();
    stalled.running.signal(Signal::SIGTERM);
    let run = stalled.running.finish().assert_code(143);
    // Nothing was read, so it is all that the port took, at least.
    assert!(not_written(&run) >= 64 << 10, "{}", run.stderr);
}

/// A guest that has ended, but whose 8 bytes of output nobody reads.
fn ended_but_unread() -> (PipeReader, Running) {
    let (reader, writer, _) = full_pipe();
    let mut command = minivmm("--demo hello");
    command.env("RUST_LOG", "minivmm::vcpu=debug").stdout(writer);
    let mut running = Running::start(command);
    running.wait_for_stderr("vCPU 0 has ended");
    (reader, running)
}

#[test]
fn a_signal_that_costs_output_of_a_guest_that_has_ended_is_no_success() {
    if !require_kvm() {
        return;
    }
    let (_reader, running) = ended_but_unread();
    running.signal(Signal::SIGTERM);
    let run = running.finish().assert_code(143);
    assert_eq!(not_written(&run), 8, "4\\nHello\\n");
}

#[test]
fn a_second_signal_ends_the_wait_for_a_stalled_reader() {
    if !require_kvm() {
        return;
    }
    let (_reader, running) = ended_but_unread();
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let run = running.finish();
    // Of two signals that wait, the one with the lower number comes first.
    assert!([130, 143].contains(&run.code), "{}: {}", run.code, run.stderr);
    assert_eq!(not_written(&run), 8, "4\\nHello\\n");
}

#[test]
fn the_time_limit_holds_for_a_guest_whose_output_is_stalled() {
    if !require_kvm() {
        return;
    }
    let (_reader, writer, _) = full_pipe();
    let mut command = endless_storm();
    command.args(["--timeout", "500ms"]).stdout(writer);
    let run = run(command).assert_code(124).assert_says("time-out");
    assert!(not_written(&run) > 0);
}

#[test]
fn the_time_limit_also_holds_for_output_of_a_guest_that_has_ended() {
    if !require_kvm() {
        return;
    }
    let (_reader, writer, _) = full_pipe();
    let mut command = minivmm("--demo hello --timeout 300ms");
    command.stdout(writer);
    // The guest did not run for longer than it may.
    let run =
        run(command).assert_code(6).assert_says("its reader did not take it within the time-out");
    assert_eq!(not_written(&run), 8, "4\\nHello\\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_run_as_sigpipe_would() {
    if !require_kvm() {
        return;
    }
    let mut running = Running::start(endless_storm());
    let mut stdout = running.stdout();
    read_exactly(&mut stdout, 1);
    drop(stdout);
    running.finish().assert_code(141).assert_prints(b"");
}

#[test]
fn a_full_disk_is_an_error_of_its_own() {
    if !require_kvm() {
        return;
    }
    for serial in ["stdio", "file:/dev/full"] {
        let mut command = minivmm(&format!("--demo hello --serial {serial}"));
        command.stdout(File::create("/dev/full").unwrap());
        let run = run(command).assert_code(6);
        assert!((1..=8).contains(&not_written(&run)), "{}", run.stderr);
        run.assert_says("minivmm: cannot write the guest's output: No space left on device");
    }
}

#[test]
fn serial_file_holds_exactly_the_output() {
    if !require_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serial");
    fs::write(&path, "from an earlier run, and longer").unwrap();
    let line = format!("--demo hello --serial file:{}", path.display());
    run(minivmm(&line)).assert_code(0).assert_prints(b"");
    assert_eq!(fs::read(&path).unwrap(), b"4\nHello\n");
}

#[test]
fn serial_null_discards_the_output() {
    if require_kvm() {
        run(minivmm("--demo hello --serial null")).assert_code(0).assert_prints(b"");
    }
}

#[test]
fn serial_pty_carries_both_ways() {
    if !require_kvm() {
        return;
    }
    let guest = prompting("echo");
    let mut command = minivmm("--serial pty");
    command.arg(guest.path());
    let mut running = Running::start(command);
    let said = running.wait_for_stderr("\n");
    let path = said.strip_prefix("minivmm: serial port at ").unwrap().trim_end();
    let mut options = OpenOptions::new();
    let mut port =
        options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path).unwrap();
    assert_eq!(read_exactly(&mut port, 1), b">");
    let text = b"\x03\x1a\r\n\x11\x13\xff all pass \x00";
    port.write_all(text).unwrap();
    assert_eq!(read_exactly(&mut port, text.len()), text);
    port.write_all(b"\x04").unwrap();
    let run = running.finish().assert_code(0);
    assert_eq!(run.stdout, b"");
}

#[test]
fn a_prompt_without_a_newline_shows_while_the_guest_runs() {
    if !require_kvm() {
        return;
    }
    let guest = prompting("spin");
    let mut command = minivmm("");
    command.arg(guest.path());
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(1);
    running.signal(Signal::SIGTERM);
    running.finish().assert_code(143).assert_prints(b"");
}

#[test]
fn a_shared_output_is_not_made_nonblocking() {
    if !require_kvm() {
        return;
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let guest = prompting("spin");
    let mut command = minivmm("");
    command.arg(guest.path()).stdout(writer.try_clone().unwrap());
    let running = Running::start(command);
    read_exactly(&mut reader, 1);
    assert!(!is_nonblocking(&writer), "while it runs");
    running.signal(Signal::SIGTERM);
    running.finish().assert_code(143);
    assert!(!is_nonblocking(&writer), "after the run");
}

#[test]
fn a_nonblocking_output_loses_nothing_and_stays_so() {
    if !require_kvm() {
        return;
    }
    // Full, so that the first write already is refused.
    let (mut reader, writer, filling) = full_pipe();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let ours = writer.try_clone().unwrap();
    let mut command = storm();
    command.env("RUST_LOG", "minivmm::vcpu=debug").stdout(writer);
    let mut running = Running::start(command);
    running.wait_for_stderr("vCPU 0 has ended");
    let bytes = read_exactly(&mut reader, filling + 2 * STORM_BYTES);
    running.finish().assert_code(0);
    assert_is_storm(&bytes[filling..]);
    assert!(is_nonblocking(&ours));
    drop(ours);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "no byte more");
}

#[test]
fn a_flood_of_input_comes_back_unchanged() {
    if !require_kvm() {
        return;
    }
    // Every byte but Ctrl-D, which ends the echo.
    let text: Vec<u8> = (0..=u8::MAX).filter(|byte| *byte != 4).cycle().take(100_000).collect();
    let mut command = minivmm("--demo echo");
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.stdin();
    let flood = [&text[..], b"\x04"].concat();
    let typist = thread::spawn(move || stdin.write_all(&flood).unwrap());
    let run = running.finish().assert_code(0);
    typist.join().unwrap();
    assert!(run.stdout == text, "{} bytes", run.stdout.len());
    assert_eq!(run.stderr, "");
}

#[test]
fn a_file_as_input_is_read_to_its_end() {
    if !require_kvm() {
        return;
    }
    let text = image(b"from a file\n\x04");
    let mut command = minivmm("--demo echo");
    command.stdin(text.reopen().unwrap());
    run(command).assert_code(0).assert_prints(b"from a file\n");
}

#[test]
fn no_input_is_no_error() {
    if !require_kvm() {
        return;
    }
    run(minivmm("--demo hello")).assert_code(0).assert_prints(b"4\nHello\n");
    let closed = minivmm_in_shell(r#"exec "$@" <&-"#, "--demo hello");
    run(closed).assert_code(0).assert_prints(b"4\nHello\n");
}

#[test]
fn every_standard_file_may_be_closed() {
    if require_kvm() {
        let closed = minivmm_in_shell(r#"exec "$@" <&- >&- 2>&-"#, "--demo exit-code");
        run(closed).assert_code(43).assert_prints(b"");
    }
}

#[test]
fn a_guest_that_does_not_read_ends_despite_its_input() {
    if !require_kvm() {
        return;
    }
    let mut command = minivmm("--demo hello");
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.stdin();
    // More than anything between here and the guest holds, so this waits for the end of minivmm.
    let typist = thread::spawn(move || stdin.write_all(&[b'x'; 1 << 20]));
    running.finish().assert_code(0).assert_prints(b"4\nHello\n");
    assert_eq!(typist.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_driver_that_clears_the_fifo_when_it_starts_loses_no_input() {
    if !require_kvm() {
        return;
    }
    let guest = image(&[
        0xba, 0xfd, 0x03, // mov dx, LSR
        0xec, 0xa8, 0x01, // in al, dx; test al, DR
        0x74, 0xfb, // jz: until there is input
        0xba, 0xfa, 0x03, 0xb0, 0x07, 0xee, // mov dx, FCR; mov al, 7; out dx, al
        0xb9, 0x06, 0x00, // mov cx, 6
        0xba, 0xfd, 0x03, // again: mov dx, LSR
        0xec, 0xa8, 0x01, 0x74, 0xfb, // until there is input
        0xba, 0xf8, 0x03, 0xec, 0xee, // mov dx, RBR; in al, dx; out dx, al
        0xe2, 0xf1, // loop again
        0xf4, // hlt
    ]);
    let mut command = minivmm("");
    command.arg(guest.path()).stdin(Stdio::piped());
    let mut running = Running::start(command);
    running.stdin().write_all(b"abcdef").unwrap();
    running.finish().assert_code(0).assert_prints(b"abcdef");
}

#[test]
fn what_nobody_read_from_a_pty_is_counted() {
    if !require_kvm() {
        return;
    }
    let mut running = Running::start(minivmm("-vv --demo hello --serial pty"));
    running.wait_for_stderr("has ended: Halted");
    running.signal(Signal::SIGTERM);
    let run = running.finish().assert_code(143);
    assert_eq!(not_written(&run), 8, "4\\nHello\\n");
}
