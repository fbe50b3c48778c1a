// uart-storm-poll: like uart-storm, but each vCPU waits for LSR.THRE before each byte, as a
// driver does. Several may see the same THRE, so it does not keep them apart.
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
1:
    read8   UART_LSR
    test    $LSR_THRE, %al
    jnz     2f
    pause
    jmp     1b
2:
    storm_byte
    mov     $UART_THR, %dx
    out     %al, %dx
    dec     %ecx
    jnz     1b
    halt
