//! The stress guests on real KVM: each is run a few times, on several numbers of vCPUs and in
//! both rings, and what it reports is held against what `expect::stress` says of it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use minivmm_guests::expect::stress::{STRESS_EXPECTS, StressExpect};
use serde_json::Value;

use support::{Finished, minivmm, require_kvm, run};

/// The exit code of a campaign, an iteration of which has failed.
const FAILED: i32 = 20;

/// Iterations of a guest that passes.
const ITERATIONS: u64 = 2;

/// Iterations by when something that comes up in almost every one has come up, even where the
/// host has other work for its CPUs.
const MANY: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ring {
    Three,
    Zero,
}

impl Ring {
    fn mode(self) -> &'static str {
        match self {
            Self::Three => "user",
            Self::Zero => "long",
        }
    }
}

/// Runs a guest as a campaign: how it ended, and how often it reported what.
fn campaign(line: &str) -> (Finished, BTreeMap<(u64, String), u64>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    let mut command = minivmm(line);
    command.arg("--result").arg(&path);
    let finished = run(command);
    let result: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(result["other"], 0, "{line}");
    let states = result["states"].as_array().unwrap().iter().map(|state| {
        let value = state["value"].as_str().unwrap().trim_start_matches("0x");
        let value = u64::from_str_radix(value, 16).unwrap();
        let label = state["label"].as_str().unwrap_or_default().to_owned();
        ((value, label), state["count"].as_u64().unwrap())
    });
    (finished, states.collect())
}

/// What is wrong with how a guest ran.
fn fault_in(expect: &StressExpect, ring: Ring, vcpus: u32) -> Option<String> {
    let must_fail = vcpus < expect.least_vcpus;
    let may_fail = must_fail || (expect.broken && vcpus > 1);
    let (name, mode) = (expect.name, ring.mode());
    let line = format!("-q --demo {name} --mode {mode} --vcpus {vcpus} --repeat {ITERATIONS}");
    let (finished, states) = campaign(&line);

    match (finished.code, may_fail) {
        (0, _) if !must_fail => {}
        (FAILED, true) => {
            let needs = format!("this guest needs --vcpus {}", expect.least_vcpus);
            let told = !must_fail || finished.stderr.contains(&needs);
            return (!told).then(|| format!("no {needs:?} in {}", finished.stderr));
        }
        (code, _) => return Some(format!("exit code {code}: {}", finished.stderr)),
    }
    let odd = states.keys().find(|(value, label)| !expect.allows(vcpus, *value, label));
    if let Some(odd) = odd {
        return Some(format!("outcome {odd:?}"));
    }
    let reports = ITERATIONS * expect.reports[usize::from(ring == Ring::Zero)];
    let seen: u64 = states.values().sum();
    (seen != reports).then(|| format!("{seen} reports instead of {reports}"))
}

fn check_all(ring: Ring, vcpus: u32) {
    if !require_kvm() {
        return;
    }
    let faults: Vec<String> = STRESS_EXPECTS
        .iter()
        .filter_map(|expect| Some((expect.name, fault_in(expect, ring, vcpus)?)))
        .map(|(name, fault)| format!("{name} on {vcpus} vCPUs: {fault}"))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_stress_guest_does_what_it_promises_on_1_vcpu() {
    check_all(Ring::Three, 1);
}

#[test]
fn every_stress_guest_does_what_it_promises_on_2_vcpus() {
    check_all(Ring::Three, 2);
}

#[test]
fn every_stress_guest_does_what_it_promises_on_4_vcpus() {
    check_all(Ring::Three, 4);
}

#[test]
fn every_stress_guest_does_what_it_promises_in_ring_0() {
    check_all(Ring::Zero, 2);
}

/// Whether vCPUs can run at the same time, without which some things do not happen.
fn require_two_cpus() -> bool {
    let enough = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
    if !enough {
        support::skipped("one host CPU: two vCPUs never run at the same time");
    }
    enough
}

#[test]
fn the_broken_lock_is_caught() {
    if !require_kvm() || !require_two_cpus() {
        return;
    }
    let line = format!("-q --demo lock-broken --vcpus 2 --pin auto --repeat {MANY}");
    let (finished, _) = campaign(&line);
    finished.assert_code(FAILED).assert_says("assertion failed: stress/include/locks.h:");
}

#[test]
fn store_buffering_shows_its_relaxed_outcome_in_ring_3() {
    if !require_kvm() || !require_two_cpus() {
        return;
    }
    let line = format!("-q --demo litmus-sb --vcpus 2 --pin auto --repeat {MANY}");
    let (finished, states) = campaign(&line);
    finished.assert_code(0);
    assert!(states.contains_key(&(0, "0:rax=0; 1:rbx=0;".into())), "{states:?}");
}

#[test]
fn tlb_says_that_ring_3_is_not_for_it() {
    if require_kvm() {
        // A stress guest is a campaign of one iteration, whose output is for the user all the same,
        // while the result is on standard error.
        let line = "-q --demo tlb --mode user --vcpus 2";
        let finished = run(minivmm(line)).assert_code(0);
        assert_eq!(finished.stdout, b"tlb: INVLPG and CR3 need ring 0, --mode long\n");
        assert!(finished.stderr.starts_with("Test tlb: 1 iterations, 1 passed"));
    }
}

#[test]
fn the_documented_command_builds_the_documented_guest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(root.join("docs/stress-guests.md")).unwrap();
    let between = |from: &str, to: &str| {
        let (_, rest) = docs.split_once(from).unwrap();
        rest.split_once(to).unwrap().0
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("my-test.c"), between("```c\n", "```")).unwrap();
    std::os::unix::fs::symlink(root.join("guests"), dir.path().join("guests")).unwrap();
    let command = between("$ S=", "\n$ minivmm");
    let mut build = support::command_of("sh", "-ec");
    build.arg(format!("S={}", command.replace("\n$ ", "\n").replace("\n>", "\n")));
    build.current_dir(dir.path());
    run(build).assert_code(0);

    if require_kvm() {
        let mut command = minivmm("-q --mode user --vcpus 2");
        command.arg(dir.path().join("my-test.bin"));
        run(command).assert_code(0).assert_prints(b"");
    }
}

/// Every vCPU's local APIC, and the controllers of all, are the same at the start of each
/// iteration, whatever the iteration before has done to them.
#[test]
fn interrupt_controllers_come_back_as_they_were() {
    if !require_kvm() {
        return;
    }
    for (irqchip, vcpus) in ["kernel", "split"].into_iter().flat_map(|c| [1, 2, 4].map(|n| (c, n)))
    {
        let line = format!(
            "--demo reset-interrupts --irqchip {irqchip} --vcpus {vcpus} --repeat {MANY} \
             --iteration-timeout 1m"
        );
        let (finished, states) = campaign(&line);
        assert_eq!(finished.code, 0, "{line}\n{}", finished.stderr);
        assert_eq!(states.len(), vcpus, "{states:?}");
        assert!(states.values().all(|count| *count == MANY), "{states:?}");
    }
}
