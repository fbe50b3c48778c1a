//! Signals and time: whatever the guest does, the process ends when it is told to, with the exit
//! code that says why. What signals do to output that is stalled is in `output.rs`, to the
//! terminal in `terminal.rs`.

mod support;

use std::process::ChildStdout;

use nix::sys::signal::Signal;

use support::{Running, minivmm, minivmm_in_shell, prompting, require_kvm, run};

/// Starts spinning vCPUs and waits until all of them run. They have nothing to do but to be
/// stopped; their output is kept open so that nothing else ends them.
fn spinning(vcpus: usize) -> (Running, ChildStdout) {
    let guest = prompting("spin");
    let mut command = minivmm(&format!("-q --vcpus {vcpus}"));
    command.arg(guest.path());
    let mut running = Running::start(command);
    let stdout = running.wait_for_prompts(vcpus);
    (running, stdout)
}

#[track_caller]
fn assert_ends(signal: Signal, code: i32) {
    if !require_kvm() {
        return;
    }
    for vcpus in [1, 4, 64] {
        let (running, _stdout) = spinning(vcpus);
        running.signal(signal);
        running.finish().assert_code(code).assert_prints(b"");
    }
}

#[test]
fn sigint_ends_spinning_vcpus_with_130() {
    assert_ends(Signal::SIGINT, 130);
}

#[test]
fn sigterm_ends_spinning_vcpus_with_143() {
    assert_ends(Signal::SIGTERM, 143);
}

#[test]
fn sighup_ends_spinning_vcpus_with_129() {
    assert_ends(Signal::SIGHUP, 129);
}

#[test]
fn sigquit_ends_spinning_vcpus_with_131() {
    assert_ends(Signal::SIGQUIT, 131);
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    if !require_kvm() {
        return;
    }
    let guest = prompting("spin");
    let mut command = minivmm_in_shell("trap '' HUP; exec \"$@\"", "-q");
    command.arg(guest.path());
    let mut running = Running::start(command);
    let _stdout = running.wait_for_prompts(1);
    running.signal(Signal::SIGHUP);
    running.signal(Signal::SIGTERM);
    running.finish().assert_code(143);
}

#[test]
fn signals_that_were_blocked_at_the_start_do_not_keep_vcpus_from_stopping() {
    if !require_kvm() {
        return;
    }
    let command =
        minivmm_in_shell("exec env --block-signal \"$@\"", "--demo spin --vcpus 4 --timeout 200ms");
    run(command).assert_code(124).assert_says("time-out");
}

#[test]
fn the_same_signal_twice_is_as_good_as_once() {
    if !require_kvm() {
        return;
    }
    let (running, _stdout) = spinning(4);
    running.signal(Signal::SIGTERM);
    // May come when the first has done its work and the process is about to exit.
    running.signal(Signal::SIGTERM);
    running.finish_as_in_a_shell().assert_code(143).assert_prints(b"");
}

#[test]
fn a_stopped_process_goes_on_and_still_takes_signals() {
    if !require_kvm() {
        return;
    }
    // Of the two only SIGTSTP can be caught, and is.
    for stop in [Signal::SIGSTOP, Signal::SIGTSTP] {
        let (running, _stdout) = spinning(4);
        running.signal(stop);
        running.wait_until_stopped();
        running.signal(Signal::SIGCONT);
        running.signal(Signal::SIGTERM);
        running.finish().assert_code(143).assert_prints(b"");
    }
}

#[test]
fn a_signal_while_stopped_counts_once_the_process_goes_on() {
    if !require_kvm() {
        return;
    }
    let (running, _stdout) = spinning(1);
    running.signal(Signal::SIGSTOP);
    running.wait_until_stopped();
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGCONT);
    running.finish().assert_code(143);
}

#[test]
fn the_time_limit_ends_spinning_vcpus_and_says_where_each_was() {
    if !require_kvm() {
        return;
    }
    let run = run(minivmm("-q --demo spin --vcpus 16 --timeout 100ms")).assert_code(124);
    assert_eq!(run.stdout, b"");
    let stderr = &run.stderr;
    assert!(stderr.starts_with("minivmm: time-out: the guest still ran after 100ms\n"), "{stderr}");
    for vcpu in 0..16 {
        let line = format!("\nvCPU {vcpu}: ");
        let rest = stderr.split_once(&line).unwrap_or_else(|| panic!("no {line:?} in {stderr}")).1;
        assert!(rest.lines().next().unwrap().contains("stopped at cs:rip 0x"), "{stderr}");
    }
}

#[test]
fn a_guest_that_ends_in_time_is_not_touched_by_the_time_limit() {
    if require_kvm() {
        run(minivmm("--demo hello --timeout 1h")).assert_code(0).assert_prints(b"4\nHello\n");
    }
}
