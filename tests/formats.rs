//! Guests of every image format on real KVM, made here of a few bytes of code: the registers that
//! they start with, what they find in memory, and what is refused. What each field of what a guest
//! is told must be is tested in `src/boot/`; here a guest looks at it.

mod support;
#[path = "../src/boot/synthetic.rs"]
mod synthetic;

use std::fs;
use std::path::Path;

use minivmm::outcome::ExitCode;

use support::{Finished, image, minivmm, require_kvm, run};
use synthetic::{BzImage, ElfImage, multiboot_image};

const ADDR: u32 = 0x10_0000;

/// An invalid opcode: without an interrupt table a triple fault, whose report has the registers.
const FAULT: [u8; 2] = [0x0f, 0x0b];
/// `mov dx, 0x3f8`, in 32-bit and in 64-bit code.
const TO_COM1: [u8; 4] = [0x66, 0xba, 0xf8, 0x03];
/// `mov al, 0; out 0xf4, al`: exit code 1.
const EXIT: [u8; 4] = [0xb0, 0x00, 0xe6, 0xf4];

/// In 32-bit and in 64-bit code: sends the `len` bytes from where ESI points to COM1, and exits.
fn send(load_esi: &[u8], len: u8) -> Vec<u8> {
    // mov ecx, len; rep outsb
    [load_esi, &TO_COM1, &[0xb9, len, 0, 0, 0, 0xf3, 0x6e], &EXIT].concat()
}

fn bzimage(code: &[u8]) -> Vec<u8> {
    BzImage::new(code, code).build()
}

/// Runs an image with these options.
fn run_image(bytes: &[u8], line: &str) -> Finished {
    let file = image(bytes);
    run(minivmm(&format!("-q {line}").replace("GUEST", &file.path().display().to_string())))
}

/// Runs an image to its triple fault, on machines without and with interrupt controllers, and
/// expects its report to have all of this in it.
#[track_caller]
fn starts_with(bytes: &[u8], line: &str, parts: &[&str]) {
    if !require_kvm() {
        return;
    }
    for machine in ["--irqchip none", "--irqchip kernel"] {
        let run = run_image(bytes, &format!("{machine} {line} GUEST"));
        let run = run.assert_code(ExitCode::TripleFault as i32);
        for part in parts {
            assert!(run.stderr.contains(part), "{machine}: no {part:?} in {}", run.stderr);
        }
    }
}

/// Runs an image to its exit, and expects it to have sent these bytes.
#[track_caller]
fn sends(bytes: &[u8], line: &str, expected: &[u8]) {
    if require_kvm() {
        run_image(bytes, line).assert_code(1).assert_prints(expected);
    }
}

/// An image that cannot be loaded.
#[track_caller]
fn refused(bytes: &[u8], line: &str, expected: &str) {
    ends_with(ExitCode::Host, bytes, line, expected);
}

/// Options that do not go with the image.
#[track_caller]
fn misused(bytes: &[u8], line: &str, expected: &str) {
    ends_with(ExitCode::Usage, bytes, line, expected);
}

#[track_caller]
fn ends_with(code: ExitCode, bytes: &[u8], line: &str, expected: &str) {
    if !require_kvm() {
        return;
    }
    let run = run_image(bytes, line).assert_code(code as i32);
    assert_eq!((run.stdout.as_slice(), run.stderr), (&b""[..], format!("minivmm: {expected}\n")));
}

const PROTECTED: [&str; 3] = ["cr0 0000000000000011", "cr3 0000000000000000", "efer 0\n"];

#[test]
fn an_elf32_executable_starts_like_a_flat_guest_in_protected_mode() {
    let elf = ElfImage::of_code(32, ADDR.into(), &FAULT).build();
    let parts = ["rip 0000000000100000", "cr0 0000000000000033", "cs 0008 base 0 limit ffffffff"];
    starts_with(&elf, "", &parts);
    starts_with(&elf, "--mode protected", &["rcx 0000000000008000", "rsp 0000000008000000"]);
}

#[test]
fn an_elf64_executable_starts_like_a_flat_guest_in_long_mode() {
    let elf = ElfImage::of_code(64, ADDR.into(), &FAULT).build();
    let parts = ["rip 0000000000100000", "cr0 0000000080010033", "efer 500\n", "cs 0008 "];
    starts_with(&elf, "", &parts);
    starts_with(&elf, "--mode user", &["cs 0023 ", "ss 001b "]);
}

#[test]
fn every_vcpu_of_an_elf_guest_knows_its_index() {
    if !require_kvm() {
        return;
    }
    for bits in [32, 64] {
        // lea eax, [(e/r)di + '0']; out dx, al; hlt
        let code = [&TO_COM1[..], &[0x8d, 0x47, b'0', 0xee, 0xf4]].concat();
        let elf = ElfImage::of_code(bits, ADDR.into(), &code).build();
        let mut sent = run_image(&elf, "--vcpus 4 GUEST").assert_code(0).stdout;
        sent.sort_unstable();
        assert_eq!(sent, b"0123");
    }
}

