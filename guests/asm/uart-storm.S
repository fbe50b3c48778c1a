// uart-storm: every vCPU writes as fast as it can, without a lock and without a look at LSR.
//
// Mode:   real
// vCPUs:  up to 16
// Input:  ebp: bytes from each vCPU (0 means 4096)
// Output: binary, see storm.h: the bytes of each vCPU in order, mixed with the others'
// Exit:   0 (all halt)

#include "guest.h"
#include "storm.h"

    .code16
    .globl  _start
_start:
    storm_begin
    mov     $UART_THR, %dx
1:
    storm_byte
    out     %al, %dx
    dec     %ecx
    jnz     1b
    halt
