// assist-system: instructions that only ring 0 can use, or that only ring 0 sees the effects of,
// and which the host's KVM may need help with: software interrupts, faults with their error codes
// and addresses, a single step, flags, XCR0, translations, selectors; and a counter in 16 bytes
// that all vCPUs count in.
//
// Mode:   long
// vCPUs:  any
// Output: "system ok\n"
// Exit:   0 (all halt), or 2 * the number of the step that failed + 1

#include "guest.h"

#define COUNTS          100

#define CR0_TS          (1 << 3)
#define CR4_OSXSAVE     (1 << 18)
#define RFLAGS_TF       (1 << 8)
#define RFLAGS_IF       (1 << 9)
#define RFLAGS_RF       (1 << 16)
#define RFLAGS_AC       (1 << 18)
#define LARGE           (1 << 7)

#define CODE            0x08
#define DATA            0x10
// Another one, in the second entry of the top page table.
#define ALIAS           (1 << 39)
#define VECTORS         0x81

// A canonical address that the first page tables do not map.
#define UNMAPPED        0x7fff00000000

// Does an instruction that must raise `vector`, and then find RIP at `at`: `before` or `after` it.
.macro raises vector:req, at:req, step:req, insn:vararg
    movq    $-1, seen_vector
    movq    $.Lafter\@, resume
.Lbefore\@:
    \insn
.Lafter\@:
    cmpq    $\vector, seen_vector
    fail_unless e, \step
    cmpq    $.L\at\@, seen_rip
    fail_unless e, \step
.endm

    .code64
    .globl  _start
_start:
    mov     %edi, %eax
    shl     $8, %eax                    // 256 bytes of stack for each
    lea     stacks + 256(%rax), %rsp
    mov     %esi, %r12d
    mov     %edi, %r13d

    // Every vCPU counts, without a lock but that of the instruction.
    mov     $1, %eax
    cpuid
    bt      $13, %ecx
    jnc     2f
    mov     $COUNTS, %esi
1:
    mov     counter, %rax
    mov     counter + 8, %rdx
3:
    lea     1(%rax), %rbx
    lea     -1(%rdx), %rcx
    lock cmpxchg16b counter
    jne     3b
    dec     %esi
    jnz     1b
2:
    lock incl arrived
    test    %r13d, %r13d
    jz      boot_vcpu
    halt

boot_vcpu:
    mov     arrived, %eax
    cmp     %r12d, %eax
    je      1f
    pause
    jmp     boot_vcpu
1:
    mov     $1, %eax
    cpuid
    bt      $13, %ecx
    jnc     1f
    imul    $COUNTS, %r12d, %eax
    cmp     %rax, counter
    fail_unless e, 1
    neg     %rax
    cmp     %rax, counter + 8
    fail_unless e, 2
1:
    lgdt    gdtr
    mov     $DATA, %eax
    mov     %eax, %ss
    mov     %eax, %ds
    mov     %eax, %es
    pushq   $CODE
    pushq   $1f
    lretq
1:
    call    fill_idt
    lidt    idtr

    // Software interrupts.
    raises  3, after, 3, int3
    testl   $RFLAGS_RF, seen_flags
    fail_unless z, 4
    raises  0x80, after, 5, int $0x80
    raises  1, after, 6, .byte 0xf1

    // Faults. The page fault comes from a read that is not by ring 3: error code 0.
    mov     $UNMAPPED, %rsi
    raises  14, before, 7, popcnt (%rsi), %rax
    cmpq    $0, seen_error
    fail_unless e, 8
    mov     %cr2, %rax
    cmp     %rsi, %rax
    fail_unless e, 9
    raises  14, before, 10, movd %xmm0, (%rsi)
    cmpq    $2, seen_error
    fail_unless e, 11
    testl   $RFLAGS_RF, seen_flags
    fail_unless nz, 12
    mov     $1 << 47, %rsi
    raises  13, before, 13, popcnt (%rsi), %rax
    cmpq    $0, seen_error
    fail_unless e, 14
    mov     %cr0, %rax
    or      $CR0_TS, %rax
    mov     %rax, %cr0
    raises  7, before, 15, pxor %xmm0, %xmm0
    clts
    raises  6, before, 16, xgetbv

    // A single step.
    xor     %eax, %eax
    mov     %rax, %dr6
    mov     $0x70, %eax
    pushfq
    orl     $RFLAGS_TF, (%rsp)
    movq    $-1, seen_vector
    movq    $1f, resume
    popfq
    popcnt  %rax, %rcx