#[test]
fn an_elf_guest_finds_its_segments_and_zeros_behind_them() {
    let mut elf = ElfImage::of_code(64, ADDR.into(), &send(&[0xbe, 0, 0, 0x20, 0], 6));
    let mut data = synthetic::ElfSegment::load(0x20_0000, b"data");
    data.memory_len = 0x1000;
    elf.segments.push(data);
    sends(&elf.build(), "GUEST", b"data\0\0");
}

#[test]
fn a_multiboot_kernel_starts_as_the_standard_says() {
    let parts = ["rax 000000002badb002", "rbx 0000000000009000", "rip 0000000000100020"];
    starts_with(&multiboot_image(ADDR, &FAULT), "", &[&parts[..], &PROTECTED].concat());
}

#[test]
fn a_multiboot_kernel_finds_its_command_line_and_modules() {
    // mov esi, [ebx + 0] and the structure: flags, mem_lower, mem_upper, boot_device.
    let structure = multiboot_image(ADDR, &send(&[0x89, 0xde], 16));
    let expected = [0x245_u32, 639, 127 << 10, 0].map(u32::to_le_bytes).concat();
    sends(&structure, "--irqchip none GUEST", &expected);

    // mov esi, [ebx + 16], the command line, whose first word is the image.
    let kernel = image(&multiboot_image(ADDR, &send(&[0x8b, 0x73, 16], 200)));
    if !require_kvm() {
        return;
    }
    let path = kernel.path().display().to_string();
    let sent = run(minivmm(&format!("-q {path} -- one two"))).assert_code(1).stdout;
    assert!(sent.starts_with(format!("{path} one two\0minivmm ").as_bytes()), "{sent:?}");

    // mov eax, [ebx + 24]; mov esi, [eax + 16]: where the second module begins.
    let (initrd, module) = (image(b"initrd"), image(b"module"));
    let options =
        format!("--initrd {} --module {}=x", initrd.path().display(), module.path().display());
    let first = multiboot_image(ADDR, &send(&[0x8b, 0x43, 24, 0x8b, 0x30], 6));
    let second = multiboot_image(ADDR, &send(&[0x8b, 0x43, 24, 0x8b, 0x70, 16], 6));
    sends(&first, &format!("{options} GUEST"), b"initrd");
    sends(&second, &format!("{options} GUEST"), b"module");
}

#[test]
fn a_pvh_guest_starts_as_the_abi_says() {
    for bits in [32, 64] {
        let elf = ElfImage::pvh(bits, ADDR.into(), &FAULT).build();
        let parts = ["rbx 0000000000009000", "rip 0000000000100000"];
        starts_with(&elf, "", &[&parts[..], &PROTECTED].concat());
    }
}

#[test]
fn a_pvh_guest_finds_its_command_line_and_modules() {
    // mov esi, ebx: magic, version, flags, nr_modules.
    let structure = ElfImage::pvh(32, ADDR.into(), &send(&[0x89, 0xde], 16)).build();
    let expected = [0x336e_c578_u32, 1, 0, 0].map(u32::to_le_bytes).concat();
    sends(&structure, "GUEST", &expected);
    // mov esi, [ebx + 24]
    let cmdline = ElfImage::pvh(64, ADDR.into(), &send(&[0x8b, 0x73, 24], 8)).build();
    sends(&cmdline, "GUEST -- one two", b"one two\0");
    // mov eax, [ebx + 16]; mov esi, [eax]
    let module = image(b"module");
    let modules = ElfImage::pvh(64, ADDR.into(), &send(&[0x8b, 0x43, 16, 0x8b, 0x30], 6)).build();
    sends(&modules, &format!("--module {} GUEST", module.path().display()), b"module");
}

#[test]
fn a_linux_kernel_starts_as_its_boot_protocols_say() {
    let kernel = bzimage(&FAULT);
    let selectors = ["rsi 0000000000009000", "cs 0010 ", "ds 0018 ", "es 0018 ", "ss 0018 "];
    let long = ["rip 0000000001000200", "cr0 0000000080010033", "efer 500\n"];
    starts_with(&kernel, "", &[&selectors[..], &long].concat());
    let protected = ["rip 0000000001000000", "rbx 0000000000000000", "rbp 0000000000000000"];
    starts_with(
        &kernel,
        "--mode protected",
        &[&selectors[..], &protected, &PROTECTED, &["rdi 0000000000000000"]].concat(),
    );
    let vmlinux = ElfImage::of_code(64, 0x100_0000, &FAULT).build();
    let long = ["rip 0000000001000000", "cr0 0000000080010033", "efer 500\n"];
    starts_with(&vmlinux, "--format linux", &[&selectors[..], &long].concat());
}

#[test]
fn a_linux_kernel_finds_its_command_line_and_initial_ram_disk() {
    // mov esi, [(e/r)si + 0x228]
    let cmdline = bzimage(&send(&[0x8b, 0xb6, 0x28, 0x02, 0, 0], 8));
    // mov esi, [(e/r)si + 0x218]
    let initrd = bzimage(&send(&[0x8b, 0xb6, 0x18, 0x02, 0, 0], 6));
    let file = image(b"initrd");
    for mode in ["--mode long", "--mode protected"] {
        sends(&cmdline, &format!("{mode} GUEST"), b"console=");
        sends(&cmdline, &format!("{mode} GUEST -- one two"), b"one two\0");
        let initrd_option = format!("{mode} --initrd {} GUEST", file.path().display());
        sends(&initrd, &initrd_option, b"initrd");
    }
}

