// smp-hello: every vCPU prints a line that names it, under a spin lock in guest memory.
//
// Mode:   real
// vCPUs:  any
// Output: "vCPU <index> of <number> says hello\n" from each vCPU: whole lines, in any order
// Exit:   0 (all halt)

#include "guest.h"

    .code16
    .globl  _start
_start:
    mov     %esi, %ebx
    acquire lock
    print   vcpu
    mov     %edi, %eax
    print_dec
    print   of
    mov     %ebx, %eax
    print_dec
    print   says_hello
    release lock
    halt

lock:       .byte 0
vcpu:       .asciz "vCPU "
of:         .asciz " of "
says_hello: .asciz " says hello\n"
