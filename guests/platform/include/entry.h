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

// Control registers and EFER (SDM volume 3, sections 2.5 and 2.2.1).
#define CR0_PE 0x1
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

#ifdef __ASSEMBLER__

// The first byte of the program's first line, before anything else: a bench takes its arrival as
// the time of entry. The UART needs no setting up for that here.
    .macro announce
    mov     $0x3f8, %dx
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
    movl    $(page_tables + 0x1000 + 3), (%edi)
    lea     0x1000(%edi), %edi
    .irp    n, 0, 1, 2, 3
    movl    $(page_tables + 0x2000 + 0x1000 * \n + 3), 8 * \n(%edi)
    .endr
    mov     $(page_tables + 0x2000), %edi
    mov     $0x83, %eax
1:  cmp     $0xc0000000, %eax
    jb      2f
    or      $0x18, %eax
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

// In 64-bit mode, on whatever tables the loader has made: to our own, with all segments loaded.
// Changes RAX and RDI.
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
