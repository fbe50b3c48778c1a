//! Campaigns that are larger than a machine: shards on real KVM add up to the whole, and the files
//! in docs/campaign/ do what docs/stress.md says of them.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use support::{Finished, image, minivmm, require_kvm, run};

/// Real mode, every vCPU: reports the lowest 3 bits of a random number, and fails if 1 of the next
/// 3 is not set.
///
/// `mov dx, 0x5e4; in eax, dx; mov ecx, eax; and eax, 7; mov dx, 0x5e8; out dx, eax;
/// test cl, 0x38; jz fail; hlt;
/// fail: mov dx, 0x5f8; mov al, 'x'; out dx, al; mov al, 0; out dx, al; hlt`
const DICE: [u8; 33] = [
    0xba, 0xe4, 0x05, 0x66, 0xed, 0x66, 0x89, 0xc1, 0x66, 0x83, 0xe0, 0x07, 0xba, 0xe8, 0x05, 0x66,
    0xef, 0xf6, 0xc1, 0x38, 0x74, 0x01, 0xf4, 0xba, 0xf8, 0x05, 0xb0, b'x', 0xee, 0xb0, 0x00, 0xee,
    0xf4,
];

/// The part of it that does not fail: then what is reported does not depend on who comes first.
const DRAW: &[u8] = DICE.split_at(17).0;

/// Stands in for GNU parallel where there is none: each line of its input for `{}`, one by one.
const PARALLEL: &str = r#"#!/usr/bin/env bash
while [ "${1#--}" != "$1" ]; do
    case $1 in --jobs | --results) shift 2 ;; *) shift ;; esac
done
while read -r line; do "${@//\{\}/$line}"; done
"#;

fn campaign_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/campaign").join(name)
}

fn text_of(name: &str) -> String {
    fs::read_to_string(campaign_file(name)).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Everything of a result that times and shards make no difference to.
fn essence(result: &Value) -> Value {
    let mut essence = result.clone();
    for name in ["elapsed_ns", "start_skew", "shards"] {
        essence.as_object_mut().unwrap().remove(name).unwrap();
    }
    essence
}

/// A directory with minivmm in it, and something called parallel.
struct Tools(TempDir);

impl Tools {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_minivmm"), dir.path().join("minivmm")).unwrap();
        if run(sh("command -v parallel")).code != 0 {
            let parallel = dir.path().join("parallel");
            fs::write(&parallel, PARALLEL).unwrap();
            fs::set_permissions(&parallel, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    /// Has `command` find them first.
    fn lead(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.0.path().display()));
    }
}

fn sh(script: &str) -> Command {
    let mut command = support::command_of("sh", "-c");
    command.arg(script);
    command
}

#[test]
fn shards_add_up_to_the_whole_campaign() {
    if !require_kvm() {
        return;
    }
    add_up(1, &DICE, 20);
    add_up(2, &[DRAW, &[0xf4]].concat(), 0);
}

/// Runs a campaign of this guest, which is to have that exit code, as a whole and in shards.
fn add_up(vcpus: u32, guest: &[u8], exit_code: i32) {
    let guest = image(guest);
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, options: &str| {
        let path = dir.path().join(name);
        let line = "-q --repeat 50 --seed 0x5eed --keep-going --expect 7";
        let mut command = minivmm(&format!("{line} --vcpus {vcpus} {options}"));
        command.arg("--result").arg(&path).arg(guest.path());
        (run(command).code, path)
    };
    let (code, whole) = of("whole", "");
    assert_eq!(code, exit_code);
    let shards = [1, 2, 3].map(|shard| of(&format!("{shard}"), &format!("--shard {shard}/3")).1);

    let runs: Vec<_> =
        shards.iter().map(|shard| json(shard)["iterations"]["run"].as_u64().unwrap()).collect();
    assert_eq!(runs, [17, 17, 16]);
    let merge = |parts: &[&PathBuf]| -> (Finished, Value) {
        let sum = dir.path().join("sum");
        let mut command = minivmm("merge --result");
        command.arg(&sum).args(parts);
        (run(command), json(&sum))
    };
    let [one, two, three] = &shards;
    let (finished, sum) = merge(&[three, one, two]);
    finished.assert_code(exit_code);
    assert_eq!(essence(&sum), essence(&json(&whole)));

    let (finished, part) = merge(&[one, three]);
    assert!(String::from_utf8_lossy(&finished.stdout).contains("shards 2/3\n"));
    assert_eq!(part["iterations"]["run"], 33);
    assert_eq!(part["iterations"]["asked"], 50);
}

#[test]
fn the_script_for_parallel_runs_all_shards_and_the_sum() {
    if !require_kvm() {
        return;
    }
    let tools = Tools::new();
    let guest = image(&DICE);
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().join("with a space");
    let start = || {
        let mut command = support::command_of("bash", "");
        tools.lead(&mut command);
        command.arg(campaign_file("parallel.sh")).args(["3", "2"]).arg(&results);
        command.args("--repeat 30 --seed 4 --keep-going".split(' ')).arg(guest.path());
        run(command)
    };
    let finished = start().assert_code(20);
    assert!(String::from_utf8_lossy(&finished.stdout).contains("\nShards: 1/3, 2/3, 3/3\n"));
    let sum = json(&results.join("all.json"));
    assert_eq!(sum["iterations"]["run"], 30);

    // Again, after a shard was lost: only that one is run.
    let kept = fs::metadata(results.join("1.json")).unwrap().modified().unwrap();
    fs::remove_file(results.join("2.json")).unwrap();
    start().assert_code(20);
    assert_eq!(fs::metadata(results.join("1.json")).unwrap().modified().unwrap(), kept);
    assert_eq!(essence(&json(&results.join("all.json"))), essence(&sum));
}

/// The number after `name` in a text.
fn number_after(text: &str, name: &str) -> u32 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name:?}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|error| panic!("{name:?}: {error}"))
}

