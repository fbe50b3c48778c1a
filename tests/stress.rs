//! Campaigns as a user runs them, on real KVM: what the seed decides, that a failure is found again
//! from what is printed, and how a campaign ends.

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use support::{
    Finished, Running, image, minivmm, minivmm_in_shell, read_exactly, require_kvm, run,
};

/// Runs a campaign, with its result as JSON.
fn campaign(line: &str) -> (Finished, Value) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("result.json");
    let mut command = minivmm(line);
    command.arg("--result").arg(&path);
    let finished = run(command);
    let json = std::fs::read(&path).unwrap();
    let result = serde_json::from_slice(&json)
        .unwrap_or_else(|error| panic!("{error}: {}", finished.stderr));
    (finished, result)
}

/// How often each outcome was seen.
fn states(result: &Value) -> BTreeMap<String, u64> {
    let states = result["states"].as_array().unwrap().iter();
    states
        .map(|state| (state["value"].as_str().unwrap().into(), state["count"].as_u64().unwrap()))
        .collect()
}

/// Real mode, every vCPU: reports a random number, of which the last bit decides whether it fails.
///
/// `mov dx, 0x5e4; in eax, dx; mov dx, 0x5e8; out dx, eax; test al, 7; jz fail; hlt;
/// fail: mov dx, 0x5f8; mov al, 'x'; out dx, al; mov al, 0; out dx, al; hlt`
const ROULETTE: [u8; 25] = [
    0xba, 0xe4, 0x05, 0x66, 0xed, 0xba, 0xe8, 0x05, 0x66, 0xef, 0xa8, 0x07, 0x74, 0x01, 0xf4, 0xba,
    0xf8, 0x05, 0xb0, b'x', 0xee, 0xb0, 0x00, 0xee, 0xf4,
];

/// The part of it that does not fail.
const DRAW: &[u8] = ROULETTE.split_at(10).0;

#[test]
fn the_seed_decides_what_guests_draw() {
    if !require_kvm() {
        return;
    }
    let guest = image(&[DRAW, &[0xf4]].concat());
    let path = guest.path().display();
    let run = |seed| {
        let (finished, result) =
            campaign(&format!("-q {path} --vcpus 2 --repeat 50 --seed {seed} --chaos"));
        finished.assert_code(0);
        states(&result)
    };
    let drawn = run(7);
    assert_eq!(drawn.values().sum::<u64>(), 100, "one from each vCPU in each iteration");
    assert!(drawn.len() > 90, "{drawn:?}");
    assert_eq!(run(7), drawn);
    assert_ne!(run(8), drawn);
}

#[test]
fn a_failure_is_found_again_from_the_command_line_that_is_printed() {
    if !require_kvm() {
        return;
    }
    let guest = image(&ROULETTE);
    let path = guest.path().display();
    let (finished, result) = campaign(&format!("-q {path} --vcpus 2 --until-fail --seed 3"));
    let finished = finished.assert_code(20).assert_says("assertion failed: x");
    let failure = &result["failures"][0];
    assert_eq!(result["iterations"]["failed"], 1);
    let command = failure["command"].as_str().unwrap();
    assert!(finished.stderr.contains(command), "{}", finished.stderr);
    // As a shell has it.
    let mut again = Command::new("sh");
    again.args(["-c", command]).stdin(std::process::Stdio::null());
    again.stdout(std::process::Stdio::piped());
    let what = failure["what"].as_str().unwrap();
    let seed = failure["seed"].as_str().unwrap();
    run(again).assert_code(20).assert_says(&format!("iteration 0 (seed {seed}) failed: {what}"));
}

