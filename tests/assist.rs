//! Instructions that KVM cannot emulate, completed by minivmm, on real KVM: what a guest sees, and
//! what is told of it. A KVM that needs no help passes too, and then there is nothing to tell.

mod support;

use minivmm_guests::expect::expectation;
use serde_json::Value;

use support::{Finished, image, minivmm, require_kvm, run, run_code, skipped};

const INTERNAL_ERROR: i32 = 12;

/// Runs `line` with statistics as JSON, which are what it returns.
fn run_with_stats(line: &str) -> (Finished, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stats.json");
    let mut command = minivmm(&format!("-q {line} --stats=json --stats-file"));
    command.arg(&file);
    let run = run(command);
    let text = std::fs::read_to_string(&file).unwrap();
    (run, serde_json::from_str(&text).unwrap())
}

/// How often instructions of this mnemonic were completed.
fn completed(stats: &Value, mnemonic: &str) -> u64 {
    let rows = stats["completed"].as_array().unwrap();
    let row = rows.iter().find(|row| row["mnemonic"] == mnemonic);
    row.map_or(0, |row| row["count"].as_u64().unwrap())
}

/// Whether this host's KVM needs help with POPCNT in ring 0.
fn needs_help() -> bool {
    let run = run_code(&[0xf3, 0x48, 0x0f, 0xb8, 0xc8, 0xf4], "-q --mode long --no-assist");
    assert!(run.code == 0 || run.code == INTERNAL_ERROR, "{run:?}");
    run.code == INTERNAL_ERROR
}

/// The same; if not, it is said that the test cannot run.
fn require_need() -> bool {
    let needed = needs_help();
    if !needed {
        skipped("this host's KVM needs no help");
    }
    needed
}

#[test]
fn instructions_do_in_ring_0_what_the_processor_does_in_ring_3() {
    if !require_kvm() {
        return;
    }
    let (run, stats) = run_with_stats("--demo assist-check --reg rbp=16");
    let run = run.assert_code(0);
    expectation("assist-check").unwrap().output.check(1, &run.stdout).unwrap();
    if needs_help() {
        for mnemonic in ["popcnt", "crc32", "cmpxchg16b", "fnsave", "xrstor64", "pshufd"] {
            assert!(completed(&stats, mnemonic) >= 16, "{mnemonic}: {}", stats["completed"]);
        }
    } else {
        assert_eq!(stats["completed"], Value::Array(vec![]));
    }
}

#[test]
fn system_instructions_have_their_effects_in_ring_0() {
    if !require_kvm() {
        return;
    }
    for vcpus in [1, 4] {
        let (run, stats) = run_with_stats(&format!("--demo assist-system --vcpus {vcpus}"));
        let run = run.assert_code(0);
        expectation("assist-system").unwrap().output.check(vcpus, &run.stdout).unwrap();
        if needs_help() {
            for mnemonic in ["int3", "int", "clac", "stac", "xgetbv", "invpcid", "cmpxchg16b"] {
                assert!(completed(&stats, mnemonic) > 0, "{mnemonic}: {}", stats["completed"]);
            }
        }
    }
}

#[test]
fn syscall_of_ring_3_leads_to_ring_0() {
    if !require_kvm() {
        return;
    }
    let run = run(minivmm("-q --demo assist-syscall")).assert_code(0);
    expectation("assist-syscall").unwrap().output.check(1, &run.stdout).unwrap();
}

#[test]
fn without_assistance_a_failure_is_told_as_it_is() {
    if !require_kvm() || !require_need() {
        return;
    }
    let run = run_code(&[0x90, 0xf3, 0x48, 0x0f, 0xb8, 0xc8, 0xf4], "--mode long --no-assist")
        .assert_code(INTERNAL_ERROR);
    assert!(run.stderr.contains("at 0x1001: f3 48 0f b8 c8 (popcnt rcx,rax, 64-bit)"), "{run:?}");
}

#[test]
fn an_instruction_that_is_not_known_is_a_failure_with_its_text() {
    if !require_kvm() || !require_need() {
        return;
    }
    // fld1
    let run = run_code(&[0xd9, 0xe8, 0xf4], "--mode long").assert_code(INTERNAL_ERROR);
    assert!(run.stderr.contains("at 0x1000: d9 e8 (fld1, 64-bit)"), "{run:?}");
}

#[test]
fn what_was_completed_is_in_the_trace_after_its_exit() {
    if !require_kvm() || !require_need() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.jsonl");
    let guest = image(&[0xf3, 0x48, 0x0f, 0xb8, 0xc8, 0xf4]);
    let mut command = minivmm("-q --mode long --trace");
    command.args([file.as_path(), guest.path()]);
    run(command).assert_code(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let place = rows.iter().position(|row| row["kind"] == "completed").unwrap();
    assert_eq!(rows[place]["name"], "popcnt");
    assert_eq!(rows[place - 1]["reason"], "internal-error");
    assert_eq!(rows[place - 1]["handler"], "run-loop");
}

#[test]
fn an_iteration_does_not_see_what_another_wrote_through_assistance() {
    if !require_kvm() {
        return;
    }
    // Only an assisted store touches the page at 0x9000: movd %xmm0, 0x9000, after a look that it
    // is zero; else it ends through the exit port.
    let code = [
        0x83, 0x3c, 0x25, 0x00, 0x90, 0x00, 0x00, 0x00, // cmpl $0, 0x9000
        0x75, 0x13, // jne bad
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov $1, %eax
        0x66, 0x0f, 0x6e, 0xc0, // movd %eax, %xmm0
        0x66, 0x0f, 0x7e, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, // movd %xmm0, 0x9000
        0xf4, // hlt
        0xb0, 0x07, // bad: mov $7, %al
        0xe6, 0xf4, // out %al, $0xf4
        0xf4, // hlt
    ];
    run_code(&code, "-q --mode long --repeat 5").assert_code(0);
}

#[test]
fn a_return_to_ring_3_leaves_no_data_segment_of_ring_0() {
    if !require_kvm() {
        return;
    }
    let code = [
        0x6a, 0x1b, // push 0x1b: SS
        0x54, // push esp
        0x68, 0x02, 0x30, 0x00, 0x00, // push 0x3002: EFLAGS with IOPL 3
        0x6a, 0x23, // push 0x23: CS
        0x68, 0x10, 0x10, 0x00, 0x00, // push 0x1010
        0xcf, // iretd
        0x8c, 0xd8, // 0x1010: mov eax, ds
        0x8c, 0xc1, 0x09, 0xc8, // mov ecx, es; or eax, ecx
        0x8c, 0xe1, 0x09, 0xc8, // mov ecx, fs; or eax, ecx
        0x8c, 0xe9, 0x09, 0xc8, // mov ecx, gs; or eax, ecx
        0xe6, 0xf4, // out 0xf4, al: the exit code is 2 * AL + 1
    ];
    run_code(&code, "-q --mode protected").assert_code(1);
}
