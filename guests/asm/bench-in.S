// bench-in: IN from LSR in a loop, for measuring.
//
// Mode:   real
// vCPUs:  any
// Input:  ebp: iterations of each vCPU (0 means 1000)
// Output: none
// Exit:   0 (all halt)

#include "guest.h"

    .code16
    .globl  _start
_start:
    iterations 1000
    mov     $UART_LSR, %dx
1:
    in      %dx, %al
    dec     %ecx
    jnz     1b
    halt
