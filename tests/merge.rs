//! `minivmm merge` as a user runs it, on results that the library has written. Needs no KVM.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use minivmm::config::{CpuMode, GuestSource};
use minivmm::outcome::ExitCode;
use minivmm::stress::histogram::Witness;
use minivmm::stress::result::{CampaignResult, Failure, Guest, Settings};
use minivmm::stress::seed::Seed;
use tempfile::TempDir;

use support::{Finished, minivmm, run};

const SEED: Seed = Seed(0xdead_beef_0000_0001);

const ITERATIONS: u64 = 30;

fn settings() -> Settings {
    Settings {
        minivmm: env!("CARGO_PKG_VERSION").to_owned(),
        seed: SEED,
        vcpus: 2,
        memory_bytes: 1 << 20,
        mode: CpuMode::User,
        options: BTreeMap::from([("chaos".to_owned(), "10%".to_owned())]),
    }
}

/// The result of a shard, or of the whole campaign without one: every iteration has 1000 outcomes
/// 0x0 or 0x1, and iteration 4 one 0x2.
fn campaign(shard: &str, requirements: &[&str]) -> CampaignResult {
    failing_campaign(shard, requirements, None)
}

/// The same, with one iteration that fails, if there is one, and with that exit code.
fn failing_campaign(
    shard: &str,
    requirements: &[&str],
    fails: Option<(u64, NonZeroU8)>,
) -> CampaignResult {
    let guest = Guest::new(&GuestSource::File("litmus-sb.bin".into()), b"litmus");
    let shard = (!shard.is_empty()).then(|| shard.parse().unwrap());
    let requirements: Vec<_> = requirements.iter().map(|text| text.parse().unwrap()).collect();
    let mut result = CampaignResult::new(guest, settings(), ITERATIONS, shard, requirements);
    for iteration in (0..ITERATIONS).filter(|number| shard.is_none_or(|shard| shard.has(*number))) {
        let witness = Witness { iteration, seed: SEED.iteration(iteration) };
        result.add_outcome(iteration % 2, "even or odd", 1000, witness);
        if iteration == 4 {
            result.add_outcome(2, "", 1, witness);
        }
        result.add_skew(1000 + iteration);
        match fails.filter(|(number, _)| *number == iteration) {
            Some((_, exit_code)) => result.add_failure(Failure {
                iteration,
                seed: witness.seed,
                what: "vCPU 0: assertion 3 failed".to_owned(),
                exit_code,
                command: format!("minivmm --seed {} litmus-sb.bin", witness.seed),
            }),
            None => result.add_pass(),
        }
    }
    result.add_elapsed(Duration::from_secs(2));
    result
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the results under the names `0`, `1` and so on.
    fn write(&self, results: &[CampaignResult]) {
        for (name, result) in results.iter().enumerate() {
            result.write(&self.path(&name.to_string())).unwrap();
        }
    }

    /// `minivmm merge` in the directory of the files.
    fn merge(&self, line: &str) -> Finished {
        let mut command = minivmm(&format!("merge {line}"));
        command.current_dir(&self.0);
        run(command)
    }

    /// A refusal in one line, which begins with `why`.
    #[track_caller]
    fn refused(&self, line: &str, why: &str) {
        let run = self.merge(line).assert_code(ExitCode::Host as i32);
        assert_eq!(run.stdout, b"", "{line}");
        let message = format!("minivmm: {why}");
        assert!(run.stderr.starts_with(&message), "{line}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

fn text(run: &Finished) -> String {
    String::from_utf8(run.stdout.clone()).unwrap()
}

#[test]
fn three_shards_are_the_campaign() {
    let requirements = ["expect 0x2", "forbid 0x3-0xff"];
    let files = Files::new();
    files.write(&["2/3", "1/3", "3/3"].map(|shard| campaign(shard, &requirements)));
    let run = files.merge("0 1 2 --result sum").assert_code(0);
    let text = text(&run);
    for part in [
        "Test litmus-sb: 30 iterations, 30 passed, 0 failed, seed 0xdeadbeef00000001\n\
         Shards: 1/3, 2/3, 3/3\n\n\
         Histogram (3 states)\n\
         15000 :> 0x0  even or odd\n\
         15000 :> 0x1  even or odd\n    \
         1 *> 0x2\n\
         Ok\n",
        "Condition expect 0x2 is validated\nFirst in iteration 4, seed 0x",
        "Condition forbid 0x3-0xff is validated\nObservation litmus-sb Never 0 30001\n",
        "Start skew of 30 starts: min 1.00 us, ",
        "\nTime litmus-sb 6.00\n",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let sum = CampaignResult::read(&files.path("sum")).unwrap();
    let whole = campaign("", &requirements);
    assert_eq!(sum.histogram(), whole.histogram());
    assert_eq!(sum.tallies(), whole.tallies());
    assert_eq!(sum.skew(), whole.skew());
    assert_eq!(sum.passed(), whole.passed());
    // What was written can be shown again, and is the same.
    files.merge("sum").assert_code(0).assert_prints(text.as_bytes());
}

#[test]
fn sums_of_some_shards_add_up_too() {
    let files = Files::new();
    files.write(&["1/4", "2/4", "3/4", "4/4"].map(|shard| campaign(shard, &[])));
    let all = files.merge("0 1 2 3 --result all").assert_code(0);
    files.merge("3 1 --result even").assert_code(0);
    files.merge("even 2 --result three").assert_code(0);
    let again = files.merge("0 three --result again").assert_code(0);
    assert_eq!(text(&all), text(&again));
    let read = |name| fs::read_to_string(files.path(name)).unwrap();
    assert_eq!(read("all"), read("again"));
    let json: serde_json::Value = serde_json::from_str(&read("all")).unwrap();
    assert_eq!(json["settings"]["seed"], "0xdeadbeef00000001");
}

#[test]
fn what_is_expected_is_open_until_all_shards_are_there() {
    let files = Files::new();
    files.write(&["1/3", "2/3", "3/3"].map(|shard| campaign(shard, &["expect 0x7"])));
    let two = files.merge("0 2").assert_code(0);
    for part in [
        "Test litmus-sb: 20 iterations, ",
        "Missing of the 30 iterations of the campaign: shards 2/3\n",
        "Condition expect 0x7 is open until the missing shards are added\n",
    ] {
        assert!(text(&two).contains(part), "no {part:?} in {}", text(&two));
    }
    let three = files.merge("0 2 1").assert_code(ExitCode::Condition as i32);
    assert!(text(&three).contains("Condition expect 0x7 is NOT validated\n"), "{}", text(&three));
}

#[test]
fn the_exit_code_is_that_of_the_first_failure() {
    let files = Files::new();
    let condition = ["forbid 0x2"];
    files.write(&["1/2", "2/2"].map(|shard| campaign(shard, &condition)));
    let run = files.merge("1 0").assert_code(ExitCode::Condition as i32);
    assert!(text(&run).contains("Condition forbid 0x2 is NOT validated\n"), "{}", text(&run));
    files.write(&[("1/2", 8, ExitCode::TripleFault), ("2/2", 3, ExitCode::Assertion)].map(
        |(shard, iteration, code)| {
            failing_campaign(shard, &condition, NonZeroU8::new(code as u8).map(|c| (iteration, c)))
        },
    ));
    let run = files.merge("0 1").assert_code(ExitCode::Assertion as i32);
    let failures = format!(
        "Test litmus-sb: 30 iterations, 28 passed, 2 failed, seed 0xdeadbeef00000001\n\
         Shards: 1/2, 2/2\n\nFailures\n  \
         iteration 3, seed {three}, exit code 20: vCPU 0: assertion 3 failed\n    \
         minivmm --seed {three} litmus-sb.bin\n  \
         iteration 8, seed {eight}, exit code 8: vCPU 0: assertion 3 failed\n    \
         minivmm --seed {eight} litmus-sb.bin\n",
        three = SEED.iteration(3),
        eight = SEED.iteration(8),
    );
    assert!(text(&run).starts_with(&failures), "no {failures} in {}", text(&run));
}

#[test]
fn what_cannot_be_added_up_is_refused_in_one_line() {
    let files = Files::new();
    files.write(&[
        campaign("1/2", &[]),
        campaign("2/2", &["forbid 0x0"]),
        campaign("2/3", &[]),
        campaign("", &[]),
    ]);
    let json = fs::read_to_string(files.path("0")).unwrap();
    fs::write(files.path("cut"), &json[..json.len() / 2]).unwrap();
    fs::write(files.path("newer"), json.replace("\"version\": 1", "\"version\": 9")).unwrap();
    fs::write(files.path("wrong"), json.replace("\"passed\": 15", "\"passed\": 14")).unwrap();
    fs::write(files.path("foreign"), "{\"format\": \"minivmm-summary\"}").unwrap();
    fs::write(files.path("image"), [0xf4, 0x00]).unwrap();
    for (line, why) in [
        ("none", "cannot read none: No such file or directory"),
        (".", "cannot read .: Is a directory"),
        ("0 none", "cannot read none: "),
        ("image", "image is not JSON: expected value at line 1 column 1"),
        ("0 cut", "cut is not JSON: EOF while parsing"),
        ("foreign", "foreign is no result of a campaign: its format is \"minivmm-summary\", not "),
        ("newer", "newer has version 9 of the format, and this minivmm knows those up to 1"),
        ("wrong", "wrong is no possible result: the iterations that passed and failed are not "),
        ("0 1", "cannot add 1: its conditions are 'forbid 0x0', not none"),
        ("0 2", "cannot add 2: it is of 3 shards, not of 2"),
        ("0 3", "cannot add 3: only shards can be added up, and it is of a whole campaign"),
        ("0 0", "cannot add 0: shard 1/2 is there already"),
        ("0 1 --result ./1", "./1 is one of the results to be added up"),
        ("0 --result none/sum", "cannot write none/sum: No such file or directory"),
    ] {
        files.refused(line, why);
    }
    let usage = files.merge("").assert_code(ExitCode::Usage as i32);
    assert!(usage.stderr.contains("Usage: minivmm merge"), "{}", usage.stderr);
}