#[test]
fn real_mode_code_of_a_linux_kernel_is_entered_where_it_was_loaded() {
    // mov dx, 0x3f8; mov ax, cs; out dx, al; mov al, ah; out dx, al; the same with ds.
    let code = [
        &[0xba, 0xf8, 0x03, 0x8c, 0xc8, 0xee, 0x88, 0xe0, 0xee][..],
        &[0x8c, 0xd8, 0xee, 0x88, 0xe0, 0xee],
        &EXIT,
    ];
    let mut kernel = BzImage::new(&[0xf4], &[0xf4]);
    kernel.real_mode_code = code.concat();
    sends(&kernel.build(), "--mode real GUEST", &[0x20, 0x10, 0x00, 0x10]);
    kernel.code32_start = 0;
    kernel.xload_flags = 0;
    sends(&kernel.build(), "GUEST", &[0x20, 0x10, 0x00, 0x10]);
}

#[test]
fn what_was_loaded_is_as_it_was_in_every_iteration() {
    if !require_kvm() {
        return;
    }
    let (module, out) = (image(b"module"), tempfile::NamedTempFile::new().unwrap());
    // mov eax, [ebx + 24]; mov esi, [eax]; mov al, [esi]; out dx, al; mov [esi], dl;
    // mov [ebx + 24], edx; hlt
    let code = [
        &TO_COM1[..],
        &[0x8b, 0x43, 24, 0x8b, 0x30, 0x8a, 0x06, 0xee, 0x88, 0x16, 0x89, 0x53, 24, 0xf4],
    ];
    let kernel = multiboot_image(ADDR, &code.concat());
    let path = |path: &Path| path.display().to_string();
    let line = format!(
        "--repeat 3 --irqchip none --serial file:{} --module {} GUEST",
        path(out.path()),
        path(module.path())
    );
    run_image(&kernel, &line).assert_code(0);
    assert_eq!(fs::read(out.path()).unwrap(), b"mmm");
}

#[test]
fn options_that_do_not_go_with_the_format_are_refused() {
    let elf = ElfImage::of_code(64, ADDR.into(), &FAULT).build();
    let no = "does not go with an image of format";
    misused(
        &[0xf4],
        "--irqchip none --start bsp GUEST",
        "with --start bsp the other vCPUs wait for an interrupt, and --irqchip none has nothing \
         that could send it",
    );
    misused(
        &[0xf4],
        "--repeat 2 --initrd x GUEST",
        &format!("--initrd {no} flat, only with multiboot, pvh, linux"),
    );
    misused(
        &[0xf4],
        "--initrd x GUEST",
        &format!("--initrd {no} flat, only with multiboot, pvh, linux"),
    );
    misused(&elf, "--load-addr 0x2000 GUEST", &format!("--load-addr {no} elf, only with flat"));
    misused(&elf, "--entry 0x2000 GUEST", &format!("--entry {no} elf, only with flat"));
    misused(
        &elf,
        "GUEST -- x",
        &format!(
            "a command line (--cmdline, or arguments after --) {no} elf, only with multiboot, pvh, \
             linux"
        ),
    );
    misused(
        &bzimage(&FAULT),
        "--module x GUEST",
        &format!("--module {no} linux, only with multiboot, pvh"),
    );
    let mut in_real_mode = BzImage::new(&[0xf4], &[0xf4]);
    in_real_mode.code32_start = 0;
    in_real_mode.xload_flags = 0;
    let in_real_mode = in_real_mode.build();
    misused(
        &in_real_mode,
        "--irqchip none GUEST",
        "a kernel that is entered in real mode has a BIOS, and that needs a timer's interrupt: \
         expected another --irqchip than none",
    );
    misused(
        &in_real_mode,
        "--mode long GUEST",
        "the kernel has no entry point for long mode: its xloadflags are without XLF_KERNEL_64",
    );
    misused(
        &[0xf4],
        "--cpu +x2apic GUEST",
        "--cpu +x2apic takes a local APIC, which --irqchip none has not",
    );
    misused(
        &elf,
        "--mode real GUEST",
        "an ELF64 executable cannot start in real mode: expected long or user",
    );
    refused(
        &elf,
        "--format multiboot GUEST",
        "the image has no Multiboot header in its first 8192 bytes: expected 0x1badb002 at a \
         multiple of 4, with a checksum",
    );
}

#[test]
fn an_image_of_another_format_may_be_run_as_it_is() {
    // The beginning of an ELF file is no code, but it may have some later on.
    let mut elf = ElfImage::of_code(64, ADDR.into(), &FAULT).build();
    let entry = 0x1000 + elf.len();
    elf.extend(EXIT);
    sends(&elf, &format!("--format flat --entry {entry} GUEST"), b"");
}
