//! Stops at random moments: from the start of the VM to after its end, in the middle of output, of
//! campaigns and of each other.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use minivmm::outcome::VmOutcome;
use minivmm::stress::result::CampaignResult;
use nix::sys::signal::{Signal, kill};

use crate::draw::Draw;
use crate::support::{Finished, Running, minivmm};
use crate::theme::{Rounds, torture};
use crate::vm::{TestVm, assert_is_storm_cut_short, guest};

/// Bytes from each vCPU: some runs end before they are stopped.
const BYTES: u16 = 1500;

const SIGNALS: [(Signal, i32); 4] =
    [(Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131), (Signal::SIGTERM, 143)];

#[test]
fn a_stop_at_any_moment_accounts_for_every_byte() {
    torture("stops::a_stop_at_any_moment_accounts_for_every_byte", Rounds::short(40), |draw| {
        let vcpus = draw.count(1..=4);
        let demo = draw.pick(&["uart-storm", "uart-storm-poll"]);
        let vm = TestVm::new(&guest(demo, vcpus, BYTES.into()));
        let stopper = vm.stop_after(draw.time(Duration::from_millis(60)));
        let mut of_reader = draw.fork();
        let slow = draw.number(0..=2) == 0;
        let ran = vm.run_on(move |bytes| {
            if !slow {
                return Ok(bytes.len());
            }
            thread::sleep(of_reader.time(Duration::from_millis(3)));
            // A signal, or a part of what there is.
            match of_reader.number(0..=5) {
                0 => Err(io::ErrorKind::Interrupted.into()),
                _ => Ok(bytes.len().min(of_reader.number(1..=64).try_into().unwrap())),
            }
        });
        stopper.join().unwrap();
        let outcome = &ran.report.outcome;
        assert!(matches!(outcome, VmOutcome::Stopped | VmOutcome::AllHalted), "{outcome}");
        assert_is_storm_cut_short(vcpus, BYTES.into(), &ran.received);
        if matches!(outcome, VmOutcome::AllHalted) {
            let due = u64::from(vcpus) * u64::from(BYTES);
            assert_eq!(ran.report.output.written + ran.report.output.lost, due);
        }
    });
}

/// Runs it and sends it a signal, or two, at random moments.
fn run_and_signal(line: &str, draw: &mut Draw, longest: Duration) -> (Finished, Vec<i32>) {
    let mut running = Running::start(minivmm(line));
    let mut stdout = running.stdout();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut stdout, &mut bytes).unwrap();
        bytes
    });
    let mut codes = vec![0];
    for _ in 0..draw.number(1..=2) {
        thread::sleep(draw.time(longest));
        let (signal, code) = draw.pick(&SIGNALS);
        // It may have ended, but has not been waited for.
        kill(running.pid(), signal).unwrap();
        codes.push(code);
    }
    let mut run = running.finish_as_in_a_shell();
    run.stdout = reader.join().unwrap();
    assert!(codes.contains(&run.code), "{} is none of {codes:?}; {}", run.code, run.stderr);
    (run, codes)
}

#[test]
fn a_signal_at_any_moment_leaves_output_that_is_right_so_far() {
    let name = "stops::a_signal_at_any_moment_leaves_output_that_is_right_so_far";
    torture(name, Rounds::short(25), |draw| {
        let vcpus = draw.count(1..=4);
        let line = format!("-q --demo uart-storm --vcpus {vcpus} --reg rbp={BYTES}");
        let (run, _) = run_and_signal(&line, draw, Duration::from_millis(100));
        assert_is_storm_cut_short(vcpus, BYTES.into(), &run.stdout);
        if run.code == 0 {
            assert_eq!(run.stdout.len(), usize::from(BYTES) * usize::try_from(vcpus).unwrap());
        }
        let said = " bytes of the guest's output were not written\n";
        assert!(run.stderr.is_empty() || run.stderr.ends_with(said), "{}", run.stderr);
    });
}

#[test]
fn a_signal_in_the_middle_of_a_campaign_leaves_its_results() {
    let name = "stops::a_signal_in_the_middle_of_a_campaign_leaves_its_results";
    torture(name, Rounds::short(12), |draw| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        let (vcpus, jobs) = (draw.count(1..=4), draw.count(1..=3));
        let (demo, repeat) = draw.pick(&[("counter", 40), ("spin", 1000), ("hello", 300)]);
        let more = draw.pick(&["", "--chaos", "--lockstep", "--start random"]);
        let line = format!(
            "-q --demo {demo} --vcpus {vcpus} --jobs {jobs} --repeat {repeat} {more} --result {}",
            path.display()
        );
        let (run, _) = run_and_signal(&line, draw, Duration::from_millis(250));
        assert_result(&run, &path, repeat);
    });
}

fn assert_result(run: &Finished, path: &Path, asked: u64) {
    let written = std::fs::read(path).unwrap_or_default();
    if written.is_empty() {
        // Killed before the campaign had begun, when signals were not taken yet.
        assert!(run.code > 128 && run.stdout.is_empty(), "{}: {}", run.code, run.stderr);
        return;
    }
    // A signal that comes after the end of the campaign may still kill the process.
    let result = CampaignResult::from_json(&written).unwrap();
    assert_eq!(result.asked(), asked);
    assert_eq!(result.failed(), 0);
    assert!(result.run() <= asked);
    let cuts: Vec<_> = result.cuts().collect();
    match run.code {
        0 => assert_eq!((result.passed(), cuts.len()), (asked, 0)),
        _ if result.passed() == asked => {}
        code => assert!(cuts.iter().any(|cut| i32::from(cut.exit_code) == code), "{cuts:?}"),
    }
}
