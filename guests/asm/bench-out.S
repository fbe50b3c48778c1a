// bench-out: OUT to THR in a loop, for measuring.
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
    mov     $UART_THR, %dx
    mov     $'x', %al
1:
    out     %al, %dx
    dec     %ecx
    jnz     1b
    halt
