// uart-lines: every vCPU prints numbered lines, each under a spin lock.
//
// Mode:   real
// vCPUs:  any
// Input:  ebp: lines from each vCPU (0 means 50)
// Output: "v<index> l<line>\n": whole lines, those of each vCPU in order from 0
// Exit:   0 (all halt)

#include "guest.h"

    .code16
    .globl  _start
_start:
    iterations 50
    mov     %ecx, %ebp              // lines to go
    xor     %ebx, %ebx              // the next line's number
1:
    acquire lock
    print   vcpu
    mov     %edi, %eax
    print_dec
    print   line
    mov     %ebx, %eax
    print_dec
    print   newline
    release lock
    inc     %ebx
    dec     %ebp
    jnz     1b
    halt

lock:    .byte 0
vcpu:    .asciz "v"
line:    .asciz " l"
newline: .asciz "\n"
