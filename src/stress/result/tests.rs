//! Results: what they say, what adds up to what, and what is no result.

use proptest::collection::vec;
use proptest::prelude::*;

use super::merge::MergeError;
use super::*;
use crate::stress::skew::tests::durations;

pub(in crate::stress) fn settings() -> Settings {
    Settings {
        minivmm: "0.1.0".into(),
        seed: Seed(42),
        vcpus: 2,
        memory_bytes: 1 << 20,
        mode: CpuMode::Long,
        options: BTreeMap::from([("start".into(), "together".into())]),
    }
}

pub(in crate::stress) fn guest(image: &[u8]) -> Guest {
    Guest::new(&GuestSource::File("dir/litmus-sb.bin".into()), image)
}

pub(in crate::stress) fn witness(iteration: u64) -> Witness {
    Witness { iteration, seed: Seed(42).iteration(iteration) }
}

pub(in crate::stress) fn failure(iteration: u64, code: u8) -> Failure {
    Failure {
        iteration,
        seed: Seed(42).iteration(iteration),
        what: "vCPU 1: triple fault".into(),
        exit_code: NonZeroU8::new(code).unwrap(),
        command: format!("minivmm --seed {} litmus-sb.bin", Seed(42).iteration(iteration)),
    }
}

/// A result that has not begun; `requirements` are separated by bars.
pub(in crate::stress) fn empty(shard: &str, asked: u64, requirements: &str) -> CampaignResult {
    let shard = (!shard.is_empty()).then(|| shard.parse().unwrap());
    let all = requirements.split('|').filter(|text| !text.is_empty());
    let requirements: Vec<_> = all.map(|text| text.parse().unwrap()).collect();
    CampaignResult::new(guest(b"image"), settings(), asked, shard, requirements)
}

