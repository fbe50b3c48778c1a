// mmio-probe: loads and stores of every size at guest-physical addresses with no memory and no
// device behind them. Loads read all ones, stores are ignored.
//
// Mode:   long
// vCPUs:  any; vCPU 0 works, the others halt
// Memory: less than 3 GiB, so that what follows its last byte is not memory
// Output: "mmio ok\n"
// Exit:   0 (all halt), or 2 * step + 1 for the step below that failed

#include "guest.h"

#define MMIO 0xd0000000

    .code64
    .globl  _start
_start:
    others_halt
    mov     %ecx, %ebp              // pages of memory
    mov     $MMIO, %ebx             // zero-extended

    // Each size, and that a load of 1 or 2 bytes leaves the rest of the register.
    mov     $0x11223344, %eax
    mov     (%rbx), %al
    cmp     $0x112233ff, %eax
    fail_unless e, 1
    mov     $0x11223344, %eax
    mov     2(%rbx), %ax
    cmp     $0x1122ffff, %eax
    fail_unless e, 2
    xor     %eax, %eax
    mov     4(%rbx), %eax
    cmp     $-1, %eax
    fail_unless e, 3
    xor     %eax, %eax
    mov     8(%rbx), %rax
    cmp     $-1, %rax
    fail_unless e, 4

    // Loads that extend.
    movzbl  (%rbx), %eax
    cmp     $0xff, %eax
    fail_unless e, 5
    movswq  (%rbx), %rax
    cmp     $-1, %rax
    fail_unless e, 6

    // Unaligned, and across a page boundary.
    xor     %eax, %eax
    mov     3(%rbx), %eax
    cmp     $-1, %eax
    fail_unless e, 7
    xor     %eax, %eax
    mov     0xffd(%rbx), %rax
    cmp     $-1, %rax
    fail_unless e, 8

    // Stores change nothing.
    movb    $0, (%rbx)
    movw    $0, 2(%rbx)
    movl    $0, 4(%rbx)
    movq    $0, 8(%rbx)
    movq    $0, 0xffd(%rbx)
    mov     (%rbx), %rax
    cmp     $-1, %rax
    fail_unless e, 9
    mov     8(%rbx), %rax
    cmp     $-1, %rax
    fail_unless e, 10

    // From MMIO to memory and back, with string instructions.
    mov     %ebx, %esi
    mov     $buffer, %edi
    mov     $12, %ecx
    rep movsb
    cmpq    $-1, buffer
    fail_unless e, 11
    cmpl    $-1, buffer + 8
    fail_unless e, 12
    cmpl    $0, buffer + 12
    fail_unless e, 13
    mov     $buffer, %esi
    mov     %ebx, %edi
    mov     $3, %ecx
    rep movsl
    mov     %ebx, %edi
    mov     $4, %ecx
    xor     %eax, %eax
    rep stosw

    // Across the end of memory: half of it is there, and keeps its value.
    shl     $12, %rbp
    mov     -4(%rbp), %ecx
    mov     -4(%rbp), %rax
    cmp     %ecx, %eax
    fail_unless e, 14
    shr     $32, %rax
    cmp     $-1, %eax
    fail_unless e, 15
    mov     %rcx, %rax              // the upper half is 0
    mov     %rax, -4(%rbp)
    mov     -4(%rbp), %rax
    cmp     %ecx, %eax
    fail_unless e, 16
    shr     $32, %rax
    cmp     $-1, %eax
    fail_unless e, 17

    print   ok
    halt

    .balign 8
buffer: .skip 16
ok:     .asciz "mmio ok\n"
