// user-hello: every vCPU prints a line from user mode (ring 3), under a spin lock. HLT faults
// in ring 3, so the last one powers the VM off.
//
// Mode:   user
// vCPUs:  any
// Output: "Hello from user mode\n" from each vCPU: whole lines
// Exit:   0 (power-off)

#include "guest.h"

    .code64
    .globl  _start
_start:
    mov     %esi, %ebx
    acquire lock
    print   hello
    release lock
    arrive  finished, %ebx
    je      1f
    spin
1:
    power_off

    .balign 4
finished: .long 0
lock:     .byte 0
hello:    .asciz "Hello from user mode\n"
