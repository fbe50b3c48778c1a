//! Debian's stock kernel of its cloud images, as the package has it and as the ELF file in it, to a
//! shell of busybox on its serial console.

use std::fs;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::console::Console;
use crate::initramfs;
use crate::packages::{full, require, require_kernel};
use crate::support::{minivmm, skipped};

const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox"];

/// What the kernel prints once all its CPUs run, and some way before its first process.
const CPUS_RUN: &str = "smp: Brought up 1 node, ";

/// For a CPU that is emulated; docs/third-party.md says what each is for. A CPU that runs natively
/// does not need them, nor mind.
const CMDLINE: &[&str] = &[
    "console=ttyS0 panic=-1 nokaslr mitigations=off pti=off",
    "no-kvmclock tsc_early_khz=16800000 tsc=reliable no_timer_check",
    "clearcpuid=xsave,cx16,smap,popcnt,erms,fsrm init_on_alloc=0",
    "cryptomgr.notests random.trust_cpu=on audit=0 apparmor=0 nowatchdog",
    "initcall_blacklist=ftrace_check_for_weak_functions,trace_eval_init,tracer_init_tracefs,\
     slab_sysfs_init,jent_mod_init,blake2s_mod_init,init_kprobe_trace,load_system_certificate_list",
];

/// What it prints as it starts its first process.
const FIRST_PROCESS: &str = "Run /init as init process";

/// The kernel on so many vCPUs, with a shell as its first process.
fn start(kernel: &Path, busybox: &Path, vcpus: u32) -> (Console, NamedTempFile) {
    let mut initrd = NamedTempFile::new().unwrap();
    initrd.write_all(&initramfs::with_shell(busybox)).unwrap();
    let mut command = minivmm(&format!("-q --memory 192M --vcpus {vcpus}"));
    command.arg("--initrd").arg(initrd.path()).arg(kernel).arg("--").args(CMDLINE);
    (Console::start(command), initrd)
}

#[track_caller]
fn check(kernel: &Path, vcpus: u32, whole_way: bool) {
    let Some(busybox) = require("busybox-static", BUSYBOX) else { return };
    let (mut console, _initrd) = start(kernel, &busybox, vcpus);
    let cpus = if vcpus == 1 { "1 CPU" } else { &format!("{vcpus} CPUs") };
    let behind = console.wait_for_text(0, &format!("{CPUS_RUN}{cpus}"));
    if !whole_way {
        skipped("to a shell: MINIVMM_THIRD_PARTY_FULL=1 asks for that");
        console.terminate().assert_code(143);
        return;
    }
    let behind = console.wait_for_text(behind, FIRST_PROCESS);
    let prompt = console.wait_for_text(behind, "/ # ");
    // What is typed is echoed: of that, the sum is not the text that is waited for.
    console.type_in("echo $(/bin/busybox nproc) CPUs, $((6 * 7)) done\n");
    let answer = console.wait_for_text(prompt, &format!("\n{vcpus} CPUs, 42 done"));
    console.wait_for_text(answer, "/ # ");
    console.type_in("/bin/busybox poweroff -f\n");
    console.finish().assert_code(0);
}

#[test]
fn the_stock_kernel_starts_2_cpus() {
    let Some(kernel) = require_kernel() else { return };
    check(&kernel, 2, full());
}

#[test]
fn the_stock_kernel_has_a_shell_on_1_and_on_4_cpus() {
    if !full() {
        return skipped("MINIVMM_THIRD_PARTY_FULL=1 asks for it");
    }
    let Some(kernel) = require_kernel() else { return };
    for vcpus in [1, 4] {
        check(&kernel, vcpus, true);
    }
}

#[test]
fn the_elf_file_in_the_stock_kernel_starts() {
    let Some(kernel) = require_kernel() else { return };
    let mut vmlinux = NamedTempFile::new().unwrap();
    vmlinux.write_all(&payload_of(&fs::read(kernel).unwrap())).unwrap();
    check(vmlinux.path(), 1, full());
}

/// The ELF file in a bzImage: LZ4's legacy frame, whose blocks each have their length in front of
/// them (Linux's Documentation/x86/boot.rst, `payload_offset`; lz4's doc/lz4_Frame_format.md).
fn payload_of(image: &[u8]) -> Vec<u8> {
    const SETUP_SECTS: usize = 0x1f1;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    const SECTOR: usize = 512;
    const MAGIC: u32 = 0x184c_2102;
    const BLOCK: usize = 8 << 20;
    /// Behind the payload the build appends the size of what is in it.
    const SIZE: usize = 4;

    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let size = |bytes: &[u8], at: usize| usize::try_from(word(bytes, at)).unwrap();
    let code = (usize::from(image[SETUP_SECTS]) + 1) * SECTOR;
    let start = code + size(image, PAYLOAD_OFFSET);
    let payload = &image[start..start + size(image, PAYLOAD_LENGTH) - SIZE];
    assert_eq!(word(payload, 0), MAGIC, "the kernel is not compressed with LZ4");
    let mut vmlinux = Vec::new();
    let mut rest = &payload[4..];
    while !rest.is_empty() {
        let (block, next) = rest[4..].split_at(size(rest, 0));
        vmlinux.extend(lz4_flex::block::decompress(block, BLOCK).unwrap());
        rest = next;
    }
    vmlinux
}
