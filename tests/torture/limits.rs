//! Runs with too little memory and too few descriptors, from far too little to enough: each works
//! or says in one clear line what it lacks, with an exit code that is documented.

use std::sync::OnceLock;

use minivmm::campaign::{self, ReplayCommand};
use minivmm::config::SerialConfig;
use minivmm::stress::config::StressConfig;
use minivmm::trace::tracer::TraceSetup;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::draw::Draw;
use crate::support::{Finished, Running, minivmm_in_shell};
use crate::theme::{Rounds, torture, torture_in};
use crate::vm::guest;

const SUCCESS: i32 = 0;
const HOST_ERROR: i32 = 4;
/// SIGABRT.
const ABORTED: i32 = 134;
const NOT_WRITTEN: &str = " bytes of the guest's output were not written";

fn draw_line(draw: &mut Draw) -> String {
    let vcpus = draw.count(1..=4);
    let more = draw.pick(&["", "", "--repeat 3", "--repeat 4 --jobs 2", "--stats", "--trace -"]);
    let memory = draw.pick(&["64K", "4M", "64M"]);
    format!("-q --demo smp-hello --vcpus {vcpus} --memory {memory} {more}")
}

/// Runs it with a limit that the shell sets.
fn run_limited(limit: &str, line: &str) -> Finished {
    let script = format!("ulimit {limit}; exec \"$@\"");
    Running::start(minivmm_in_shell(&script, line)).finish_as_in_a_shell()
}

#[track_caller]
fn assert_works_or_says_why(run: &Finished, limit: &str, line: &str) {
    // The standard library takes memory for its threads past the program's allocator, and aborts.
    if run.stderr.contains("memory allocation of ") {
        assert!([ABORTED, HOST_ERROR].contains(&run.code), "{}", run.code);
        return;
    }
    let said = format!("{limit}, {line}: exit code {}, {}", run.code, run.stderr);
    assert!([SUCCESS, HOST_ERROR].contains(&run.code), "{said}");
    if run.code == HOST_ERROR {
        // What is lost by the end is said in a line of its own.
        let is_why = |text: &&str| text.starts_with("minivmm: ") && !text.ends_with(NOT_WRITTEN);
        let of_minivmm: Vec<_> = run.stderr.lines().filter(is_why).collect();
        // Of two VMs each may say what it lacks.
        let vms = if line.contains("--jobs 2") { 2 } else { 1 };
        assert!((1..=vms).contains(&of_minivmm.len()), "{said}");
        for text in of_minivmm {
            // The operating system's words alone do not say what has failed.
            assert!(text.matches(": ").count() >= 2, "{said}");
        }
    }
}

#[test]
fn too_few_descriptors_are_said() {
    torture("limits::too_few_descriptors_are_said", Rounds::short(1), |draw| {
        for descriptors in 3..=40 {
            let line = draw_line(draw);
            let limit = format!("-n {descriptors}");
            assert_works_or_says_why(&run_limited(&limit, &line), &limit, &line);
        }
    });
}

#[test]
fn a_limit_on_descriptors_that_may_be_raised_is_no_limit() {
    let name = "limits::a_limit_on_descriptors_that_may_be_raised_is_no_limit";
    torture(name, Rounds::short(1), |draw| {
        let (vcpus, jobs) = (draw.count(1..=3), draw.count(30..=50));
        let line = format!("-q --demo hello --vcpus {vcpus} --jobs {jobs} --repeat 60");
        let run = run_limited("-Sn 64", &line).assert_code(SUCCESS);
        assert!(String::from_utf8(run.stdout).unwrap().contains("60 passed"));
    });
}

#[test]
fn too_little_memory_is_said() {
    torture("limits::too_little_memory_is_said", Rounds::short(60), |draw| {
        let line = draw_line(draw);
        // Most of what can fail does so in the first few MiB.
        let more = draw.pick(&[1 << 10, 16 << 10, 64 << 10, 512 << 10]);
        let least = least_memory();
        let limit = format!("-v {}", draw.number(least..=least + more));
        assert_works_or_says_why(&run_limited(&limit, &line), &limit, &line);
    });
}

/// How many KiB the program needs to be loaded at all. With less, the kernel kills it before it
/// runs.
fn least_memory() -> u64 {
    static FOUND: OnceLock<u64> = OnceLock::new();
    let image = std::fs::metadata(env!("CARGO_BIN_EXE_minivmm")).unwrap().len();
    let runs = |kib: &u64| run_limited(&format!("-v {kib}"), "--version").code == SUCCESS;
    *FOUND.get_or_init(|| (0..=image >> 10).step_by(256).find(runs).unwrap())
}

#[test]
fn a_campaign_that_cannot_start_all_its_vms_leaves_none() {
    let name = "limits::a_campaign_that_cannot_start_all_its_vms_leaves_none";
    // Stacks so large that once there is no room for another there is still much for all that is
    // small, and an allocator that does not take address space for each thread.
    const STACK: u64 = 64 << 20;
    let environment = [("RUST_MIN_STACK", &*STACK.to_string()), ("MALLOC_ARENA_MAX", "1")];
    torture_in(&environment, name, Rounds::short(10), |draw| {
        let mut config = guest("spin", draw.count(1..=2), 0);
        config.memory = "64K".parse().unwrap();
        config.serial = SerialConfig::Kept;
        let stress = StressConfig { jobs: 8, ..StressConfig::default() };
        config.stress = Some(stress.clone());
        config.timeout = Some(std::time::Duration::from_millis(50));
        let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        let soft = memory_in_use() + draw.number(0..=20) * STACK + STACK / 2;
        setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
        let command = ReplayCommand::of(["minivmm".into()]);
        let campaign = campaign::run(&config, &stress, TraceSetup::default(), command, true);
        setrlimit(Resource::RLIMIT_AS, hard, hard).unwrap();
        // What it came to depends on who was first to want a stack; the baseline is looked at next.
        if let Ok(campaign) = campaign {
            assert_eq!(campaign.vms.len(), 8);
            assert_ne!(campaign.result.exit_code(), 0);
        }
    });
}

/// The size of this process's address space.
fn memory_in_use() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}