/// What happens in one iteration.
#[derive(Clone, Debug)]
struct Iteration {
    outcomes: Vec<(u64, &'static str, u64)>,
    exit_code: u8,
    skew: Option<u64>,
}

fn iterations() -> impl Strategy<Value = Vec<Iteration>> {
    let label = prop_oneof![Just(""), Just("a"), Just("0:rax=0; \u{1b}")];
    let outcome = (0_u64..6, label, 0_u64..4);
    let skew = proptest::option::of(0_u64..1 << 20);
    let iteration = (vec(outcome, 0..4), prop_oneof![4 => Just(0), 1 => 1_u8..], skew);
    let iteration =
        iteration.prop_map(|(outcomes, exit_code, skew)| Iteration { outcomes, exit_code, skew });
    vec(iteration, 0..24)
}

/// What comes of these iterations, those of a shard or all.
fn run(iterations: &[Iteration], shard: &str) -> CampaignResult {
    let asked = u64::try_from(iterations.len()).unwrap();
    let mut result = empty(shard, asked, "expect 0x1|forbid 0x5,label=b|forbid 0x2-0x3");
    for (number, iteration) in (0..).zip(iterations) {
        if !result.has(number) {
            continue;
        }
        for (value, label, count) in &iteration.outcomes {
            result.add_outcome(*value, label, *count, witness(number));
        }
        match iteration.exit_code {
            0 => result.add_pass(),
            code => result.add_failure(failure(number, code)),
        }
        iteration.skew.into_iter().for_each(|skew| result.add_skew(skew));
        result.add_elapsed(Duration::from_micros(number));
    }
    result
}

fn sum<const N: usize>(results: [&CampaignResult; N]) -> CampaignResult {
    let mut sum = results[0].clone();
    results[1..].iter().for_each(|result| sum.merge((*result).clone()).unwrap());
    sum
}

pub(super) fn json_of(result: &CampaignResult) -> Vec<u8> {
    let mut json = Vec::new();
    result.write_json(&mut json).unwrap();
    json
}

proptest! {
    #[test]
    fn the_shards_add_up_to_the_whole(iterations in iterations(), count in 1_usize..5) {
        let whole = run(&iterations, "");
        let mut parts = (1..=count).map(|index| run(&iterations, &format!("{index}/{count}")));
        let mut all = parts.next().unwrap();
        for part in parts {
            all.merge(part).unwrap();
        }
        prop_assert_eq!(all.due(), whole.due());
        prop_assert_eq!(all.exit_code(), whole.exit_code());
        prop_assert!(all.verdict().eq(whole.verdict()));
        prop_assert_eq!(all.shards().count(), count);
        all.shards = None;
        prop_assert_eq!(all, whole);
    }

    #[test]
    fn the_order_makes_no_difference(iterations in iterations()) {
        let [a, b, c] = ["1/4", "2/4", "4/4"].map(|shard| run(&iterations, shard));
        let all = sum([&a, &b, &c]);
        prop_assert_eq!(&sum([&c, &b, &a]), &all);
        prop_assert_eq!(&sum([&a, &sum([&b, &c])]), &all);
        prop_assert!(all.missing_shards().eq(["3/4".parse().unwrap()]));
    }

    #[test]
    fn json_and_back(iterations in iterations(), shard in "|[12]/2") {
        let result = run(&iterations, &shard);
        prop_assert_eq!(CampaignResult::from_json(&json_of(&result)).unwrap(), result);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(CampaignResult::from_json(&bytes).is_err());
    }

    #[test]
    fn damaged_json_is_refused_or_is_a_result(
        iterations in iterations(),
        damage in vec(
            (any::<prop::sample::Index>(), prop::sample::select(&b"0129-.x\"{[,:"[..])),
            1..4,
        ),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut json = json_of(&run(&iterations, "1/2"));
        damage.iter().for_each(|(index, byte)| *index.get_mut(&mut json) = *byte);
        cut.into_iter().for_each(|cut| json.truncate(cut.index(json.len())));
        if let Ok(result) = CampaignResult::from_json(&json) {
            prop_assert_eq!(CampaignResult::from_json(&json_of(&result)).unwrap(), result);
        }
    }

    #[test]
    fn any_skew_and_back(values in durations()) {
        let mut result = empty("", 1, "");
        values.iter().for_each(|value| result.add_skew(*value));
        prop_assert_eq!(CampaignResult::from_json(&json_of(&result)).unwrap(), result);
    }
}

#[test]
fn the_exit_code_is_that_of_the_worst() {
    let cut = |exit_code| Cut { why: "time-out".into(), exit_code };
    let mut result = empty("", 100, "expect 0x1|forbid 0x2");
    assert_eq!(result.exit_code(), 22, "what is expected was not seen");
    result.add_cut(cut(0));
    assert_eq!(result.exit_code(), 22, "it was meant to end so");
    result.add_cut(cut(124));
    assert_eq!(result.exit_code(), 124, "there was no time to see it");
    result.add_outcome(2, "", 1, witness(3));
    assert_eq!(result.exit_code(), 22, "what is forbidden was seen");
    result.add_failure(failure(9, 8));
    result.add_failure(failure(7, 43));
    result.add_failure(failure(8, 18));
    assert_eq!(result.exit_code(), 43, "the first iteration that failed");

    let mut result = empty("", 100, "expect 0x1|forbid 0x2");
    result.add_outcome(1, "", 1, witness(3));
    assert_eq!(result.exit_code(), 0);
    assert!(result.verdict().all(|standing| standing == Standing::Holds));
}

#[test]
fn an_expectation_is_open_until_the_last_shard() {
    let [first, second] = ["1/2", "2/2"].map(|shard| empty(shard, 10, "expect 0x1"));
    for part in [&first, &second] {
        assert!(part.verdict().eq([Standing::Open]));
        assert_eq!((part.exit_code(), part.due()), (0, 5));
    }
    let both = sum([&second, &first]);
    assert!(both.verdict().eq([Standing::Violated]));
    assert_eq!((both.exit_code(), both.due()), (22, 10));
}

#[test]
fn what_is_of_another_campaign_is_refused() {
    let base = || empty("1/2", 10, "expect 0x1");
    let with = |change: fn(&mut CampaignResult)| {
        let mut other = empty("2/2", 10, "expect 0x1");
        change(&mut other);
        other
    };
    for (other, why) in [
        (
            with(|r| r.guest = guest(b"other")),
            "its guest is litmus-sb (5 bytes, CRC-32 0xd9583520), not litmus-sb (5 bytes, CRC-32 ",
        ),
        (with(|r| r.settings.seed = Seed(1)), "its seed is 0x1, not 0x2a"),
        (with(|r| r.settings.vcpus = 4), "its number of vCPUs is 4, not 2"),
        (with(|r| r.settings.memory_bytes = 4096), "its memory is 4096 bytes, not 1048576 bytes"),
        (with(|r| r.settings.mode = CpuMode::Real), "its mode is real, not long"),
        (with(|r| r.settings.minivmm = "9".into()), "its version of minivmm is 9, not 0.1.0"),
        (with(|r| r.settings.options.clear()), "its option start is absent, not together"),
        (
            with(|r| {
                r.settings.options.insert("chaos".into(), "\n".into());
            }),
            "its option chaos is \\n, not absent",
        ),
        (empty("2/2", 11, "expect 0x1"), "its number of iterations is 11, not 10"),
        (empty("2/2", 10, "forbid 0x1"), "its conditions are 'forbid 0x1', not 'expect 0x1'"),
        (empty("2/2", 10, ""), "its conditions are none, not 'expect 0x1'"),
        (empty("2/3", 10, "expect 0x1"), "it is of 3 shards, not of 2"),
        (empty("1/2", 10, "expect 0x1"), "shard 1/2 is there already"),
        (empty("", 10, "expect 0x1"), "only shards can be added up, and it is of a whole campaign"),
    ] {
        let mut sum = base();
        let error = sum.merge(other).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
        assert_eq!(sum, base(), "{why}");
    }
    let whole = || empty("", 10, "");
    assert_eq!(whole().merge(whole()), Err(MergeError::Whole("both are")));
}

#[test]
fn names_do_not_matter() {
    let mut a = empty("1/2", 10, "");
    let mut b = empty("2/2", 10, "");
    a.guest.source = "/there/sb.bin".into();
    b.guest.name = "sb".into();
    assert_eq!(sum([&a, &b]), sum([&b, &a]));
}

#[test]
fn the_first_thousand_failures_are_kept() {
    let mut result = empty("", 3000, "");
    (0..2000).rev().for_each(|iteration| result.add_failure(failure(iteration, 8)));
    assert_eq!((result.failed(), result.run()), (2000, 2000));
    assert!(result.failures().map(|failure| failure.iteration).eq(0..1000));
    let again = CampaignResult::from_json(&json_of(&result)).unwrap();
    assert_eq!(again, result);

    let mut failure = failure(0, 8);
    failure.what = "ä".repeat(5000);
    let mut result = empty("", 1, "");
    result.add_failure(failure);
    assert_eq!(result.failures().next().unwrap().what, "ä".repeat(2048));
}

#[test]
fn a_condition_counts_what_the_histogram_does_not_tell_apart() {
    let mut result = empty("", 1, "forbid 0x100000000");
    let most = u64::try_from(Histogram::MAX_STATES).unwrap();
    (0..=most).for_each(|value| result.add_outcome(value, "", 1, witness(0)));
    result.add_outcome(1 << 32, "", 7, witness(0));
    assert_eq!((result.histogram().other(), result.tallies()[0].matched()), (8, 7));
    assert_eq!(result.exit_code(), 22);
    assert_eq!(CampaignResult::from_json(&json_of(&result)).unwrap(), result);
}

#[test]
fn a_guest_is_known_by_its_image() {
    let demo = GuestSource::Demo(minivmm_guests::find("hello").unwrap());
    let guest = Guest::new(&demo, b"123456789");
    assert_eq!((guest.name.as_str(), guest.source.as_str()), ("hello", "demo hello"));
    assert_eq!(guest.to_string(), "hello (9 bytes, CRC-32 0xcbf43926)");
}
