//! Results as JSON: what is written, and what is refused.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::stress::result::tests::{empty, failure, json_of, witness};
use crate::stress::result::{Cut, Disturbances};
use crate::stress::seed::Seed;

/// A result with one of everything, as JSON.
fn example() -> Value {
    let mut result = empty("2/2", 10, "expect 0x1");
    result.add_outcome(1, "one", 3, witness(1));
    result.add_outcome(u64::MAX, "", 1, witness(5));
    result.add_pass();
    result.add_failure(failure(3, 8));
    [5, 7].into_iter().for_each(|skew| result.add_skew(skew));
    result.add_disturbances(Disturbances { perturbations: 12, preemptions: 1 });
    result.add_elapsed(Duration::from_millis(1500));
    result.add_cut(Cut { why: "SIGINT".into(), exit_code: 130 });
    serde_json::from_slice(&json_of(&result)).unwrap()
}

#[test]
fn the_names_in_the_file_do_not_change() {
    let seed = |iteration| Seed(42).iteration(iteration).to_string();
    let expected = json!({
        "format": "minivmm-stress",
        "version": 1,
        "exit_code": 8,
        "guest": {
            "name": "litmus-sb",
            "source": "dir/litmus-sb.bin",
            "bytes": 5,
            "crc32": crc32fast::hash(b"image"),
        },
        "settings": {
            "minivmm": "0.1.0",
            "seed": "0x2a",
            "vcpus": 2,
            "memory_bytes": 1_048_576,
            "mode": "long",
            "options": { "start": "together" },
        },
        "shards": { "count": 2, "present": [2] },
        "iterations": { "asked": 10, "run": 2, "passed": 1, "failed": 1 },
        "cuts": [{ "why": "SIGINT", "exit_code": 130 }],
        "elapsed_ns": 1_500_000_000,
        "conditions": [{
            "condition": "expect 0x1",
            "standing": "holds",
            "matched": 3,
            "witness": { "iteration": 1, "seed": seed(1) },
        }],
        "failures": [{
            "iteration": 3,
            "seed": seed(3),
            "what": "vCPU 1: triple fault",
            "exit_code": 8,
            "command": format!("minivmm --seed {} litmus-sb.bin", seed(3)),
        }],
        "start_skew": {
            "count": 2, "median_ns": 5, "p99_ns": 7, "min_ns": 5, "max_ns": 7,
            "buckets": [[5, 1], [7, 1]],
        },
        "disturbances": { "perturbations": 12, "preemptions": 1 },
        "other": 0,
        "states": [
            {
                "value": "0x1", "label": "one", "count": 3,
                "witness": { "iteration": 1, "seed": seed(1) },
            },
            {
                "value": "0xffffffffffffffff", "label": "", "count": 1,
                "witness": { "iteration": 5, "seed": seed(5) },
            },
        ],
    });
    assert_eq!(example(), expected);
}

#[test]
fn what_is_no_result_is_refused_with_the_reason() {
    let refused = |text: &str| CampaignResult::from_json(text.as_bytes()).unwrap_err();
    for (text, why) in [
        ("", "is not JSON: EOF while parsing a value at line 1 column 0"),
        ("{\n  \"format\": ]", "is not JSON: expected value at line 2 column 13"),
        ("{} x", "is not JSON: trailing characters at line 1 column 4"),
        ("3", "is no result of a campaign: its format is none, not \"minivmm-stress\""),
        ("{}", "is no result of a campaign: its format is none"),
        ("{\"format\": 3}", "is no result of a campaign: its format is 3"),
        (
            "{\"format\": \"minivmm-summary\", \"version\": 1}",
            "is no result of a campaign: its format is \"minivmm-summary\", not \"minivmm-stress\"",
        ),
        (
            "{\"format\": \"minivmm-stress\", \"version\": 2}",
            "has version 2 of the format, and this minivmm knows those up to 1",
        ),
        (
            "{\"format\": \"minivmm-stress\", \"version\": 1}",
            "is no whole result: missing field `guest` at line 1 column 42",
        ),
    ] {
        let error = refused(text).to_string();
        assert!(error.starts_with(why), "{text}: {error}");
    }
}

#[test]
fn names_that_are_not_known_are_passed_over() {
    let mut json = example();
    json["new"] = json!({ "of": "a later version" });
    json["guest"]["new"] = json!(1);
    assert!(CampaignResult::from_json(json.to_string().as_bytes()).is_ok());
}

#[test]
fn values_that_cannot_be_are_refused() {
    let of_others = "an outcome is of an iteration that it does not have";
    for (path, value, why) in [
        ("/version", json!(0), "there is no version 0"),
        ("/version", json!("1"), "invalid type"),
        ("/settings/seed", json!("0x"), "'0x' is not a number"),
        ("/settings/seed", json!(42), "invalid type: integer `42`"),
        ("/settings/mode", json!("smm"), "'smm' is not a CPU mode"),
        ("/shards/present", json!([]), "it has no shards"),
        ("/shards/present", json!([3]), "some that do not exist"),
        ("/shards/count", json!(0), "some that do not exist"),
        ("/iterations/run", json!(3), "are not those that were run"),
        ("/iterations/passed", json!(u64::MAX), "are not those that were run"),
        ("/iterations", json!({"asked": 2, "run": 2, "passed": 1, "failed": 1}), "more iterations"),
        ("/iterations", json!({"asked": 10, "run": 3, "passed": 1, "failed": 2}), "as many as"),
        ("/failures/0/exit_code", json!(0), "invalid value: integer `0`"),
        ("/failures/0/exit_code", json!(256), "invalid value: integer `256`"),
        ("/failures/0/iteration", json!(2), "a failure is of an iteration that it does not have"),
        ("/failures/0/iteration", json!(11), "a failure is of an iteration that it does not have"),
        ("/conditions/0/condition", json!("0x1"), "'0x1' is no requirement"),
        ("/conditions/0/condition", json!("expect 0x5"), "not as many outcomes as the states say"),
        ("/conditions/0/matched", json!(4), "not as many outcomes as the states say"),
        ("/conditions/0/matched", json!(0), "outcomes and no iteration, or the other way round"),
        ("/conditions/0/witness", Value::Null, "outcomes and no iteration"),
        ("/conditions/0/witness/iteration", json!(0), of_others),
        ("/start_skew/min_ns", Value::Null, "the buckets of its start skew"),
        ("/start_skew/buckets/0/1", json!(0), "the buckets of its start skew"),
        ("/other", json!(1), "as many states as it should"),
        ("/other", json!(-1), "invalid value: integer `-1`"),
        ("/states/0/count", json!(0), "a state was never seen"),
        ("/states/0/label", json!("x".repeat(65)), "a label is too long"),
        ("/states/0/witness/iteration", json!(10), of_others),
        ("/states/1", example()["states"][0].clone(), "a state is there twice"),
    ] {
        let mut json = example();
        *json.pointer_mut(path).unwrap() = value;
        let error = CampaignResult::from_json(json.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, FormError::Names(_) | FormError::Impossible(_)), "{path}");
        assert!(error.to_string().contains(why), "{path}: {error}");
    }
}
