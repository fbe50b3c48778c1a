// entry.h: what the entry points have in common: from the state in which a loader leaves the CPU
// to the program in 64-bit mode, on its own GDT, page tables and stack.
//
// The macros assemble to the same in 32-bit and in 64-bit code, for they use 32-bit registers.

// The formats, as pc_main() gets them.
#define FORMAT_MULTIBOOT 1
#define FORMAT_ELF64 2
#define FORMAT_PVH 3
#define FORMAT_LINUX 4

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10

// Where start.S finds the stack in struct cpu.
#define CPU_STACK 8

// Control registers and EFER (SDM volume 3, sections 2.5 and 2.2.1).
#define CR0_PE 0x1
#define CR0_NW 0x20000000
#define CR0_CD 0x40000000
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

// Entries of page tables (SDM volume 3, section 5.5).
#define PAGE_WRITABLE 0x3           // and present
#define PAGE_UNCACHED 0x18          // PWT and PCD
#define PAGE_LARGE 0x80

// The first serial port: a byte written there is sent.
#define COM1_DATA 0x3f8

#ifdef __ASSEMBLER__

// The first byte of the program's first line, before anything else: a bench takes its arrival as
// the time of entry. The UART needs no setting up for that here.
    .macro announce
    mov     $COM1_DATA, %dx
    mov     $'p', %al
    out     %al, %dx
    .endm

// Clears .bss, where nobody else does. Changes EAX, ECX and EDI.
    .macro clear_bss
    mov     $image_loaded, %edi
    mov     $bss_end, %ecx
    sub     %edi, %ecx
    shr     $2, %ecx
    xor     %eax, %eax
    cld
    rep stosl
    .endm

// Makes page tables that map the first 4 GiB to themselves with pages of 2 MiB, those from
// 3 GiB on without caching. Changes EAX, ECX and EDI.
    .macro make_page_tables
    mov     $page_tables, %edi
    movl    $(page_tables + 0x1000 + PAGE_WRITABLE), (%edi)
    lea     0x1000(%edi), %edi
    .irp    n, 0, 1, 2, 3
    movl    $(page_tables + 0x2000 + 0x1000 * \n + PAGE_WRITABLE), 8 * \n(%edi)
    .endr
    mov     $(page_tables + 0x2000), %edi
    mov     $(PAGE_LARGE | PAGE_WRITABLE), %eax
1:  cmp     $0xc0000000, %eax
    jb      2f
    or      $PAGE_UNCACHED, %eax
2:  mov     %eax, (%edi)
    lea     8(%edi), %edi
    add     $0x200000, %eax
    jnc     1b
    .endm

// From 32-bit protected mode without paging to `target` in 64-bit mode. Changes EAX, ECX, EDX and
// EDI.
    .macro to_long_mode target
    make_page_tables
    lgdt    gdt_pointer
    mov     %cr4, %eax
    or      $CR4_PAE, %eax
    mov     %eax, %cr4
    mov     $page_tables, %eax
    mov     %eax, %cr3
    mov     $MSR_EFER, %ecx
    rdmsr
    or      $EFER_LME, %eax
    wrmsr
    mov     %cr0, %eax
    or      $CR0_PG, %eax
    mov     %eax, %cr0
    ljmp    $SELECTOR_CODE, $\target
    .endm

// In 64-bit mode, on whatever tables the loader has made: to our own, and CS with them. Changes
// RAX, RSP and RDI.
    .macro to_own_tables
    make_page_tables
    lgdt    gdt_pointer
    mov     $page_tables, %eax
    mov     %rax, %cr3
    mov     $stack_top, %esp
    push    $SELECTOR_CODE
    lea     3f(%rip), %rax
    push    %rax
    lretq
3:
    .endm

#endif
