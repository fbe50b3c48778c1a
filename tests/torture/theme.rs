//! A theme: one kind of torture, round after round. It runs in a process of its own, since threads
//! and descriptors are counted by process, and no theme runs beside another.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use minivmm::stress::seed::Seed;
use minivmm::sync::Mutex;

use crate::baseline::Baseline;
use crate::draw::Draw;
use crate::support::require_kvm;
use crate::watchdog;

/// How long all themes together are to go on; the short version if it is not set.
const DURATION: &str = "MINIVMM_TORTURE";
/// The round with this seed is to run, and no other.
const SEED: &str = "MINIVMM_TORTURE_SEED";
/// Set in the process that is a theme's own.
const ALONE: &str = "MINIVMM_TORTURE_ALONE";
/// The message of a panic that is part of the torture begins with it.
pub const INJECTED: &str = "injected by the torture";

/// How many rounds a theme has.
#[derive(Clone, Copy)]
pub struct Rounds {
    /// In the short version.
    pub short: u64,
    /// At least, in the long one.
    pub long: u64,
}

impl Rounds {
    /// So many, or as many as there is time for.
    pub const fn short(short: u64) -> Self {
        Self { short, long: short }
    }
}

/// Runs the theme whose test has this name, with its module's.
pub fn torture(test: &str, rounds: Rounds, round: impl FnMut(&mut Draw)) {
    torture_in(&[], test, rounds, round);
}

/// The same, in a process with these environment variables.
pub fn torture_in(
    environment: &[(&str, &str)],
    test: &str,
    rounds: Rounds,
    round: impl FnMut(&mut Draw),
) {
    static TURN: Mutex<()> = Mutex::new(());
    if !require_kvm() {
        return;
    }
    if env::var_os(ALONE).is_some() {
        run(test, rounds, round);
        return;
    }
    let _turn = TURN.lock();
    let run = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .envs(environment.iter().copied())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{}: {stdout}", run.status);
    assert!(stdout.contains("1 passed"), "no test is called {test}: {stdout}");
}

fn run(test: &str, rounds: Rounds, mut round: impl FnMut(&mut Draw)) {
    silence_injected_panics();
    watchdog::start();
    let mut run_one = |seed: Seed| {
        let baseline = Baseline::take();
        let _watched = watchdog::expect_soon(format!("{test}, seed {seed}"));
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            round(&mut Draw::new(seed));
            baseline.assert_restored();
        }));
        if let Err(payload) = result {
            eprintln!("again: {SEED}={seed} cargo test --test torture -- --exact {test}");
            panic::resume_unwind(payload);
        }
    };
    if let Ok(seed) = env::var(SEED) {
        run_one(seed.parse().unwrap());
        return;
    }
    let base = Seed(drawn());
    let limit = env::var(DURATION).ok().map(|text| humantime::parse_duration(&text).unwrap());
    let share = limit.map_or(Duration::ZERO, |limit| limit / themes());
    let least = if limit.is_some() { rounds.long } else { rounds.short };
    let began = Instant::now();
    for number in 0.. {
        if number >= least && began.elapsed() >= share {
            if limit.is_some() {
                eprintln!("{test}: {number} rounds in {:.0?}", began.elapsed());
            }
            return;
        }
        run_one(base.iteration(number));
    }
}

/// How many themes share the time.
fn themes() -> u32 {
    let list = Command::new(env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    list.lines().filter(|line| line.ends_with(": test")).count().try_into().unwrap()
}

/// A number that nobody has chosen.
fn drawn() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};

    RandomState::new().build_hasher().finish()
}

fn silence_injected_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        if !text.starts_with(INJECTED) {
            before(info);
        }
    }));
}
