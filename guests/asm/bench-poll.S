// bench-poll: waits for LSR.THRE, then OUT to THR, in a loop, for measuring.
//
// Mode:   real
// vCPUs:  any
// Input:  ebp: iterations of each vCPU (0 means 1000)
// Output: as many "x" from each vCPU
// Exit:   0 (all halt)

#include "guest.h"

    .code16
    .globl  _start
_start:
    iterations 1000
1:
    read8   UART_LSR
    test    $LSR_THRE, %al
    jnz     2f
    pause
    jmp     1b
2:
    write8  UART_THR, 'x'
    dec     %ecx
    jnz     1b
    halt