/// Fails unless the file has the result of that shard alone.
#[track_caller]
fn assert_shard(path: &Path, index: u32, count: u32) {
    let result = json(path);
    assert_eq!(result["shards"]["present"], serde_json::json!([index]), "{}", path.display());
    assert_eq!(result["shards"]["count"], count);
    assert_eq!(result["iterations"]["run"], 1);
}

#[test]
fn the_job_array_runs_the_shard_of_each_task() {
    let script = text_of("campaign.sbatch");
    let shards = number_after(&script, "\nshards=");
    assert_eq!(number_after(&script, "\n#SBATCH --array=1-"), shards);
    assert_eq!(
        number_after(&script, "\n#SBATCH --cpus-per-task="),
        number_after(&script, "--vcpus ")
    );
    // All its options are seen: they end at the first line that is none and no comment.
    let (head, rest) = script.split_once("\nset -euo").unwrap();
    assert!(head.lines().all(|line| line.starts_with('#')));
    assert!(!rest.contains("#SBATCH"));

    if require_kvm() {
        let tools = Tools::new();
        let results = tempfile::tempdir().unwrap();
        for task in [1, 37, shards] {
            let mut command = support::command_of("bash", "");
            tools.lead(&mut command);
            command.arg(campaign_file("campaign.sbatch"));
            command.env("SLURM_ARRAY_TASK_ID", task.to_string());
            command.env("RESULTS", results.path()).env("REPEAT", shards.to_string());
            run(command).assert_code(0);
            assert_shard(&results.path().join(format!("{task}.json")), task, shards);
        }
    }
}

/// The lines of a YAML file that are keys, each with the keys that it is in, and what is after the
/// colon. A block of text is the value of its key. Knows what job.yaml needs, and refuses what is
/// not laid out in steps of two spaces.
fn keys_of(yaml: &str) -> Vec<(String, String)> {
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut block = None;
    for line in yaml.lines() {
        assert!(!line.contains('\t') && line == line.trim_end(), "{line:?}");
        let mut indent = line.len() - line.trim_start().len();
        if block.is_some_and(|outer| indent > outer || line.is_empty()) {
            let (_, value) = keys.last_mut().unwrap();
            *value += line.trim_start();
            *value += "\n";
            continue;
        }
        block = None;
        let mut text = line.trim_start();
        if text.starts_with('#') || text.is_empty() {
            continue;
        }
        assert!(indent.is_multiple_of(2), "{line:?}");
        let is_item = text.starts_with("- ");
        if is_item {
            (indent, text) = (indent + 2, &text[2..]);
        }
        above.retain(|(outer, _)| *outer < indent);
        if text == "|" {
            block = Some(indent - 2);
            keys.push((path_to(&above), String::new()));
            continue;
        }
        let (key, value) = text.split_once(':').unwrap_or_else(|| panic!("no key: {line:?}"));
        above.push((indent, key.to_owned()));
        keys.push((path_to(&above), value.trim().trim_matches('"').to_owned()));
    }
    keys
}

fn path_to(above: &[(usize, String)]) -> String {
    above.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".")
}

