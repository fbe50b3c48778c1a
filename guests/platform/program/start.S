// start.S: where the entry points meet, the descriptor table, and where the others start: from
// real mode, after INIT and SIPI.

#include "entry.h"

// Changes EAX, which is 0 then.
    .macro load_data_segments
    mov     $SELECTOR_DATA, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    xor     %eax, %eax
    mov     %eax, %fs
    mov     %eax, %gs
    .endm

    .text
    .code64
// In 64-bit mode with our tables: RDI, RSI and RDX are the arguments of pc_main().
    .globl  start_program
start_program:
    load_data_segments
    mov     $stack_top, %esp
    xor     %ebp, %ebp
    call    pc_main
1:  cli
    hlt
    jmp     1b

// What is copied to a page below 1 MiB, which SIPI names. CS is that page, and IP is 0.
    .code16
    .globl  trampoline, trampoline_end
trampoline:
    cli
    mov     %cs, %ax
    mov     %ax, %ds
    lgdtl   trampoline_gdt - trampoline
    mov     $CR4_PAE, %eax
    mov     %eax, %cr4
    mov     $page_tables, %eax
    mov     %eax, %cr3
    mov     $MSR_EFER, %ecx
    xor     %edx, %edx
    mov     $EFER_LME, %eax
    wrmsr
    mov     %cr0, %eax
    and     $~(CR0_CD | CR0_NW), %eax       // INIT leaves caching off
    or      $(CR0_PG | CR0_PE), %eax
    mov     %eax, %cr0
    ljmpl   $SELECTOR_CODE, $ap_start
trampoline_gdt:
    .word   gdt_end - gdt - 1
    .long   gdt
trampoline_end:

// In 64-bit mode without a stack: finds it by the APIC id (CPUID leaf 0xb, or else 1).
    .code64
ap_start:
    load_data_segments
    cpuid
    cmp     $0xb, %eax
    jb      1f
    mov     $0xb, %eax
    xor     %ecx, %ecx
    cpuid
    test    %ebx, %ebx
    jnz     2f
1:  mov     $1, %eax
    cpuid
    mov     %ebx, %edx
    shr     $24, %edx
2:  cmp     apic_id_limit, %edx
    jae     3f
    mov     cpu_by_apic_id, %rax
    mov     (%rax,%rdx,8), %rdi
    test    %rdi, %rdi
    jz      3f
    mov     CPU_STACK(%rdi), %rsp
    xor     %ebp, %ebp
    call    ap_main
3:  mov     %edx, stray_apic_id
    movl    $1, stray_seen
4:  cli
    hlt
    jmp     4b

    .section .rodata
    .balign 8
gdt:
    .quad   0
    .quad   0x00af9b000000ffff      // 0x08: 64-bit code, ring 0
    .quad   0x00cf93000000ffff      // 0x10: data, ring 0
gdt_end:
    .globl  gdt_pointer
gdt_pointer:
    .word   gdt_end - gdt - 1
    .quad   gdt

    .section .bss
    .balign 4
    .globl  stray_seen, stray_apic_id
stray_seen:
    .long   0
stray_apic_id:
    .long   0
    .balign 4096
    .globl  page_tables
page_tables:
    .skip   6 * 4096

    .section .noinit, "aw", @nobits
    .balign 16
    .skip   16384
    .globl  stack_top
stack_top:
