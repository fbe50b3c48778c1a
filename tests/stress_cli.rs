//! Campaigns as a careless user asks for them: values that are none, files that are in use, places
//! that cannot be written, ends from outside; and what is promised of seeds.

mod support;

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::NamedTempFile;

use support::{Finished, Running, image, minivmm, minivmm_in_shell, require_kvm, run};

/// Real mode: draws a number, reports its lowest 4 bits, and fails if they are 0.
fn fails_now_and_then() -> NamedTempFile {
    image(&[
        0xba, 0xe4, 0x05, 0x66, 0xed, // mov dx, 0x5e4; in eax, dx
        0x66, 0x83, 0xe0, 0x0f, // and eax, 15
        0xba, 0xe8, 0x05, 0x66, 0xef, // mov dx, 0x5e8; out dx, eax
        0x75, 0x09, // jnz done
        0xba, 0xf8, 0x05, 0xb0, b'!', 0xee, // mov dx, 0x5f8; mov al, '!'; out dx, al
        0xb0, 0x0a, 0xee, // mov al, 10; out dx, al
        0xf4, // done: hlt
    ])
}

fn path_of(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A campaign of that guest.
fn campaign(options: &str) -> Finished {
    let guest = fails_now_and_then();
    run(minivmm(&format!("--repeat 100 --seed 3 {options} {}", path_of(&guest))))
}

#[test]
fn a_value_that_is_none_is_shown_with_what_is_wrong() {
    for (options, why) in [
        ("--repeat 0", "'0' for '--repeat <N>': a campaign has at least one iteration"),
        ("--repeat -1", "'-1' is not a number"),
        ("--repeat 1e6", "'1e6' is not a number"),
        ("--repeat 0x10000000000000000", "does not fit in 64 bits"),
        ("--seed -1", "'-1' is not a number"),
        ("--jobs 0", "0 is not in 1..=1024"),
        ("--jobs -1", "-1 is not in 1..=1024"),
        ("--repeat 2 --seed 1 --shard 0/3", "there is no shard 0/3"),
        ("--repeat 2 --shard 1/3", "--seed <SEED>"),
        ("--expect nonsense", "'nonsense' is no outcome"),
        ("--chaos=2", "'2' is not a rate"),
        ("--start later", "'later' is not a way to start"),
        ("--iteration-timeout 0s", "a time-out must be longer than zero"),
    ] {
        run(minivmm(&format!("{options} --demo hello"))).assert_code(2).assert_says(why);
    }
}

#[test]
fn results_never_replace_a_file_that_the_campaign_needs() {
    if !require_kvm() {
        return;
    }
    let guest = fails_now_and_then();
    let path = path_of(&guest);
    let before = fs::read(&guest).unwrap();
    run(minivmm(&format!("--repeat 2 --result {path} {path}")))
        .assert_code(4)
        .assert_says("is also the guest's image");
    assert_eq!(fs::read(&guest).unwrap(), before);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new");
    for (option, what) in [
        ("--trace", "the trace"),
        ("--serial", "the file of the serial port"),
        ("--stats --stats-file", "the file of the statistics"),
    ] {
        let prefix = if option == "--serial" { "file:" } else { "" };
        let file = file.display();
        run(minivmm(&format!("--repeat 2 --result {file} {option} {prefix}{file} {path}")))
            .assert_code(4)
            .assert_says(&format!("is also {what}"));
    }
}

#[test]
fn results_are_written_even_if_the_report_cannot_be() {
    if !require_kvm() {
        return;
    }
    let file = NamedTempFile::new().unwrap();
    let line = format!("--repeat 3 --demo hello --result {}", path_of(&file));
    run(minivmm_in_shell(r#"exec "$@" > /dev/full"#, &line))
        .assert_code(4)
        .assert_says("cannot write to standard output");
    assert_eq!(json(file.path())["iterations"]["passed"], 3);
}

#[test]
fn results_that_cannot_be_written_are_an_error_after_the_report() {
    if !require_kvm() {
        return;
    }
    let finished = run(minivmm("--repeat 3 --demo hello --result /dev/full")).assert_code(4);
    assert!(finished.stdout.starts_with(b"Test hello: 3 iterations, 3 passed"));
    finished.assert_says("cannot write the results to /dev/full");
}

#[test]
fn a_guest_that_is_no_file_is_refused_as_in_a_single_run() {
    if !require_kvm() {
        return;
    }
    for guest in ["/dev/zero", "/"] {
        run(minivmm(&format!("--repeat 2 {guest}")))
            .assert_code(4)
            .assert_says("is not a regular file");
    }
}

#[test]
fn a_start_in_the_far_future_is_only_a_long_iteration() {
    if !require_kvm() {
        return;
    }
    // More than any clock counts.
    let start = "--start stagger=500000000000y --iteration-timeout 50ms";
    run(minivmm(&format!("--repeat 2 --vcpus 2 {start} --demo hello")))
        .assert_code(124)
        .assert_says("the guest still ran after 50ms");
}

#[test]
fn an_end_from_outside_leaves_the_results_so_far() {
    if !require_kvm() {
        return;
    }
    let file = NamedTempFile::new().unwrap();
    let guest = support::prompting("spin");
    let line = format!(
        "--repeat 1000 --seed 1 --serial stdio --result {} {}",
        path_of(&file),
        path_of(&guest)
    );
    let mut running = Running::start(minivmm(&line));
    let _stdout = running.wait_for_prompts(1);
    running.signal(Signal::SIGINT);
    running.finish().assert_code(130).assert_says("Cut short: SIGINT");
    let result = json(file.path());
    assert_eq!(result["cuts"][0]["why"], "SIGINT");
    assert_eq!(result["iterations"]["asked"], 1000);
}

#[test]
fn a_printed_command_fails_again_and_its_neighbours_pass() {
    if !require_kvm() {
        return;
    }
    let finished = campaign("").assert_code(20);
    let (_, command) = finished.stderr.split_once("again, alone: ").unwrap();
    let words: Vec<_> = command.trim_end().split(' ').collect();
    let seed = words.iter().position(|word| *word == "--seed").map(|at| words[at + 1]).unwrap();

    let guest = fails_now_and_then();
    let alone = |seed: &str| run(minivmm(&format!("--repeat 1 --seed {seed} {}", path_of(&guest))));
    alone(seed).assert_code(20);
    // The whole campaign says the same of it.
    let file = NamedTempFile::new().unwrap();
    let all = campaign(&format!("--keep-going --result {}", path_of(&file)));
    all.assert_code(20);
    let result = json(file.path());
    assert_eq!(result["failures"][0]["seed"], seed);
    assert_eq!(result["iterations"]["run"], 100);
    let zero = result["states"].as_array().unwrap().iter().find(|state| state["value"] == "0x0");
    assert_eq!(zero.unwrap()["count"], result["iterations"]["failed"]);
    alone("3").assert_code(0);
}

/// Which vCPU made which exits in which order, without any time. Again until no vCPU was kept off
/// its CPU for so long that another one got its turn, of which minivmm warns.
fn exits_in_lockstep(seed: u32) -> Vec<String> {
    let trace = NamedTempFile::with_suffix(".csv").unwrap();
    let line = format!(
        "--vcpus 3 --repeat 5 --lockstep --chaos --seed {seed} --trace {} --demo hello",
        path_of(&trace)
    );
    for _ in 0..20 {
        let finished = run(minivmm(&line)).assert_code(0);
        if finished.stderr.contains("lockstep:") {
            continue;
        }
        let text = fs::read_to_string(&trace).unwrap();
        let mut exits: Vec<(u64, String)> = text
            .lines()
            .filter_map(|line| {
                let fields: Vec<_> = line.split(',').collect();
                let &[time, source, "exit", reason, seq, port, ..] = &fields[..] else {
                    return None;
                };
                Some((time.parse().unwrap(), format!("{source} {seq} {reason} {port}")))
            })
            .collect();
        exits.sort();
        return exits.into_iter().map(|(_, exit)| exit).collect();
    }
    panic!("this host never lets three threads take their turns");
}

#[test]
fn in_lockstep_the_same_seed_makes_the_same_exits_in_the_same_order() {
    if !require_kvm() {
        return;
    }
    let exits = exits_in_lockstep(9);
    assert!(exits.len() >= 5 * 3 * 9, "{}", exits.len());
    assert_eq!(exits, exits_in_lockstep(9));
    assert_ne!(exits, exits_in_lockstep(10));
}
