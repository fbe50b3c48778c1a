//! The BIOS that kernels of the 16-bit boot protocol get, asked by such a kernel, which is
//! assembled on the spot: each service's answer is checked there, and a letter printed if it is
//! right.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{Running, compile, minivmm, require_kvm};

/// A bzImage with nothing but a real-mode part (Linux's boot protocol, "The Real-Mode Kernel
/// Header").
const KERNEL: &str = r#"
    .code16
    .macro  say letter
    mov     $\letter, %al
    mov     $0x0e, %ah
    int     $0x10
    .endm
    .globl  _start
_start:
    .org    0x1f1
    .byte   4                   // setup_sects
    .org    0x1f4
    .long   0x10                // syssize: the 256 bytes at the end
    .org    0x1fe
    .word   0xaa55
    .byte   0xeb, 0x66          // to 0x268
    .ascii  "HdrS"
    .word   0x0204              // version
    .org    0x211
    .byte   1                   // loadflags: LOADED_HIGH
    .org    0x214
    .long   0                   // code32_start: there is no other entry point
    .org    0x268
start:
    mov     %cs, %ax
    sub     $0x20, %ax
    mov     %ax, %ds
    mov     %ax, %es
    int     $0x12               // KiB of conventional memory
    cmp     $639, %ax
    jne     fail
    say     'a'
    mov     $0x88, %ah          // KiB above 1 MiB
    int     $0x15
    jc      fail
    cmp     $(31 * 1024), %ax
    jne     fail
    say     'b'
    mov     $0xe801, %ax        // KiB up to 16 MiB, and 64 KiB above
    int     $0x15
    jc      fail
    cmp     $(15 * 1024), %ax
    jne     fail
    cmp     $256, %bx
    jne     fail
    cmp     %cx, %ax
    jne     fail
    cmp     %dx, %bx
    jne     fail
    say     'c'
    xor     %ebx, %ebx          // the map, of which the RAM is added up
    xor     %ebp, %ebp
1:  mov     $0xe820, %eax
    mov     $20, %ecx
    mov     $0x534d4150, %edx
    mov     $entry, %di
    int     $0x15
    jc      fail
    cmp     $0x534d4150, %eax
    jne     fail
    cmp     $20, %ecx
    jne     fail
    cmpl    $1, entry + 16
    jne     2f
    add     entry + 8, %ebp
2:  test    %ebx, %ebx
    jnz     1b
    cmp     $(0x9fc00 + (31 << 20)), %ebp
    jne     fail
    say     'd'
    mov     $0x02, %ah          // no disk
    int     $0x13
    jnc     fail
    say     'e'
    mov     $0xc0, %ah          // no such function
    int     $0x15
    jnc     fail
    say     'f'
    sti                         // ticks come
    xor     %ah, %ah
    int     $0x1a
    mov     %dx, %si
3:  hlt
    xor     %ah, %ah
    int     $0x1a
    cmp     %dx, %si
    je      3b
    say     'g'
4:  mov     $0x01, %ah          // a key is there, and stays
    int     $0x16
    jz      4b
    cmp     $'k', %al
    jne     fail
    xor     %ah, %ah            // it is taken
    int     $0x16
    cmp     $'k', %al
    jne     fail
    mov     $0x11, %ah
    int     $0x16
    jnz     fail
    say     'h'
    int     $0x19               // reboot
fail:
    say     '!'
    int     $0x19
entry:
    .fill   20
    .org    0xb00
"#;

/// Assembles the kernel into `dir`.
fn assemble(dir: &Path) -> PathBuf {
    let (source, image) = (dir.join("kernel.S"), dir.join("kernel.bin"));
    fs::write(&source, KERNEL).unwrap();
    let flags = ["-m32", "-nostdlib", "-static", "-no-pie"];
    let link = ["-Wl,--oformat=binary,--build-id=none,-Ttext=0", "-o"];
    let files = [image.as_os_str(), source.as_os_str()];
    compile(flags.into_iter().chain(link).map(OsStr::new).chain(files));
    image
}

#[test]
fn the_bios_answers_what_real_mode_asks() {
    if !require_kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = minivmm("-q --memory 32M");
    command.arg(assemble(dir.path())).stdin(Stdio::piped());
    let mut running = Running::start(command);
    running.stdin().write_all(b"k").unwrap();
    let run = running.finish().assert_code(16);
    assert_eq!(String::from_utf8_lossy(&run.stdout), "abcdefgh");
}
