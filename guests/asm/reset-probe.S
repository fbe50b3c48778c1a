// reset-probe: looks for anything that an iteration has left for the next, and leaves what it can:
// memory, registers, vector and FPU state, control and debug registers, MSRs, the UART.
//
// Mode:   long
// vCPUs:  any; all but the first only end
// Output: "."
// Exit:   0 (all halt), or an assertion of what is left; for --repeat, since the first iteration
//         finds nothing in any case

#include "guest.h"

#define FAR         0x200000        // pages that are not in the image
#define PAGES       64
#define STAR        0xc0000081
#define GS_BASE     0xc0000102      // of the kernel, for swapgs

    // Fails with `what` unless the flags say equal.
    .macro  same what
    je      .Lsame\@
    lea     .Ltext\@(%rip), %rsi
    jmp     fail
.Ltext\@:
    .asciz  "\what"
.Lsame\@:
    .endm

    .macro  zero register, what
    test    \register, \register
    same    "\what"
    .endm

    .code64
    .globl  _start
_start:
    test    %edi, %edi
    jnz     done
    cmp     $2, %rax
    same    "rax"
    zero    %rdx, "rdx"
    zero    %r8, "r8"
    zero    %r15, "r15"
    mov     %cr2, %r9
    zero    %r9, "cr2"
    mov     %cr4, %r9
    cmp     $0x620, %r9
    same    "cr4"
    mov     %dr0, %r9
    zero    %r9, "dr0"
    mov     %dr7, %r9
    cmp     $0x400, %r9
    same    "dr7"
    movups  %xmm5, seen(%rip)
    mov     seen(%rip), %r9
    or      seen + 8(%rip), %r9
    zero    %r9, "xmm5"
    fnstcw  seen(%rip)
    cmpw    $0x37f, seen(%rip)
    same    "FPU control word"
    mov     $STAR, %ecx
    rdmsr
    or      %edx, %eax
    zero    %eax, "STAR"
    mov     $GS_BASE, %ecx
    rdmsr
    or      %edx, %eax
    zero    %eax, "kernel GS base"
    mov     $UART_SCR, %dx
    in      %dx, %al
    zero    %al, "scratch register"
    mov     $UART_LCR, %dx
    in      %dx, %al
    zero    %al, "LCR"
    cmpb    $0x5a, canary(%rip)
    same    "the image"
    mov     $FAR, %rbx
    mov     $PAGES, %ecx
2:
    cmpq    $0, 8(%rbx)
    same    "memory"
    movq    $-1, 8(%rbx)
    add     $0x1000, %rbx
    dec     %ecx
    jnz     2b

    // Leave as much as there is.
    mov     $'.', %al
    mov     $UART_THR, %dx
    out     %al, %dx
    mov     $UART_SCR, %dx
    out     %al, %dx
    mov     $UART_LCR, %dx
    out     %al, %dx
    movb    $0xee, canary(%rip)
    mov     $-1, %r9
    mov     %r9, seen(%rip)
    movups  seen(%rip), %xmm5
    fninit
    mov     %r9, %cr2
    mov     %r9d, %eax
    mov     %rax, %dr0
    mov     %cr4, %rax
    or      $0x80, %rax             // PGE
    mov     %rax, %cr4
    mov     $STAR, %ecx
    mov     $0x12345678, %eax
    mov     %eax, %edx
    wrmsr
    mov     $GS_BASE, %ecx
    mov     $0x1234, %edx
    wrmsr
    mov     %r9, %r8
    mov     %r9, %r15
done:
    mov     $0x5fc, %dx
    mov     $1, %al
    out     %al, %dx

fail:
    mov     $0x5f8, %dx
3:
    lodsb
    out     %al, %dx
    test    %al, %al
    jnz     3b

canary:
    .byte   0x5a
    .balign 16
seen:
    .quad   0, 0