1:
    cmpq    $1, seen_vector
    fail_unless e, 17
    cmpq    $1b, seen_rip
    fail_unless e, 18
    cmp     $3, %ecx
    fail_unless e, 19
    mov     %dr6, %rax
    test    $1 << 14, %eax
    fail_unless nz, 20

    call    check_smap_flag
    call    check_xcr0
    call    check_translations

    // Selectors.
    mov     $DATA, %eax
    verw    %ax
    fail_unless z, 30
    mov     $CODE, %eax
    verw    %ax
    fail_unless nz, 31
    lsl     %eax, %ecx
    fail_unless z, 32
    cmp     $-1, %ecx
    fail_unless e, 33
    print   ok
    halt

// CLAC and STAC, if there is SMAP.
check_smap_flag:
    mov     $7, %eax
    xor     %ecx, %ecx
    cpuid
    bt      $20, %ebx
    jnc     1f
    stac
    pushfq
    popq    %rax
    test    $RFLAGS_AC, %eax
    fail_unless nz, 21
    clac
    pushfq
    popq    %rax
    test    $RFLAGS_AC, %eax
    fail_unless z, 22
1:
    ret

// XCR0, if there is XSAVE.
check_xcr0:
    mov     $1, %eax
    cpuid
    bt      $26, %ecx
    jnc     1f
    mov     %cr4, %rax
    or      $CR4_OSXSAVE, %rax
    mov     %rax, %cr4
    xor     %ecx, %ecx
    xor     %edx, %edx
    mov     $3, %eax
    xsetbv
    mov     $-1, %rax
    mov     $-1, %rdx
    xgetbv
    cmp     $3, %rax
    fail_unless e, 23
    test    %rdx, %rdx
    fail_unless z, 24
    mov     $2, %eax
    raises  13, before, 25, xsetbv
1:
    ret

// INVPCID, if it is there. CPUID does not tell: some hosts' KVM leaves it out of what it says.
check_translations:
    // 2 MiB at an address of their own, first on one page and then on another.
    mov     %cr3, %rax
    movq    $pdpt + 3, 8(%rax)
    movq    $pd + 3, pdpt
    movq    $(2 << 21) + LARGE + 3, pd
    movl    $0x11, 2 << 21
    movl    $0x22, 3 << 21
    mov     $ALIAS, %rsi
    cmpl    $0x11, (%rsi)
    fail_unless e, 26
    movq    $(3 << 21) + LARGE + 3, pd
    mov     $2, %eax
    movq    $-1, seen_vector
    movq    $2f, resume
    invpcid invpcid_descriptor, %rax
2:
    cmpq    $6, seen_vector
    je      1f
    cmpl    $0x22, (%rsi)
    fail_unless e, 27
    movq    $1, invpcid_descriptor
    mov     $4, %eax
    raises  13, before, 28, invpcid invpcid_descriptor, %rax
1:
    ret

fill_idt:
    mov     $idt, %edi
    mov     $stubs, %eax
    mov     $VECTORS, %ecx
1:
    movl    $CODE << 16, (%rdi)
    mov     %ax, (%rdi)
    movl    $0x8e00, 4(%rdi)
    movq    $0, 8(%rdi)
    add     $16, %rdi
    add     $16, %eax
    loop    1b
    ret

// A stub for each vector: an error code where the processor gives none, and the vector.
    .balign 16
stubs:
    .set    vector, 0
    .rept   VECTORS
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
    pushq   $0
    .endif
    pushq   $vector
    jmp     handler
    .set    vector, vector + 1
    .endr
handler:
    popq    seen_vector
    popq    seen_error
    popq    seen_rip
    mov     8(%rsp), %r15
    mov     %r15, seen_flags
    pushq   resume
    // Where a single step has ended, there is no other.
    andl    $~RFLAGS_TF, 16(%rsp)
    iretq

    .balign 16
gdtr:
    .word   3 * 8 - 1
    .quad   gdt
    .balign 16
idtr:
    .word   VECTORS * 16 - 1
    .quad   idt
    .balign 8
gdt:
    .quad   0
    .quad   0x00af9b000000ffff          // 0x08: code
    .quad   0x00cf93000000ffff          // 0x10: data
seen_vector:    .quad 0
seen_error:     .quad 0
seen_rip:       .quad 0
seen_flags:     .quad 0
resume:         .quad 0
    .balign 16
counter:        .quad 0, 0
invpcid_descriptor: .quad 0, 0
arrived:        .long 0
ok:             .asciz "system ok\n"
    // Beyond the image: RAM is zero.
    .set    idt, 0x11000
    .set    stacks, 0x12000             // up to 256 vCPUs
    .set    pdpt, 0x30000
    .set    pd, 0x31000
