// assist-syscall: SYSCALL of ring 3, with a kernel in a page that ring 3 may not use, and page
// faults of ring 3 that have nothing to do with it, one of which is a jump to the entry point.
//
// Mode:   long
// vCPUs:  any; only vCPU 0 does anything
// Output: "syscall ok\n"
// Exit:   0 (all halt), or 2 * the number of the step that failed + 1

#include "guest.h"

#define CALLS           100

#define EFER            0xc0000080
#define STAR            0xc0000081
#define LSTAR           0xc0000082
#define FMASK           0xc0000084
#define EFER_SCE        1

#define CODE            0x08
#define DATA            0x10
#define USER_DATA       0x1b
#define USER_CODE       0x23
#define RSP0            0xf0000104

#define RFLAGS_CF       1
#define RFLAGS_IF       (1 << 9)
#define PAGE_USER       4

// Where ring 3 is: in a page of 2 MiB of its own.
#define USER            0x400000
#define USER_STACK      0x500000

    .code64
    .globl  _start
_start:
    others_halt
    lidt    idtr
    lea     stack_top, %rsp
    mov     $RSP0, %eax
    mov     %rsp, (%rax)
    // The code of ring 3 to its page, and the first page to ring 0 alone.
    mov     $user, %esi
    mov     $USER, %edi
    mov     $(user_end - user), %ecx
    rep movsb
    mov     %cr3, %rax
    mov     (%rax), %rax
    and     $~0xfff, %rax
    mov     (%rax), %rax
    and     $~0xfff, %rax
    andq    $~PAGE_USER, (%rax)
    mov     %cr3, %rax
    mov     %rax, %cr3

    mov     $EFER, %ecx
    rdmsr
    or      $EFER_SCE, %eax
    wrmsr
    xor     %eax, %eax
    mov     $(DATA << 16 | CODE), %edx
    mov     $STAR, %ecx
    wrmsr
    xor     %edx, %edx
    mov     $entry, %eax
    mov     $LSTAR, %ecx
    wrmsr
    mov     $(RFLAGS_IF | RFLAGS_CF), %eax
    mov     $FMASK, %ecx
    wrmsr
    fwait

    pushq   $USER_DATA
    pushq   $USER_STACK
    pushq   $2
    pushq   $USER_CODE
    pushq   $USER
    iretq

// RAX is what the next call is to have there; the last one ends.
entry:
    mov     %cs, %edx
    cmp     $CODE, %dx
    fail_unless e, 1
    mov     %ss, %edx
    cmp     $DATA, %dx
    fail_unless e, 2
    cmp     $USER_STACK, %rsp
    fail_unless e, 3
    // CF was set, and is masked.
    pushfq
    pop     %rdx
    test    $RFLAGS_CF, %dl
    fail_unless z, 4
    test    $RFLAGS_CF, %r11b
    fail_unless nz, 5
    cmp     calls, %rax
    fail_unless e, 6
    incq    calls
    cmp     $CALLS, %rax
    je      1f
    sysretq
1:
    cmpq    $2, faults
    fail_unless e, 7
    print   text
    halt

// Goes on where ring 3 wants to, which is in RBX.
page_fault:
    testb   $PAGE_USER, (%rsp)
    fail_unless nz, 8
    mov     16(%rsp), %rdx
    cmp     $USER_CODE, %rdx
    fail_unless e, 9
    incq    faults
    add     $8, %rsp
    mov     %rbx, (%rsp)
    iretq

// Ring 3, at USER.
user:
    // Data of ring 0.
    lea     1f(%rip), %rbx
    mov     calls, %rax
1:
    // Code of ring 0, with what a SYSCALL would have left but the instruction.
    lea     1f(%rip), %rbx
    lea     1f(%rip), %rcx
    mov     $2, %r11d
    mov     $entry, %edx
    jmp     *%rdx
1:
    xor     %eax, %eax
2:
    stc
    syscall
    inc     %eax
    jmp     2b
user_end:

text:   .asciz  "syscall ok\n"

    .balign 8
calls:  .quad   0
faults: .quad   0
idtr:   .word   15 * 16 - 1
    .quad   idt
    .balign 16
idt:
    .fill   14 * 16
    .word   page_fault, CODE, 0x8e00, 0
    .quad   0
    .fill   1024
    .balign 16
stack_top:
