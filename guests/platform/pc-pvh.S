// pc-pvh: a program that tests the platform, as an ELF file with a PVH entry point.
//
// Mode:     protected
// vCPUs:    any
// Input:    a command line, modules; see docs/platform-guests.md
// Output:   a line a test, "pc: all passed\n" at the end
// Exit:     0 by ACPI's power-off; a failed test ends through port 0xf4

#include "entry.h"

// Xen's public/elfnote.h: the 32-bit entry point.
#define XEN_ELFNOTE_PHYS32_ENTRY 18

    .section .note.pvh, "a", @note
    .balign 4
    .long   2f - 1f
    .long   4f - 3f
    .long   XEN_ELFNOTE_PHYS32_ENTRY
1:  .asciz  "Xen"
2:  .balign 4
3:  .long   pvh_start
4:  .balign 4

// Xen's docs/misc/pvh.pandoc: 32-bit protected mode without paging, EBX the start info.
    .section .head, "ax"
    .code32
pvh_start:
    announce
    to_long_mode 1f
    .code64
1:  mov     $FORMAT_PVH, %edi
    mov     %ebx, %esi
    jmp     start_program           // RSI: the start info

// The entry point of the ELF header is not that of PVH, and who starts here has no start info.
    .globl  _start
_start:
    ud2
