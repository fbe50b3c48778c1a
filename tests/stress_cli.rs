//! Campaigns as a careless user asks for them: values that are none, files that are in use, places
//! that cannot be written.

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::NamedTempFile;

use support::{image, minivmm, minivmm_in_shell, require_kvm, run};

fn path_of(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
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
    let guest = image(&[0xf4]);
    let path = path_of(&guest);
    let before = fs::read(&guest).unwrap();
    run(minivmm(&format!("--repeat 2 --result {path} {path}")))
        .assert_code(2)
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
            .assert_code(2)
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
