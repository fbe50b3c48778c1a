// pc-multiboot: a program that tests the platform, as a Multiboot 1 kernel.
//
// Mode:     protected
// vCPUs:    any
// Input:    a command line, modules; see docs/platform-guests.md
// Output:   a line a test, "pc: all passed\n" at the end
// Exit:     0 by ACPI's power-off; a failed test ends through port 0xf4

#include "entry.h"

// Multiboot Specification 0.6.96, section 3.1: the header, in the first 8 KiB. Modules on pages and
// memory information. The image is a 32-bit ELF file, which has to say no more here.
#define MAGIC 0x1badb002
#define FLAGS 0x00000003

    .section .head, "ax"
    .balign 4
    .long   MAGIC
    .long   FLAGS
    .long   -(MAGIC + FLAGS)

// Section 3.2: 32-bit protected mode, EAX the magic, EBX the information.
    .code32
    .globl  _start
_start:
    mov     %eax, %esi
    announce
    to_long_mode 1f
    .code64
1:  mov     $FORMAT_MULTIBOOT, %edi
    mov     %ebx, %edx
    jmp     start_program           // RSI: the magic, RDX: the information
