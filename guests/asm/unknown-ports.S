// unknown-ports: ports with nothing behind them, in every size. They read as all ones and
// ignore writes, and a guest that keeps at one must not flood the log.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others halt
// Output: "ports ok\n"
// Exit:   0 (all halt), or 2 * step + 1 for the step below that failed

#include "guest.h"

#define FIRST 0x9000
#define LAST  0x90ff
#define MANY  1000

// Reads port dx in every size, writes it in every size and reads it again.
.macro probe step
    in      %dx, %al
    cmp     $0xff, %al
    fail_unless e, \step
    in      %dx, %ax
    cmp     $0xffff, %ax
    fail_unless e, \step + 1
    in      %dx, %eax
    cmp     $0xffffffff, %eax
    fail_unless e, \step + 2
    xor     %eax, %eax
    out     %al, %dx
    out     %ax, %dx
    out     %eax, %dx
    in      %dx, %eax
    cmp     $0xffffffff, %eax
    fail_unless e, \step + 3
.endm

    .code16
    .globl  _start
_start:
    others_halt

    // Many ports, once each.
    mov     $FIRST, %dx
1:
    probe   1
    inc     %dx
    cmp     $LAST, %dx
    jbe     1b

    // One port, many times.
    mov     $MANY, %cx
    mov     $UNKNOWN_PORT, %dx
2:
    in      %dx, %al
    cmp     $0xff, %al
    fail_unless e, 5
    out     %al, %dx
    dec     %cx
    jnz     2b

    // The last port: the wider accesses reach past the end of the port space.
    mov     $0xffff, %dx
    probe   6

    print   ok
    halt

ok: .asciz "ports ok\n"