#[test]
fn the_indexed_job_runs_the_shard_of_each_index() {
    const POD: &str = "spec.template.spec";
    let keys = keys_of(&text_of("job.yaml"));
    let values = |path: &str| -> Vec<&str> {
        keys.iter().filter(|(key, _)| key == path).map(|(_, value)| value.as_str()).collect()
    };
    let pod = |path: &str| values(&format!("{POD}.{path}"));
    assert_eq!(values("apiVersion"), ["batch/v1"]);
    assert_eq!(values("kind"), ["Job"]);
    assert_eq!(values("metadata.name"), ["campaign"]);
    assert_eq!(values("spec.completionMode"), ["Indexed"]);
    assert_eq!(pod("restartPolicy"), ["Never"]);
    assert_eq!(pod("containers.command"), [r#"["/bin/sh", "-c"]"#]);
    assert_eq!(pod("containers.resources.requests"), pod("containers.resources.limits"));
    // What is mounted is there, and KVM's device is.
    let mounts: BTreeSet<_> = pod("containers.volumeMounts.name").into_iter().collect();
    assert_eq!(mounts, pod("volumes.name").into_iter().collect());
    assert!(pod("containers.volumeMounts.mountPath").contains(&"/dev/kvm"));
    assert_eq!(pod("volumes.hostPath.path"), ["/dev/kvm"]);
    assert_eq!(pod("volumes.hostPath.type"), ["CharDevice"]);
    assert_eq!(pod("containers.securityContext.privileged"), ["true"]);

    let names = pod("containers.env.name");
    let env: Vec<_> = names.into_iter().zip(pod("containers.env.value")).collect();
    let shards = env.iter().find(|(name, _)| *name == "SHARDS").unwrap().1;
    assert_eq!(values("spec.completions"), [shards]);
    let [_, script] = pod("containers.args")[..] else { panic!("one script is expected") };
    let mut command = support::command_of("sh", "-n -c");
    command.arg(script);
    run(command).assert_code(0).assert_prints(b"");

    if require_kvm() {
        let tools = Tools::new();
        let results = tempfile::tempdir().unwrap();
        let shards: u32 = shards.parse().unwrap();
        for index in [0, 36, shards - 1] {
            let mut command = sh(script);
            tools.lead(&mut command);
            command.envs(env.iter().copied()).env("JOB_COMPLETION_INDEX", index.to_string());
            command.env("RESULTS", results.path()).env("REPEAT", shards.to_string());
            run(command).assert_code(0);
            let shard = index + 1;
            assert_shard(&results.path().join(format!("{shard}.json")), shard, shards);
        }
        // Without a result the pod has failed, and is tried again.
        let mut command = sh(script);
        tools.lead(&mut command);
        command.envs(env.iter().copied()).env("JOB_COMPLETION_INDEX", "0");
        command.env("RESULTS", results.path().join("nowhere"));
        assert_ne!(run(command).code, 0);
    }
}

#[test]
fn the_image_has_what_the_job_asks_for() {
    let dockerfile = text_of("Dockerfile");
    let job = text_of("job.yaml");
    let (_, image) = job.split_once("image: ").unwrap();
    let image = image.lines().next().unwrap();
    assert!(dockerfile.contains(&format!("-t {image} .")), "{image}");
    assert!(image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))), "{image}");
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(dockerfile.contains(&format!("FROM rust:{rust}-slim AS build")), "{rust}");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cargo/config.toml");
    let config = fs::read_to_string(config).unwrap();
    let (_, target) = config.split_once("\ntarget = \"").unwrap();
    let (target, _) = target.split_once('"').unwrap();
    assert!(dockerfile.contains(&format!("/target/{target}/release/minivmm")), "{target}");
}

#[test]
fn the_text_shows_the_files_as_they_are_and_shells_read_them() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stress.md");
    let docs = fs::read_to_string(docs).unwrap();
    for name in ["parallel.sh", "campaign.sbatch", "job.yaml", "Dockerfile"] {
        let shown = docs.split_once(&format!("<!-- campaign/{name} -->\n```")).unwrap().1;
        let (_, shown) = shown.split_once('\n').unwrap();
        let (shown, _) = shown.split_once("```\n").unwrap();
        assert!(shown == text_of(name), "docs/stress.md shows another {name}");
    }
    for name in ["parallel.sh", "campaign.sbatch"] {
        let mut command = support::command_of("bash", "-n");
        command.arg(campaign_file(name));
        run(command).assert_code(0).assert_prints(b"");
    }
}
