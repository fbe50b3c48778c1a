// trace-markers: puts names into its own trace, and leaves a part of itself out of it. It does
// the same whether a trace is recorded or not.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others halt
// Output: "markers ok\n"
// Exit:   0 (all halt), or 2 * step + 1 for the step below that failed
// Trace:  markers "begin" and "end" of vCPU 0; between them 4 OUTs to the UART's scratch
//         register, 0x3ff; after them no exit of the 100 INs from it

#include "guest.h"

#define MANY 100

    .code16
    .globl  _start
_start:
    others_halt

    // A marker byte by byte, ended by its NUL.
    mov     $begin, %si
    mov     $TRACE_MARKER, %dx
1:
    lodsb
    out     %al, %dx
    test    %al, %al
    jnz     1b

    .irp    value, 1, 2, 3, 4
    write8  UART_SCR, \value
    .endr

    // A marker in one instruction, ended by its newline.
    mov     $end, %si
    mov     $(end_end - end), %cx
    mov     $TRACE_MARKER, %dx
    rep outsb

    // Where no trace is recorded this reads as something else than 1, before and after.
    read8   TRACE_CONTROL
    mov     %al, %bl
    write8  TRACE_CONTROL, 0
    read8   TRACE_CONTROL
    cmp     $1, %al
    fail_unless ne, 1

    mov     $MANY, %cx
    mov     $UART_SCR, %dx
2:
    in      %dx, %al
    cmp     $4, %al
    fail_unless e, 2
    dec     %cx
    jnz     2b

    // If it was on, it is on again.
    write8  TRACE_CONTROL, 1
    read8   TRACE_CONTROL
    cmp     $1, %bl
    jne     3f
    cmp     $1, %al
    fail_unless e, 3
3:

    print   ok
    halt

begin:   .asciz "begin"
end:     .ascii "end\n"
end_end:
ok:      .asciz "markers ok\n"
