// pc-elf64: a program that tests the platform, as a plain 64-bit ELF file.
//
// Mode:     long
// vCPUs:    any
// Input:    a command line; see docs/platform-guests.md
// Output:   a line a test, "pc: all passed\n" at the end
// Exit:     0 by ACPI's power-off; a failed test ends through port 0xf4

#include "entry.h"

// minivmm's own ABI (docs/guest-abi.md): 64-bit mode, RDI the index of the vCPU, RSI their number,
// RCX the pages of RAM. All vCPUs may start here; those that are not the first sleep until INIT.
    .section .head, "ax"
    .code64
    .globl  _start
_start:
    test    %edi, %edi
    jnz     other_cpu
    mov     %rcx, %rbp
    announce
    to_own_tables
    mov     $FORMAT_ELF64, %edi
    mov     %rbp, %rdx
    jmp     start_program           // RSI: vCPUs, RDX: pages
other_cpu:
    cli
    hlt
    jmp     other_cpu
