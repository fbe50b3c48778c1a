// echo: sends every byte that it receives back, until Ctrl-D.
//
// Mode:   real
// vCPUs:  any; vCPU 0 echoes, the others halt at once
// Input:  any bytes, then Ctrl-D (0x04), which is not echoed
// Output: the input up to the Ctrl-D
// Exit:   0 (all halt)

#include "guest.h"

#define CTRL_D 0x04

    .code16
    .globl  _start
_start:
    others_halt
wait:
    read8   UART_LSR
    test    $LSR_DR, %al
    jnz     receive
    pause
    jmp     wait
receive:
    read8   UART_RBR
    cmp     $CTRL_D, %al
    je      done
    mov     $UART_THR, %dx
    out     %al, %dx
    jmp     wait
done:
    halt
