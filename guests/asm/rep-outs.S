// rep-outs: string I/O. One exit may carry many accesses, and each must take effect.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others halt
// Output: "rep ok\n"
// Exit:   0 (all halt), or 2 * step + 1 for the step below that failed

#include "guest.h"

#define SCR_VALUE 0x5c
#define MARK      0x77
#define MANY      1500          // more than KVM puts into one exit

// `rep ins\size` of `count` elements, \bytes bytes in all, from port \port to the buffer, whose
// every byte must then be \value and the one behind it the mark. The flags tell.
.macro rep_in size, count, bytes, port, value
    movb    $MARK, buffer + \bytes
    mov     $\port, %dx
    mov     $buffer, %di
    mov     $\count, %cx
    rep ins\size
    mov     $\value, %al
    mov     $buffer, %di
    mov     $\bytes, %cx
    repe scasb
    jne     .Lin\@
    cmpb    $MARK, buffer + \bytes
.Lin\@:
.endm

    .code16
    .globl  _start
_start:
    others_halt
    mov     $UART_THR, %dx
    mov     $first, %si
    mov     $(second - first), %cx
    rep outsb
    xor     %cx, %cx
    rep outsb                       // none at all

    rep_in  b, 16, 16, UNKNOWN_PORT, 0xff
    fail_unless e, 1
    rep_in  w, 3, 6, UNKNOWN_PORT, 0xff
    fail_unless e, 2
    rep_in  l, 2, 8, UNKNOWN_PORT, 0xff
    fail_unless e, 3
    rep_in  b, MANY, MANY, UNKNOWN_PORT, 0xff
    fail_unless e, 4

    write8  UART_SCR, SCR_VALUE
    rep_in  b, 4, 4, UART_SCR, SCR_VALUE
    fail_unless e, 5

    // Of many bytes to one register the last one stays.
    mov     $UART_SCR, %dx
    mov     $scratch, %si
    mov     $(scratch_end - scratch), %cx
    rep outsb
    read8   UART_SCR
    cmp     $0x33, %al
    fail_unless e, 6

    mov     $UART_THR, %dx
    mov     $second, %si
    mov     $(end - second), %cx
    rep outsb
    halt

first:       .ascii "rep "
second:      .ascii "ok\n"
end:
scratch:     .byte 0x11, 0x22, 0x33
scratch_end:
buffer:      .skip MANY + 1