/// Real mode. vCPU 0 yields 30 times, the others 5 times and halt; each time all of them mix their
/// number into one in memory, which vCPU 0 reports before it ends the iteration.
const ORDER: &[u8] = &[
    0xb9, 5, 0, // mov cx, 5
    0x85, 0xff, // test di, di
    0x75, 3, // jnz 1f
    0xb9, 30, 0, // mov cx, 30
    // 1: imul eax, [0x3000], 3; add eax, edi; inc eax; mov [0x3000], eax
    0x66, 0x6b, 0x06, 0x00, 0x30, 3, 0x66, 0x01, 0xf8, 0x66, 0x40, 0x66, 0xa3, 0x00, 0x30,
    // mov dx, 0x5fc; mov al, 0; out dx, al; loop 1b
    0xba, 0xfc, 0x05, 0xb0, 0, 0xee, 0xe2, 0xe9, //
    0x85, 0xff, // test di, di
    0x75, 16, // jnz 2f
    // mov dx, 0x5e8; mov eax, [0x3000]; out dx, eax; mov al, 0; out 0xf4, al
    0xba, 0xe8, 0x05, 0x66, 0xa1, 0x00, 0x30, 0x66, 0xef, 0xb0, 0, 0xe6, 0xf4, 0x90, 0x90, 0x90,
    0xf4, // 2: hlt
];

/// The records of a trace without times: of each iteration the exits in their order.
fn exits(line: &str) -> Vec<String> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("trace.jsonl");
    let mut command = minivmm(line);
    command.arg("--trace").arg(&path);
    run(command).assert_code(0);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.retain(|record| record["kind"] == "exit");
    records.sort_by_key(|record| record["time_ns"].as_u64());
    let what = |record: &Value| {
        ["source", "seq", "reason", "port", "dir", "size", "data"]
            .map(|name| record[name].to_string())
            .join(" ")
    };
    records.iter().map(what).collect()
}

#[test]
fn in_lockstep_the_same_seed_gives_the_same_trace() {
    if !require_kvm() {
        return;
    }
    let guest = image(ORDER);
    let path = guest.path().display();
    let line =
        |seed| format!("-q {path} --vcpus 3 --repeat 5 --lockstep --chaos=0.1 --seed {seed}");
    let first = exits(&line(1));
    assert!(first.len() > 5 * (30 + 5 + 5), "{}", first.len());
    assert_eq!(exits(&line(1)), first);
    assert_ne!(exits(&line(2)), first);
}

#[test]
fn chaos_changes_nothing_of_what_a_right_guest_does() {
    if !require_kvm() {
        return;
    }
    for start in ["together", "random", "one-by-one", "stagger=100us"] {
        let line = format!("-q --demo counter --vcpus 3 --repeat 4 --chaos=0.5 --start {start}");
        let (finished, result) = campaign(&line);
        finished.assert_code(0);
        assert_eq!(result["iterations"]["passed"], 4, "{start}");
    }
}

#[test]
fn several_vms_share_the_iterations() {
    if !require_kvm() {
        return;
    }
    let guest = image(&ROULETTE);
    let path = guest.path().display();
    let of = |jobs| {
        let line = format!("-q {path} --repeat 60 --keep-going --seed 9 --jobs {jobs}");
        let (_, result) = campaign(&line);
        let failures = result["failures"].as_array().unwrap();
        let iterations: Vec<_> = failures.iter().map(|f| f["iteration"].clone()).collect();
        (states(&result), iterations)
    };
    assert_eq!(of(3), of(1));
}

#[test]
fn what_is_expected_and_forbidden_sets_the_exit_code() {
    if !require_kvm() {
        return;
    }
    // mov dx, 0x5e8; mov eax, 3; out dx, eax; hlt
    let guest = image(&[0xba, 0xe8, 0x05, 0x66, 0xb8, 3, 0, 0, 0, 0x66, 0xef, 0xf4]);
    let path = guest.path().display();
    let code = |options: &str| run(minivmm(&format!("-q {path} --repeat 3 {options}"))).code;
    assert_eq!(code("--expect 3"), 0);
    assert_eq!(code("--expect 4"), 22);
    assert_eq!(code("--forbid 4"), 0);
    assert_eq!(code("--forbid 0-7"), 22);
    assert_eq!(code("--expect 3 --expect 5"), 22);
    assert_eq!(code("--expect 3,5 --forbid 0x1/0xff"), 0);
}

#[test]
fn a_guest_that_hangs_fails_its_iteration_and_the_campaign_goes_on() {
    if !require_kvm() {
        return;
    }
    let line = "-q --demo spin --vcpus 2 --repeat 3 --keep-going --iteration-timeout 50ms";
    let (finished, result) = campaign(line);
    finished.assert_code(124).assert_says("the guest still ran after 50ms");
    let iterations = &result["iterations"];
    assert_eq!((&iterations["passed"], &iterations["failed"]), (&0.into(), &3.into()));
}

