//! SIGSTOP and SIGCONT at random moments.

use std::io::Read;
use std::thread;
use std::time::Duration;

use minivmm_guests::expect::Output;
use nix::sys::signal::{Signal, kill};

use crate::draw::Draw;
use crate::support::{Finished, Running, minivmm};
use crate::theme::{Rounds, torture};

const BYTES: u16 = 3000;

/// Runs it to its end, and stops it and lets it go on all the while.
fn run_stopping(line: &str, draw: &mut Draw) -> Finished {
    let mut running = Running::start(minivmm(line));
    let mut stdout = running.stdout();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        bytes
    });
    // Until its output has been closed; after that it may end at any moment, but its id is its own
    // until it is waited for.
    while !reader.is_finished() {
        thread::sleep(draw.time(Duration::from_millis(20)));
        kill(running.pid(), draw.pick(&[Signal::SIGSTOP, Signal::SIGTSTP])).unwrap();
        thread::sleep(draw.time(Duration::from_millis(10)));
        kill(running.pid(), Signal::SIGCONT).unwrap();
    }
    let mut run = running.finish();
    run.stdout = reader.join().unwrap();
    run
}

#[test]
fn output_is_whole_however_often_the_process_is_stopped() {
    let name = "suspend::output_is_whole_however_often_the_process_is_stopped";
    torture(name, Rounds::short(6), |draw| {
        let vcpus = draw.count(1..=4);
        let line = format!("-q --demo uart-storm --vcpus {vcpus} --reg rbp={BYTES}");
        let run = run_stopping(&line, draw).assert_code(0);
        assert_eq!(Output::Marked(BYTES.into()).check(vcpus, &run.stdout), Ok(()));
        assert_eq!(run.stderr, "");
    });
}

#[test]
fn a_campaign_is_whole_however_often_the_process_is_stopped() {
    let name = "suspend::a_campaign_is_whole_however_often_the_process_is_stopped";
    torture(name, Rounds::short(3), |draw| {
        let (vcpus, jobs) = (draw.count(1..=4), draw.count(1..=3));
        let line = format!("-q --demo counter --vcpus {vcpus} --jobs {jobs} --repeat 10");
        let run = run_stopping(&line, draw).assert_code(0);
        let report = String::from_utf8(run.stdout).unwrap();
        assert!(report.contains("10 passed"), "{report}");
    });
}
