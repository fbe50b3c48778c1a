// pc-linux: a program that tests the platform, in the shape of a Linux bzImage.
//
// Mode:     long
// vCPUs:    any
// Input:    a command line, an initial RAM disk; see docs/platform-guests.md
// Output:   a line a test, "pc: all passed\n" at the end
// Exit:     0 by ACPI's power-off; a failed test ends through port 0xf4

#include "entry.h"

// The Linux kernel's Documentation/arch/x86/boot.rst: the setup header, at 0x1f1 of the file.
#define SETUP_SECTS 1
#define VERSION_2_15 0x020f
#define LOADED_HIGH 1
#define XLF_KERNEL_64 1
#define INITRD_ADDR_MAX 0x7fffffff
#define CMDLINE_SIZE 2047

    .section .setup, "a"
setup:
    .byte   0xeb, 0xfe              // nobody starts this sector: it jumps to itself
    .org    setup + 0x1f1
    .byte   SETUP_SECTS
    .word   0                       // root_flags
    .long   linux_syssize
    .word   0                       // ram_size
    .word   0xffff                  // vid_mode: normal
    .word   0                       // root_dev
    .word   0xaa55                  // boot_flag
    .byte   0xeb, 1f - . - 1        // jump over the header
    .ascii  "HdrS"
    .word   VERSION_2_15
    .long   0                       // realmode_swtch
    .word   0                       // start_sys_seg
    .word   0                       // kernel_version
    .byte   0                       // type_of_loader
    .byte   LOADED_HIGH
    .word   0                       // setup_move_size
    .long   image_start             // code32_start
    .long   0                       // ramdisk_image
    .long   0                       // ramdisk_size
    .long   0                       // bootsect_kludge
    .word   0                       // heap_end_ptr
    .byte   0                       // ext_loader_ver
    .byte   0                       // ext_loader_type
    .long   0                       // cmd_line_ptr
    .long   INITRD_ADDR_MAX
    .long   0x1000                  // kernel_alignment
    .byte   0                       // relocatable_kernel
    .byte   12                      // min_alignment: a page
    .word   XLF_KERNEL_64
    .long   CMDLINE_SIZE
    .long   0                       // hardware_subarch
    .quad   0                       // hardware_subarch_data
    .long   0                       // payload_offset
    .long   0                       // payload_length
    .quad   0                       // setup_data
    .quad   image_start             // pref_address
    .long   linux_init_size
    .long   0                       // handover_offset
    .long   0                       // kernel_info_offset
1:  hlt                             // real mode: nobody comes here, either
    jmp     1b

// Section "32-bit Boot Protocol": flat 32-bit protected mode, RSI the boot parameters.
    .section .head, "ax"
    .code32
    .globl  _start
_start:
    announce
    clear_bss
    to_long_mode linux_started

// Section "64-bit Boot Protocol": 0x200 behind the start, on the loader's page tables.
    .org    0x200
    .code64
    .globl  linux_entry
linux_entry:
    announce
    clear_bss
    to_own_tables
linux_started:
    mov     $FORMAT_LINUX, %edi
    jmp     start_program           // RSI: the boot parameters
