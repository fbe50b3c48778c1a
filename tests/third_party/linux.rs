//! Debian's stock kernel of its cloud images, as the package has it and as the ELF file in it, to a
//! shell of busybox on its serial console.

use std::fs;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::console::Console;
use crate::initramfs;
use crate::packages::{full, require, require_kernel};
use crate::support::{image, minivmm, run, skipped};

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

/// A flat guest in long mode: it makes `handler` what SYSCALL goes to, goes to ring 3 by SYSRET, comes
/// back by SYSCALL, prints the privilege level that CS then has as a digit, and ends.
#[rustfmt::skip]
const SYSCALL_GUEST: [u8; 0x5f] = [
    0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, // mov ecx, IA32_EFER; rdmsr
    0x83, 0xc8, 0x01, 0x0f, 0x30, // or eax, SCE; wrmsr
    0xb9, 0x81, 0x00, 0x00, 0xc0, 0x31, 0xc0, // mov ecx, IA32_STAR; xor eax, eax
    0xba, 0x08, 0x00, 0x10, 0x00, 0x0f, 0x30, // mov edx, 0x10_0008; wrmsr
    0xb9, 0x82, 0x00, 0x00, 0xc0, // mov ecx, IA32_LSTAR
    0xb8, 0x4c, 0x10, 0x00, 0x00, 0x31, 0xd2, 0x0f, 0x30, // mov eax, handler; xor edx, edx; wrmsr
    0xb9, 0x84, 0x00, 0x00, 0xc0, // mov ecx, IA32_FMASK
    0xb8, 0x00, 0x77, 0x04, 0x00, 0x31, 0xd2, 0x0f, 0x30, // mov eax, 0x4_7700; xor edx, edx; wrmsr
    0xb9, 0x44, 0x10, 0x00, 0x00, // mov ecx, user
    0x41, 0xbb, 0x02, 0x02, 0x00, 0x00, 0x48, 0x0f, 0x07, // mov r11d, 0x202; sysretq
    // user:
    0xb8, 0x0c, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x90, // mov eax, 12; syscall; nop
    // handler:
    0x66, 0x8c, 0xc8, 0x24, 0x03, 0x04, 0x30, // mov ax, cs; and al, 3; add al, '0'
    0x66, 0xba, 0xf8, 0x03, 0xee, // mov dx, COM1; out dx, al
    0x66, 0xba, 0xf4, 0x00, 0xee, 0xf4, 0x90, // mov dx, 0xf4; out dx, al; hlt
];

/// Whether SYSCALL brings the guest to ring 0. On a host whose KVM leaves it in ring 3 no kernel can
/// run a process, and that is said.
fn can_run_processes() -> bool {
    let guest = image(&SYSCALL_GUEST);
    let mut command = minivmm("-q --mode long");
    command.arg(guest.path());
    let can = run(command).stdout == b"0";
    if !can {
        skipped("past the first process: SYSCALL in ring 3 does not lead to ring 0 on this host");
    }
    can
}

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
        console.terminate().assert_code(143);
        return;
    }
    let behind = console.wait_for_text(behind, FIRST_PROCESS);
    if !can_run_processes() {
        console.terminate();
        return;
    }
    let prompt = console.wait_for_text(behind, "/ # ");
    // What is typed is echoed: of that, the sum is not the text that is waited for.
    console.type_in("echo $(nproc) CPUs, $((6 * 7)) done\n");
    let answer = console.wait_for_text(prompt, &format!("\n{vcpus} CPUs, 42 done"));
    console.wait_for_text(answer, "/ # ");
    console.type_in("poweroff -f\n");
    console.finish().assert_code(0);
}

#[test]
fn the_stock_kernel_starts_2_cpus() {
    let Some(kernel) = require_kernel() else { return };
    check(&kernel, 2, full());
}

#[test]
fn the_stock_kernel_has_a_shell_on_1_and_on_4_cpus() {
    let Some(kernel) = require_kernel().filter(|_| full()) else { return };
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
