// wide-io: 2- and 4-byte accesses to a device whose registers are bytes. Each byte of the
// access goes to its own port, lowest first, as on the bus of a PC.
//
// Mode:   real
// vCPUs:  any; vCPU 0 works, the others halt
// Output: "wide ok\n"
// Exit:   0 (all halt), or 2 * step + 1 for the step below that failed

#include "guest.h"

    .code16
    .globl  _start
_start:
    others_halt

    // 16 bits to MSR and SCR: MSR is read-only, SCR gets the high byte.
    mov     $UART_MSR, %dx
    mov     $0xa5ff, %ax
    out     %ax, %dx
    read8   UART_SCR
    cmp     $0xa5, %al
    fail_unless e, 1

    // MSR and SCR in one read; the first read of MSR clears its delta bits.
    read8   UART_MSR
    read8   UART_MSR
    mov     %al, %bl
    mov     $UART_MSR, %dx
    in      %dx, %ax
    cmp     $0xa5, %ah
    fail_unless e, 2
    cmp     %bl, %al
    fail_unless e, 3

    // MCR, LSR, MSR and SCR in one write: LSR and MSR ignore theirs.
    mov     $UART_MCR, %dx
    mov     $0x5affff03, %eax
    out     %eax, %dx
    read8   UART_MCR
    cmp     $0x03, %al
    fail_unless e, 4
    read8   UART_SCR
    cmp     $0x5a, %al
    fail_unless e, 5

    // The same four in one read.
1:
    read8   UART_LSR
    test    $LSR_THRE, %al
    jnz     2f
    pause
    jmp     1b
2:
    mov     $UART_MCR, %dx
    in      %dx, %eax
    cmp     $0x03, %al
    fail_unless e, 6
    and     $(0x80 | LSR_THRE), %ah // no error; DR is the host's affair
    cmp     $LSR_THRE, %ah
    fail_unless e, 7
    shr     $16, %eax
    cmp     %bl, %al
    fail_unless e, 8
    cmp     $0x5a, %ah
    fail_unless e, 9

    // Across the end of the UART: ports 0x400 and 0x401 are nobody's.
    mov     $UART_MSR, %dx
    in      %dx, %eax
    cmp     %bl, %al
    fail_unless e, 10
    cmp     $0x5a, %ah
    fail_unless e, 11
    shr     $16, %eax
    cmp     $0xffff, %ax
    fail_unless e, 12

    // And a write across it reaches the part that is there.
    mov     $UART_SCR, %dx
    mov     $0x0102033c, %eax
    out     %eax, %dx
    read8   UART_SCR
    cmp     $0x3c, %al
    fail_unless e, 13

    // A 16-bit write to THR writes IER, too: 0, no interrupt.
    mov     $message, %si
    mov     $UART_THR, %dx
3:
    lodsb
    xor     %ah, %ah
    out     %ax, %dx
    cmp     $'\n', %al
    jne     3b
    read8   UART_IER
    cmp     $0, %al
    fail_unless e, 14
    halt

message: .ascii "wide ok\n"