#[test]
fn the_output_of_an_iteration_is_shown_if_it_fails() {
    if !require_kvm() {
        return;
    }
    run(minivmm("-q --demo exit-code --repeat 1"))
        .assert_code(43)
        .assert_says("output of the iteration:\nbye\n");
    let finished = run(minivmm("-q --demo hello --repeat 2"));
    assert!(!finished.stderr.contains("Hello"), "{}", finished.stderr);
    let finished = run(minivmm("-q --demo hello --repeat 2 --serial stdio"));
    assert_eq!(finished.stdout, b"4\nHello\n4\nHello\n");
}

#[test]
fn sigint_and_a_time_limit_end_a_campaign_with_what_there_is() {
    if !require_kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("result.json");
    let mut command = minivmm("-q --demo hello --repeat 1000000000 --serial stdio");
    command.arg("--result").arg(&path);
    let mut running = Running::start(command);
    // Some iterations have passed.
    let mut output = running.stdout();
    assert_eq!(read_exactly(&mut output, 16), b"4\nHello\n4\nHello\n");
    let drain = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    running.signal(Signal::SIGINT);
    running.finish().assert_code(130).assert_says("Cut short: SIGINT");
    drain.join().unwrap().unwrap();
    let result: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(result["iterations"]["passed"].as_u64().unwrap() >= 2, "{result}");

    let line = "-q --demo hello --repeat 1000000000 --timeout 100ms";
    run(minivmm(line)).assert_code(124);
}

#[test]
fn in_lockstep_an_iteration_is_the_same_alone_in_a_series_and_among_several_vms() {
    if !require_kvm() {
        return;
    }
    let guest = image(ORDER);
    let path = guest.path().display();
    for options in ["--lockstep", "--lockstep --chaos=0.3"] {
        let line = format!("-q {path} --vcpus 3 --repeat 40 --seed 5 {options}");
        let (finished, series) = campaign(&line);
        finished.assert_code(0);
        assert!(states(&series).len() > 20, "{options}: {series}");
        let (_, shared) = campaign(&format!("{line} --jobs 3"));
        assert_eq!(states(&shared), states(&series), "{options}");
        for state in series["states"].as_array().unwrap().iter().take(10) {
            let seed = state["witness"]["seed"].as_str().unwrap();
            let line = format!("-q {path} --vcpus 3 --repeat 1 --seed {seed} {options}");
            let (_, alone) = campaign(&line);
            assert_eq!(alone["states"][0]["value"], state["value"], "{options}, seed {seed}");
        }
    }
}

#[test]
fn a_reader_that_has_gone_ends_a_campaign_with_chaos() {
    if require_kvm() {
        let script = "exec 3>&1; { \"$@\" 2>&4; echo $? >&3; } 4>&2 | head -c 20 > /dev/null";
        let line = "-q --demo hello --repeat 100000000 --serial stdio --chaos";
        let finished = run(minivmm_in_shell(script, line));
        assert_eq!(String::from_utf8_lossy(&finished.stdout), "141\n", "{}", finished.stderr);
    }
}

#[test]
fn standard_error_that_nobody_reads_holds_up_no_time_limit() {
    if !require_kvm() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("stderr");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A reader that does not read. Each failure has more to tell than a pipe's 64 KiB hold.
    let script = format!("exec 7<>{0}; \"$@\" 2>{0}; echo $?", path.display());
    // again: mov dx, 0x3f8; mov al, 'x'; mov cx, 60000; out dx, al; loop; then an unknown end:
    // mov al, 1; out 0xf4, al
    let guest = image(&[
        0xba, 0xf8, 0x03, 0xb0, b'x', 0xb9, 0x60, 0xea, 0xee, 0xe2, 0xfd, 0xb0, 1, 0xe6, 0xf4,
    ]);
    let path = guest.path().display();
    let line = format!("-q {path} --repeat 100 --keep-going --timeout 3s");
    let finished = run(minivmm_in_shell(&script, &line));
    let stdout = String::from_utf8_lossy(&finished.stdout).into_owned();
    assert!(stdout.contains("Cut short: time-out after 3s"), "{stdout}");
    assert!(stdout.ends_with("\n3\n"), "{stdout}");
}
